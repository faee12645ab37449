"""The trained networks on a GPU: the library against the strongest sequential loop.

Both sides run the network in the same ways (:mod:`paradrift.bench.ways`). What a parallel run is compared with is the
plain loop of :mod:`paradrift.bench.loop` in whichever way made that fastest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

import paradrift as pd
from paradrift.bench import loop
from paradrift.bench.gpu_trained import TOL, Trained
from paradrift.bench.methods import table
from paradrift.bench.records import Plain, Record
from paradrift.bench.ways import Way, padded
from paradrift.report import distance

WIDEST = 192  # rows: the planner's widest window, and what verification adds to it


def race(trained: Trained, kind: str, steps: int, ways: Sequence[Way], seeds: int) -> list[Record]:
    """The default with a planned window against the plain loop, one sample, in several ways, seed by seed in turn.

    Args:
        trained: The network.
        kind: "ode" or "sde".
        steps: Number of steps.
        ways: Ways to run the network, on both sides.
        seeds: How many.

    Returns:
        One record for each way: medians over seeds. In ``extra``: the way; the loop's way that was fastest, whose time
        is ``sequential_seconds``, and the time of every other; ``speedup``, and ``speedup_least`` over seeds;
        ``ceiling``, what the rounds and the measured cost of a call allow.
    """
    problem = trained.problem(kind, steps)
    own, solver = table(problem), pd.default(TOL)
    start = own.start * torch.randn(1, *problem.shape, dtype=problem.dtype, device=trained.device)
    loops = {way: loop.prepared(trained.denoiser(way), own, start) for way in ways}
    for way in ways:  # graphs, kernels and the planner's costs are made once, not in every call
        for rows in sorted({padded(rows) for rows in range(1, min(WIDEST, 2 * own.nodes) + 1)}):
            trained.cost(way, problem, rows, repeats=1)
        trained.solve(trained.denoiser(way), problem, solver, 0)
    plain: dict[Way, list[float]] = {way: [] for way in ways}
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    solved: dict[Way, list[pd.Solution]] = {way: [] for way in ways}
    gaps: dict[Way, list[float]] = {way: [] for way in ways}
    for seed in range(1, seeds + 1):
        for way in ways:
            plain[way].append(loops[way](None)[1])
            solution, seconds = trained.solve(trained.denoiser(way), problem, solver, seed)
            solved[way].append(solution)
            taken[way].append(seconds)
        answer = trained.answer(ways[-1], kind, steps, seed)
        for way in ways:
            gaps[way] += distance(solved[way][-1].samples, answer, trained.denoiser(way).variance).tolist()
    best = min(ways, key=lambda way: statistics.median(plain[way]))
    one, found = trained.cost(best, problem, 1), list[Record]()
    for way in ways:
        stats = [solution.stats for solution in solved[way]]
        rounds = statistics.mean(each.rounds for each in stats)
        rows = statistics.mean(each.evaluations / each.rounds for each in stats)
        extra: dict[str, Plain] = {
            "key": f"race/{trained.model.name}/{kind}/{steps}/{way.value}",
            "model": trained.model.name,
            "kind": kind,
            "way": way.value,
            "sequential_way": best.value,
            **{f"sequential, {each.value}": statistics.median(plain[each]) for each in ways},
            "seeds": seeds,
            "speedup": statistics.median(plain[best]) / statistics.median(taken[way]),
            "speedup_least": min(a / b for a, b in zip(plain[best], taken[way], strict=True)),
            "ceiling": own.nodes * one / (rounds * trained.cost(way, problem, math.ceil(rows))),
            "rows_per_round": rows,
            "noise_share": statistics.median(each.noise_seconds / each.seconds for each in stats),
            "choice": stats[-1].choice,
        }
        found.append(
            Record(
                problem=trained.model.name,
                method=f"default, {way.value}",
                sampler=type(problem.sampler).__name__,
                steps=steps,
                window="auto",
                tol=TOL,
                samples=1,
                rounds_mean=rounds,
                rounds_max=max(each.rounds for each in stats),
                evaluations=round(statistics.mean(each.evaluations for each in stats)),
                seconds=statistics.median(taken[way]),
                sequential_seconds=statistics.median(plain[best]),
                error_median=statistics.median(gaps[way]),
                error_worst=max(gaps[way]),
                engine_share=statistics.median(each.engine_seconds / each.seconds for each in stats),
                extra=extra,
            )
        )
    return found
