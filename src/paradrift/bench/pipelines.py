"""An unchanged diffusers pipeline, run plainly and through ``parallelize``: the embedded digits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor

import paradrift as pd
from paradrift.bench.records import Record
from paradrift.pretrained.pipeline import DigitsPipeline, digits_pipeline

CASES = (
    (DDIMScheduler, 50),
    (DPMSolverMultistepScheduler, 50),
    (DDPMScheduler, 250),
    (DDPMScheduler, 1000),
)
TOL = 3e-2  # for errors of at most 1e-2


def pipelines(quick: bool) -> Iterator[Record]:
    """One digit through its pipeline, guided and not: DDIM and DPM++ 2M with 50 steps, DDPM with 250 and 1000.

    Args:
        quick: One repetition of a few steps: a check that all of it runs.

    Yields:
        One record per case: medians over repetitions with different seeds, plain and parallel in turn.
    """
    for kind, steps in CASES[:2] if quick else CASES:
        pipe = digits_pipeline(kind)
        pipe.set_progress_bar_config(disable=True)
        for guidance in (None, 2.0):
            for window in (16, None):
                yield _measure(pipe, guidance, max(8, steps // 10) if quick else steps, window, 1 if quick else 3)


def _measure(pipe: DigitsPipeline, guidance: float | None, steps: int, window: int | None, repetitions: int) -> Record:
    def draw(seed: int) -> tuple[Tensor, float]:
        begin = time.perf_counter()
        found = pipe([3], guidance, steps, torch.Generator().manual_seed(seed))
        return found, time.perf_counter() - begin

    draw(0)
    plain, seconds, errors, runs = [], [], [], []
    with pd.parallelize(pipe, tol=TOL, window=window, strict=True):
        draw(0)  # the planner measures the network once; later calls find its costs known
    for seed in range(1, repetitions + 1):
        expected, took = draw(seed)
        plain.append(took)
        with pd.parallelize(pipe, tol=TOL, window=window, strict=True) as running:
            found, took = draw(seed)
        assert running.stats is not None
        seconds.append(took)
        errors.append(float((found - expected).norm() / expected.norm()))
        runs.append(running.stats)
    bounds = [stats.error_bound for stats in runs]
    return Record(
        problem="digits pipeline" + ("" if guidance is None else ", guided"),
        method="parallelize" + ("" if window is not None else ", planned"),
        sampler=type(pipe.scheduler).__name__,
        steps=steps,
        window=runs[-1].plan,
        tol=TOL,
        samples=1,
        rounds_mean=statistics.mean(stats.rounds for stats in runs),
        rounds_max=max(stats.rounds for stats in runs),
        evaluations=runs[-1].evaluations,
        seconds=statistics.median(seconds),
        sequential_seconds=statistics.median(plain),
        error_median=statistics.median(errors),
        error_worst=max(errors),
        engine_share=statistics.median(1 - stats.model_seconds / stats.seconds for stats in runs),
        extra={
            "repetitions": repetitions,
            "speedup": statistics.median(plain) / statistics.median(seconds),
            "speedup_least": min(p / s for p, s in zip(plain, seconds, strict=True)),
            "executions": runs[-1].executions,
            "error_bound_median": statistics.median(bound for bound in bounds if bound is not None),
            "predicted_sequential_seconds": runs[-1].sequential_seconds,
        },
    )


def tolerances(quick: bool) -> Iterator[Record]:
    """What a tolerance of a replayed pipeline means: true errors beside it, and beside the estimate.

    Args:
        quick: Two runs: a check that all of it runs.

    Yields:
        One record per sampler and tolerance: guidance 2, 4 and none, each with a digit and a seed of its own.
    """
    cases = [(DDIMScheduler, 25), (DDIMScheduler, 50), (DPMSolverMultistepScheduler, 50)]
    cases += [(DDPMScheduler, 100), (DDPMScheduler, 250)]
    for kind, steps in [(DDIMScheduler, 8)] if quick else cases:
        pipe = digits_pipeline(kind)
        pipe.set_progress_bar_config(disable=True)
        for tol in (1e-1, 1e-2) if quick else (1e-1, 1e-2, 1e-3):
            yield _tolerance(pipe, steps, tol)


def _tolerance(pipe: DigitsPipeline, steps: int, tol: float) -> Record:
    errors, bounds, runs = [], [], []
    for seed, guidance in enumerate((2.0, 4.0, None)):

        def draw(seed: int = seed, guidance: float | None = guidance) -> Tensor:
            return pipe([3 * seed], guidance, steps, torch.Generator().manual_seed(seed))

        expected = draw()
        with pd.parallelize(pipe, tol=tol, window=16, strict=True) as running:
            found = draw()
        assert running.stats is not None
        assert running.stats.error_bound is not None
        errors.append(float((found - expected).norm() / expected.norm()))
        bounds.append(running.stats.error_bound)
        runs.append(running.stats)
    return Record(
        problem="digits pipeline, guidance 2, 4, none",
        method="parallelize",
        sampler=type(pipe.scheduler).__name__,
        steps=steps,
        window=runs[-1].plan,
        tol=tol,
        samples=len(runs),
        rounds_mean=statistics.mean(stats.rounds for stats in runs),
        rounds_max=max(stats.rounds for stats in runs),
        evaluations=sum(stats.evaluations for stats in runs),
        seconds=sum(stats.seconds for stats in runs),
        error_median=statistics.median(errors),
        error_worst=max(errors),
        extra={
            "worst_over_tol": max(errors) / tol,
            "worst_over_bound": max(error / bound for error, bound in zip(errors, bounds, strict=True)),
        },
    )
