"""The number that stands in the README: the embedded model against the strongest sequential loop, at equal answer."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator

import torch

import paradrift as pd
from paradrift.bench.baseline import plain_loop
from paradrift.bench.records import Record
from paradrift.report import distance

LABELS = (3, 1, 4, 1)


def headline(quick: bool) -> Iterator[Record]:
    """Embedded model, one digit and four, with and without guidance, DDPM 1000, DDIM 50 and 1000.

    Args:
        quick: One repetition of a tenth of the steps: a check that all of it runs.

    Yields:
        One record per case: medians over repetitions with different seeds, sequential and parallel in turn.
    """
    repetitions = 1 if quick else 3
    cases = [
        (1, None, pd.DDPM(), 1000, 1e-1),
        (1, 2.0, pd.DDPM(), 1000, 1e-1),
        (1, None, pd.DDPM(), 1000, 1e-2),
        (1, 2.0, pd.DDPM(), 1000, 1e-2),
        (4, 2.0, pd.DDPM(), 1000, 1e-2),
        (1, None, pd.DDIM(), 50, 1e-2),
        (1, 2.0, pd.DDIM(), 50, 1e-2),
        (1, None, pd.DDIM(), 1000, 1e-2),
        (1, None, pd.DDIM(), 50, 1e-1),
    ]
    for samples, guidance, sampler, steps, tol in cases[:1] if quick else cases:
        yield _measure(samples, guidance, sampler, max(5, steps // 10) if quick else steps, tol, repetitions)


def _measure(
    samples: int, guidance: float | None, sampler: pd.Sampler, steps: int, tol: float, repetitions: int
) -> Record:
    labels = LABELS[:samples]
    model = pd.pretrained("digits", labels=labels, guidance=guidance)

    def run(seed: int, solver: pd.Solver) -> pd.Solution:
        return pd.sample(model, (samples, 1, 28, 28), sampler=sampler, steps=steps, seed=seed, solver=solver)

    plain_loop(model, sampler, min(steps, 20), labels, guidance)
    first = run(0, pd.default(tol))  # the planner measures the model once; later calls find its costs known
    plain, parallel, gaps = [], [], []
    for seed in range(1, repetitions + 1):
        plain.append(plain_loop(model, sampler, steps, labels, guidance)[1])
        after = run(seed, pd.default(tol))
        before = run(seed, pd.sequential())
        parallel.append(after)
        gaps.append(distance(after.samples, before.samples, model.variance))
    gap = torch.cat(gaps)
    seconds = [solution.stats.seconds for solution in parallel]
    rounds = [count for solution in parallel for count in solution.stats.sample_rounds]
    stats = parallel[-1].stats
    rows = stats.evaluations / stats.rounds
    one, batch = _cost(model, samples, guidance), _cost(model, math.ceil(rows), guidance)
    return Record(
        problem=f"digits x {samples}" + ("" if guidance is None else ", guided"),
        method="default",
        sampler=type(sampler).__name__,
        steps=steps,
        window=stats.choice,
        tol=tol,
        samples=samples,
        rounds_mean=statistics.mean(rounds),
        rounds_max=max(rounds),
        evaluations=stats.evaluations,
        seconds=statistics.median(seconds),
        sequential_seconds=statistics.median(plain),
        error_median=float(gap.median()),
        error_worst=float(gap.max()),
        engine_share=statistics.median(s.stats.engine_seconds / s.stats.seconds for s in parallel),
        extra={
            "repetitions": repetitions,
            "speedup": statistics.median(plain) / statistics.median(seconds),
            "speedup_least": min(p / s for p, s in zip(plain, seconds, strict=True)),
            "ceiling": steps * one / (stats.rounds * batch),
            "rows_per_round": rows,
            "noise_share": statistics.median(s.stats.noise_seconds / s.stats.seconds for s in parallel),
            "planning_seconds_once": first.stats.planning_seconds,
            "estimate_median": float(torch.cat([s.error for s in parallel]).median()),
        },
    )


def _cost(model: pd.Denoiser, rows: int, guidance: float | None) -> float:
    """Seconds of a call of so many rows, the least of several."""
    x, t = torch.zeros(rows, 1, 28, 28), torch.full((rows,), 500.0)
    sample = torch.zeros(rows, dtype=torch.int64)
    least = math.inf
    with torch.inference_mode():
        for _ in range(8):
            begin = time.perf_counter()
            model(x, t, sample)
            least = min(least, time.perf_counter() - begin)
    return least
