r"""Comparisons at equal error: how many rounds a method needs for an error, whatever its own tolerance means.

The points (rounds, error) of one method on one problem at one width, as measured, have a lower envelope: the least
error that was seen for at most so many rounds. Between its corners the error is taken to fall geometrically,

.. math:: n(\varepsilon) = n_1 + (n_2 - n_1)\,
    \frac{\log\varepsilon_1 - \log\varepsilon}{\log\varepsilon_1 - \log\varepsilon_2},
    \qquad \varepsilon_1 > \varepsilon \ge \varepsilon_2 .

Nothing is extrapolated: a method whose loosest point is already more accurate needs the rounds of that point, and one
whose strictest point is less accurate does not reach the error. The sequential sampler reaches every error in as many
rounds as the chain has nodes, so nobody needs more than that.

The performance profile of a method is the share of all (problem, width, error) for which it needs at most
:math:`\tau` times the rounds of the best one.

Source: Dolan and Moré 2002, Benchmarking optimization software with performance profiles, Mathematical Programming 91.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from paradrift.bench.records import Record

TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
WORST = (1e-1, 1e-2)  # the errors that the worst sample is asked for
STRICT = 1e-2  # from here on a flip disqualifies a point
EXACT = 1e-16  # errors below are drawn and interpolated as this


class Place(NamedTuple):
    """Where methods are compared.

    Args:
        model: Name of the model.
        kind: "ode" or "sde".
        steps: Number of steps.
        width: Rows of a sample in a round, in words.
        nodes: Rounds of the sequential sampler.
    """

    model: str
    kind: str
    steps: int
    width: str
    nodes: int


class Spot(NamedTuple):
    """One measurement.

    Args:
        rounds: Rounds of a sample, mean, or another cost.
        error: Median error, or that of the worst sample.
        flips: Samples that ended in another class.
    """

    rounds: float
    error: float
    flips: int = 0


@dataclass(frozen=True)
class Duel:
    """Ours against the best rival for one error in one place.

    Args:
        place: Where.
        target: The error.
        ours: Our rounds; those of the sequential sampler where we do not reach it.
        rival: Rounds of the best rival, at most those of the sequential sampler.
        best: Its name, "sequential" where no rival is better.
    """

    place: Place
    target: float
    ours: float
    rival: float
    best: str

    @property
    def ratio(self) -> float:
        """Ours over theirs: below 1 we win."""
        return self.ours / self.rival


def rounds_at(spots: Iterable[Spot], target: float, *, unflipped: bool = False) -> float | None:
    """Rounds that a method needs for an error.

    Args:
        spots: Its measurements.
        target: The error.
        unflipped: Whether points with flips do not count.

    Returns:
        Rounds, interpolated along the lower envelope; None if no point is accurate enough.
    """
    corners: list[tuple[float, float]] = []
    for spot in sorted(spots):
        error = max(spot.error, EXACT)
        if not math.isfinite(error) or (unflipped and spot.flips):
            continue
        if corners and corners[-1][1] <= error:
            continue
        if corners and corners[-1][0] == spot.rounds:
            corners.pop()
        corners.append((spot.rounds, error))
    for index, (rounds, error) in enumerate(corners):
        if error > target:
            continue
        if index == 0:
            return rounds
        few, large = corners[index - 1]
        return few + (rounds - few) * math.log(large / target) / math.log(large / error)
    return None


def curves(
    records: Iterable[Record], error: Callable[[Record], float | None] = attrgetter("error_median")
) -> dict[Place, dict[str, list[Spot]]]:
    """The measurements of a comparison by place and method; the last of each key counts.

    Args:
        records: Measurements; others than those of a comparison, and those without an error, are left out.
        error: What counts as the error of a measurement: its median over samples, or that of the worst.

    Returns:
        Spots by place and method.
    """
    found: dict[Place, dict[str, list[Spot]]] = {}
    for record in latest(records, "compare"):
        found_error = error(record)
        if found_error is None or record.extra["unconverged"]:
            continue
        spot = Spot(record.rounds_mean, found_error, int(record.extra["flips"] or 0))
        found.setdefault(place(record), {}).setdefault(record.method, []).append(spot)
    return found


def latest(records: Iterable[Record], part: str) -> list[Record]:
    """The last measurement of each point of a part; single samples for time count on each processor by themselves.

    Args:
        records: Measurements.
        part: "compare" or "seconds".

    Returns:
        The measurements.
    """
    found = {
        (record.extra["key"], record.machine["processor"] if part == "seconds" else None): record
        for record in records
        if record.extra.get("part") == part
    }
    return list(found.values())


def place(record: Record) -> Place:
    """Where a measurement was made.

    Args:
        record: A measurement of a comparison.

    Returns:
        The place.
    """
    nodes = int(record.extra["nodes"] or record.steps)
    return Place(str(record.extra["model"]), str(record.extra["kind"]), record.steps, record.window, nodes)


def ours(records: Iterable[Record]) -> frozenset[str]:
    """Names of the library's own methods.

    Args:
        records: Measurements of a comparison.

    Returns:
        Names.
    """
    return frozenset(record.method for record in records if record.extra.get("ours"))


def needs(
    found: Mapping[Place, Mapping[str, Sequence[Spot]]],
    targets: Sequence[float] = TARGETS,
    *,
    flips: bool = False,
    floor: Callable[[Place], float] = lambda where: 0.0,
) -> dict[tuple[Place, float], dict[str, float]]:
    """Rounds by place, error and method; the sequential sampler is one of them.

    Args:
        found: Measurements by place and method.
        targets: Errors.
        flips: Whether points with flips count at errors of 1e-2 and below.
        floor: The smallest error that methods were asked for in a place: smaller ones are not compared.

    Returns:
        Rounds, at most those of the sequential sampler; infinite where a method does not reach the error.
    """
    result: dict[tuple[Place, float], dict[str, float]] = {}
    for where, methods in found.items():
        for target in (target for target in targets if target >= floor(where)):
            row: dict[str, float] = {}
            for name, spots in methods.items():
                rounds = rounds_at(spots, target, unflipped=not flips and target <= STRICT)
                row[name] = math.inf if rounds is None else min(rounds, float(where.nodes))
            result[where, target] = row | {"sequential": float(where.nodes)}
    return result


def duels(table: Mapping[tuple[Place, float], Mapping[str, float]], own: str, all_ours: frozenset[str]) -> list[Duel]:
    """One of our methods against the best rival, everywhere.

    Args:
        table: Rounds by place, error and method.
        own: Our method.
        all_ours: All of ours: none of them is a rival.

    Returns:
        One for each error and each place where ours and a rival were measured.
    """
    result: list[Duel] = []
    for (where, target), row in table.items():
        rivals = {name: rounds for name, rounds in row.items() if name not in all_ours}
        best = min(rivals, key=lambda name: rivals[name])
        if own in row and len(rivals) > 1:  # the sequential sampler alone is no comparison
            result.append(Duel(where, target, min(row[own], row["sequential"]), rivals[best], best))
    return result


def mean_ratio(found: Sequence[Duel]) -> float | None:
    """Geometric mean of the ratios.

    Args:
        found: Duels.

    Returns:
        The mean; None of nothing.
    """
    if not found:
        return None
    return math.exp(sum(math.log(duel.ratio) for duel in found) / len(found))


def profile(
    table: Mapping[tuple[Place, float], Mapping[str, float]], method: str, factors: Sequence[float]
) -> list[float]:
    """The performance profile of a method.

    Args:
        table: Rounds by place, error and method.
        method: Its name.
        factors: Factors tau, at least 1.

    Returns:
        Share, of the places where it was measured and all errors, for which the method is within each factor of the
        best.
    """
    ratios = [row[method] / min(row.values()) for row in table.values() if method in row]
    return [sum(ratio <= factor * (1 + 1e-9) for ratio in ratios) / max(1, len(ratios)) for factor in factors]
