"""What the solver itself costs: everything outside the model, the noise and the planner."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

import paradrift as pd
from paradrift.bench.records import Record


def engine(quick: bool) -> Iterator[Record]:
    """Embedded model, four digits, guided, DDPM 1000, window 16: share of the engine in the whole call.

    On one thread, and on as many as torch uses by itself: the model gains from more threads, small tensors do not.

    Args:
        quick: A tenth of the steps, once.

    Yields:
        One record per number of threads.
    """
    before = torch.get_num_threads()
    try:
        for threads in sorted({1, before}):
            torch.set_num_threads(threads)
            yield _share(100 if quick else 1000, 1 if quick else 3)
    finally:
        torch.set_num_threads(before)


def _share(steps: int, repetitions: int) -> Record:
    model = pd.pretrained("digits", labels=[3, 1, 4, 1], guidance=2.0)
    runs = [
        pd.sample(model, (4, 1, 28, 28), steps=steps, seed=seed, window=pd.Sliding(16))
        for seed in range(repetitions + 1)
    ][1:]
    last = runs[-1].stats
    return Record(
        problem="digits x 4, guided",
        method=f"window 16, {torch.get_num_threads()} threads",
        sampler="DDPM",
        steps=steps,
        window="Sliding(width=16)",
        tol=1e-2,
        samples=4,
        rounds_mean=statistics.mean(last.sample_rounds),
        rounds_max=last.rounds,
        evaluations=last.evaluations,
        seconds=statistics.median(run.stats.seconds for run in runs),
        engine_share=statistics.median(run.stats.engine_seconds / run.stats.seconds for run in runs),
        extra={
            "engine_milliseconds_a_round": 1e3 * last.engine_seconds / last.rounds,
            "noise_share": last.noise_seconds / last.seconds,
        },
    )
