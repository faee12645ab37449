r"""What the rounds of the trained networks would gain at the cost of larger ones, and whether the aims are met.

With n steps, the measured cost of a call C(r) and the rows r_1, r_2, ... of the rounds of a trained network,

.. math:: \mathrm{ceiling} = \frac{n\,C_*(r_0)}{\sum_k C(r_k)}, \qquad
    \mathrm{speedup} = \frac{n\,C_*(r_0)}{\sum_k C(r_k) + a},

where C_* is the cost in whichever way makes one step cheapest, r_0 the rows of one step (two if guided), and a the
seconds of that solve outside the model. Of the windows the fastest is taken, the sequential sampler being one of them:
that is what a planned window does.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from paradrift.bench.gpu_rounds import unpacked
from paradrift.bench.records import Record
from paradrift.experience import cost_of

TEN_TIMES, A_THIRD, NEVER = 10.0, 1.3, 0.95
HALF = "bfloat16"  # what large networks are run in


def measured(found: Sequence[Record], part: str) -> list[Record]:
    """The newest record of every point of a part, without those that failed.

    Args:
        found: Records, oldest first.
        part: The part.

    Returns:
        Records in the order of their first measurement.
    """
    newest = {
        str(record.extra["key"]): record
        for record in found
        if record.extra.get("part") == part and "failed" not in record.extra
    }
    return list(newest.values())


def predictions(found: Sequence[Record]) -> Iterator[Record]:
    """One record for each large network, way and precision, and each trained network's rounds.

    Args:
        found: Cost curves and rounds.

    Yields:
        Records: ``seconds`` of the fastest window beside ``sequential_seconds``. In ``extra``: ``ceiling``,
        ``speedup``, ``rounds_of`` whose rounds they are.
    """
    curves: dict[tuple[str, str, str], dict[int, float]] = {}
    for record in measured(found, "cost"):
        place = record.problem, str(record.extra["dtype"]), str(record.extra["way"])
        curves.setdefault(place, {})[record.samples] = record.seconds
    chains: dict[tuple[str, str, int], list[Record]] = {}
    for record in measured(found, "rounds"):
        chains.setdefault((record.problem, str(record.extra["kind"]), record.steps), []).append(record)
    for (network, dtype, way), costs in curves.items():
        rivals = [other for place, other in curves.items() if place[:2] == (network, dtype) and 1 in other]
        if 1 not in costs:
            continue
        for windows in chains.values():
            yield _prediction(network, dtype, way, costs, rivals, windows)


def _prediction(
    network: str,
    dtype: str,
    way: str,
    costs: dict[int, float],
    rivals: Sequence[dict[int, float]],
    windows: Sequence[Record],
) -> Record:
    some = windows[0]
    nodes, one = int(some.extra["nodes"] or 0), int(some.extra["one"] or 1)
    sequential = nodes * min(cost_of(one, other) for other in rivals)
    model, window, aside, chosen = sequential, "1", 0.0, None
    for record in windows:
        own, runs = float(record.extra["aside"] or 0.0), unpacked(str(record.extra["rows"]))
        inside = statistics.mean(sum(cost_of(rows, costs) for rows in run) for run in runs)
        if inside + own < model + aside:
            model, window, aside, chosen = inside, record.window, own, record
    return Record(
        problem=network,
        method=f"{way}, {dtype}",
        sampler=some.sampler,
        steps=some.steps,
        window=window,
        tol=some.tol,
        samples=1,
        rounds_mean=float(nodes) if chosen is None else chosen.rounds_mean,
        rounds_max=nodes if chosen is None else chosen.rounds_max,
        evaluations=nodes if chosen is None else chosen.evaluations,
        seconds=model + aside,
        sequential_seconds=sequential,
        extra={
            "key": f"predicted/{network}/{dtype}/{way}/{some.problem}/{some.extra['kind']}/{some.steps}",
            "job": "predicted",
            "part": "predicted",
            "rounds_of": some.problem,
            "kind": some.extra["kind"],
            "way": way,
            "dtype": dtype,
            "ceiling": sequential / model,
            "speedup": sequential / (model + aside),
        },
    )


def best(found: Sequence[Record]) -> list[Record]:
    """The fastest way of every large network, precision and chain.

    Args:
        found: Records, predictions among them.

    Returns:
        One prediction each.
    """
    fastest: dict[tuple[object, ...], Record] = {}
    for record in measured(found, "predicted"):
        extra = record.extra
        place = record.problem, extra["dtype"], extra["rounds_of"], extra["kind"], record.steps
        if place not in fastest or record.seconds < fastest[place].seconds:
            fastest[place] = record
    return list(fastest.values())


def aims(found: Sequence[Record], unet: str) -> Iterator[str]:
    """What was aimed at, and what came out, one sentence each.

    Args:
        found: All records.
        unet: Name of the network of the second aim.

    Yields:
        Sentences: met, missed or not measured.
    """
    best: dict[tuple[str, str, int], tuple[float, float]] = {}
    for record in measured(found, "race"):
        place = record.problem, str(record.extra["kind"]), record.steps
        plain, ours = best.get(place, (float("inf"), float("inf")))
        best[place] = min(plain, record.sequential_seconds or plain), min(ours, record.seconds)
    speedups = {f"{name} {kind} {steps}": plain / ours for (name, kind, steps), (plain, ours) in best.items()}
    long = {name: gain for name, gain in speedups.items() if name.endswith(" sde 1000")}
    yield _aim(f"at least {TEN_TIMES:g} times for DDPM 1000 on the trained networks", long, TEN_TIMES)
    short: dict[str, float] = {}
    for record in measured(found, "predicted"):
        if (record.problem, record.steps, record.extra["dtype"]) == (unet, 50, HALF):
            name = f"rounds of {record.extra['rounds_of']}"
            short[name] = max(short.get(name, 0.0), float(record.extra["speedup"] or 0.0))
    yield _aim(f"above {A_THIRD:g} times at 50 steps for {unet} in {HALF}, predicted", short, A_THIRD)
    yield _aim(f"nowhere below {NEVER:g} with a planned window", speedups, NEVER)


def _aim(words: str, gains: dict[str, float], least: float) -> str:
    if not gains:
        return f"{words}: not measured"
    told = ", ".join(f"{name} {gain:.2f}" for name, gain in sorted(gains.items(), key=lambda item: item[1]))
    return f"{words}: {'met' if min(gains.values()) >= least else 'missed'}: {told}"
