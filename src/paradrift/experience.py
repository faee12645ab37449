r"""What planned solves of a model have shown, and what is predicted from it and from measured calls.

Rounds of a window of W nodes are predicted as

.. math:: \mathrm{rounds}(W) \approx K + M / (\eta W),

seconds of a call from measured ones of other numbers of rows, and the solver's own time a round as linear in W. What a
solve has taken, as a share of that, is remembered for the next solve of the same model and chain, within bounds: a
solve is but one sample, and the machine may have been busy: of times, half of what is new is believed.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass

SETTLING = 10.0  # K and eta: fitted on the embedded model at 50, 250 and 1000 steps, tol 1e-2
SHARE = 0.63
FEWEST, GROWTH = 3.0, 0.125  # K of a window of less than 56 nodes, by its width
ENGINE = 2e-3, 1.5e-5  # seconds a round that the solver takes, and more for each node of the window, until measured
STEPPING = 3e-4  # and a node of a thinned chain that is stepped through
FAILING = 0.1  # share of such chains that do not do, until tried
TRUST = 0.5, 2.0  # measurements correct predictions by factors in these bounds
STEP = 1.0, 1.4  # and those of a sequential step by factors in these: a call is not faster than when it is repeated


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What planned solves of a model have shown.

    Args:
        rounds: Rounds taken, as a share of those predicted.
        rows: Rows of a round, as a share of full windows and the nodes that are evaluated once more.
        engine: Seconds a round of the solver itself, as a share of those expected.
        calls: Seconds of the model's calls in windows, as a share of those measured for as many rows.
        step: Seconds of a step of the sequential sampler, as a share of those measured for its call.
        stepping: Seconds of the solver itself for a thinned chain, stepped through, as a share of those expected.
        failing: Share of such chains that did not do, so that all nodes followed; of what is new, a fourth is believed.
        solved: Whether a window has been solved.
    """

    rounds: float = 1.0
    rows: float = 1.0
    engine: float = 1.0
    calls: float = 1.0
    step: float = 1.0
    stepping: float = 1.0
    failing: float = FAILING
    solved: bool = False

    def rounds_of(self, width: int, nodes: int) -> float:
        """Predicted rounds of a window.

        Args:
            width: Width W.
            nodes: Nodes M.

        Returns:
            Rounds, not more than M.
        """
        return min(float(nodes), self.rounds * rounds_of(width, nodes))

    def engine_of(self, width: int) -> float:
        """Predicted seconds a round of the solver itself.

        Args:
            width: Width W.

        Returns:
            Seconds.
        """
        return self.engine * (ENGINE[0] + ENGINE[1] * width)

    def stepping_of(self, nodes: int) -> float:
        """Predicted seconds of the solver itself for a thinned chain that is stepped through, and checked.

        Args:
            nodes: Its nodes.

        Returns:
            Seconds.
        """
        return self.stepping * (ENGINE[0] + STEPPING * nodes)


_experience: dict[tuple[int, Hashable], tuple[Callable[[], object], Experience]] = {}


def experience_of(model: object, chain: Hashable) -> Experience:
    """What has been learned from planned solves of a model.

    Args:
        model: The denoiser.
        chain: What the solves had in common: nodes, noise, batch, tolerance, device.

    Returns:
        The experience; without any, predictions stand as they are.
    """
    alive, known = _experience.get((id(model), chain), (lambda: None, Experience()))
    return known if alive() is model else Experience()


def learn(
    model: object,
    chain: Hashable,
    *,
    nodes: int,
    samples: int,
    width: int,
    verified: int,
    costs: dict[int, float],
    rounds: int,
    evaluations: int,
    model_seconds: float,
    engine_seconds: float,
    stepped: bool = False,
) -> None:
    """Remember what a planned solve has taken.

    Args:
        model: The denoiser.
        chain: What solves must have in common to learn from each other.
        nodes: Nodes M.
        samples: Number of samples S.
        width: Width that was planned; 1 teaches what a step takes, and nothing about windows.
        verified: Number of nodes that are evaluated once more.
        costs: Measured seconds of a call by number of rows.
        rounds: Rounds it took.
        evaluations: Rows it evaluated.
        model_seconds: Wall time inside the model.
        engine_seconds: Wall time outside model, noise and planner.
        stepped: Whether it was a thinned chain of ``nodes`` nodes, stepped through: that teaches about those alone.
    """
    known, engine_seconds = experience_of(model, chain), max(engine_seconds, 0.0)
    if stepped:
        failing = known.failing + ((rounds > nodes + 1) - known.failing) / 4
        if rounds > nodes + 1:
            return _remember(model, chain, dataclasses.replace(known, failing=failing))
        stepping = math.sqrt(known.stepping * _trusted(engine_seconds / (ENGINE[0] + STEPPING * nodes)))
        return _remember(model, chain, dataclasses.replace(known, failing=failing, stepping=stepping))
    expected = rounds * cost_of(evaluations / rounds, costs)
    if width <= 1:
        step = _trusted((model_seconds + engine_seconds) / expected, STEP)
        found = dataclasses.replace(known, step=math.sqrt(known.step * step))
    else:
        found = Experience(
            rounds=_trusted(rounds / rounds_of(width, nodes)),
            rows=min(1.0, _trusted(evaluations / (samples * (rounds * width + verified)))),
            engine=math.sqrt(known.engine * _trusted(engine_seconds / rounds / (ENGINE[0] + ENGINE[1] * width))),
            calls=math.sqrt(known.calls * _trusted(model_seconds / expected)),
            step=known.step,
            stepping=known.stepping,
            failing=known.failing,
            solved=True,
        )
    _remember(model, chain, found)


def _remember(model: object, chain: Hashable, found: Experience) -> None:
    try:
        _experience[(id(model), chain)] = (weakref.ref(model), found)
    except TypeError:  # an object without weak references is planned anew each time
        pass


def _trusted(share: float, bounds: tuple[float, float] = TRUST) -> float:
    return min(max(share, bounds[0]), bounds[1])


def rounds_of(width: int, nodes: int) -> float:
    """Predicted rounds of a window.

    Args:
        width: Width W.
        nodes: Nodes M.

    Returns:
        Rounds, not more than M.
    """
    # K grows with narrow windows, up to where the sum is least; a wider window takes no more rounds than that one
    least = math.sqrt(nodes / (GROWTH * SHARE))
    return min(_sum(width, nodes), _sum(min(float(width), least), nodes), float(nodes))


def _sum(width: float, nodes: int) -> float:
    return min(SETTLING, FEWEST + GROWTH * width) + nodes / max(1.0, SHARE * width)


def cost_of(rows: float, costs: dict[int, float]) -> float:
    """Seconds of a call, interpolated; proportional to the rows beyond the largest measured number.

    No call counts as longer than one of more rows: that was a busy spell of the machine.

    Args:
        rows: Number of rows.
        costs: Measured seconds by number of rows.

    Returns:
        Seconds.
    """
    return _cost(rows, *_monotonic(costs))


def _monotonic(costs: dict[int, float]) -> tuple[list[int], list[float]]:
    """Numbers of rows, ascending, and for each the least cost of as many or more."""
    sizes, seconds, least = sorted(costs), [], math.inf
    for size in reversed(sizes):
        least = min(least, costs[size])
        seconds.append(least)
    return sizes, seconds[::-1]


def _cost(rows: float, sizes: list[int], seconds: list[float]) -> float:
    if rows >= sizes[-1]:
        return seconds[-1] * rows / sizes[-1]
    if rows <= sizes[0]:
        return seconds[0]
    upper = bisect.bisect_right(sizes, rows)
    share = (rows - sizes[upper - 1]) / (sizes[upper] - sizes[upper - 1])
    return seconds[upper - 1] + share * (seconds[upper] - seconds[upper - 1])
