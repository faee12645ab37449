"""The rounds of the trained networks, row by row: what a network of another size would be asked."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

import paradrift as pd
from paradrift.bench.gpu_trained import TOL, Trained, Watched, halves
from paradrift.bench.records import Record
from paradrift.bench.ways import Way
from paradrift.report import distance


def rounds(trained: Trained, kind: str, steps: int, width: int, way: Way, seeds: int) -> list[Record]:
    """The rows of every round in a window of one width: what a network of another size would be asked.

    Args:
        trained: The network.
        kind: "ode" or "sde".
        steps: Number of steps.
        width: Width of the sliding window.
        way: How the network is run.
        seeds: How many.

    Returns:
        One record. In ``extra``: ``rows``, see :func:`packed`, of the network: a guided row counts twice; ``aside``,
        seconds of a solve outside the model.
    """
    problem, model = trained.problem(kind, steps), trained.denoiser(way)
    solver, twice = pd.default(TOL, window=pd.Sliding(width)), halves(model)
    calls: list[list[int]] = []
    stats: list[pd.Stats] = []
    gaps: list[float] = []
    for seed in range(1, seeds + 1):
        watched = Watched(model)
        solution, _ = trained.solve(watched, problem, solver, seed)
        calls.append([twice * count for count in watched.rows])
        stats.append(solution.stats)
        answer = trained.answer(way, kind, steps, seed)
        gaps += distance(solution.samples, answer, model.variance).tolist()
    nodes = stats[-1].nodes
    return [
        Record(
            problem=trained.model.name,
            method="default",
            sampler=type(problem.sampler).__name__,
            steps=steps,
            window=str(width),
            tol=TOL,
            samples=1,
            rounds_mean=statistics.mean(each.rounds for each in stats),
            rounds_max=max(each.rounds for each in stats),
            evaluations=round(statistics.mean(each.evaluations for each in stats)),
            seconds=statistics.median(each.seconds for each in stats),
            error_median=statistics.median(gaps),
            error_worst=max(gaps),
            engine_share=statistics.median(each.engine_seconds / each.seconds for each in stats),
            extra={
                "key": f"rounds/{trained.model.name}/{kind}/{steps}/{width}",
                "model": trained.model.name,
                "kind": kind,
                "nodes": nodes,
                "one": twice,
                "rows": packed(calls),
                "aside": statistics.median(each.seconds - each.model_seconds for each in stats),
                "seeds": seeds,
            },
        )
    ]


def packed(calls: Sequence[Sequence[int]]) -> str:
    """Rows of the calls of several runs in few words: "16x3 9; 16x4".

    Args:
        calls: Rows of each call, run by run.

    Returns:
        The words.

    Example:
        >>> packed([[16, 16, 16, 9], [8]]), unpacked("16x3 9; 8")
        ('16x3 9; 8', [[16, 16, 16, 9], [8]])
    """
    runs: list[str] = []
    for each in calls:
        counted = [(rows, len(list(same))) for rows, same in itertools.groupby(each)]
        runs.append(" ".join(f"{rows}x{count}" if count > 1 else str(rows) for rows, count in counted))
    return "; ".join(runs)


def unpacked(words: str) -> list[list[int]]:
    """What :func:`packed` has written.

    Args:
        words: The words.

    Returns:
        Rows of each call, run by run.
    """
    runs: list[list[int]] = []
    for part in words.split(";"):
        pairs = [word.partition("x") for word in part.split()]
        runs.append([int(rows) for rows, _, count in pairs for _ in range(int(count or 1))])
    return runs
