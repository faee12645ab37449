"""The number that stands in the README: the embedded model, DDPM with 1000 steps, against its sequential run."""

from __future__ import annotations

from collections.abc import Iterator

import torch

import paradrift as pd
from paradrift.bench.records import Record
from paradrift.report import distance

TOL = 1e-2


def headline(quick: bool) -> Iterator[Record]:
    """Embedded model, one digit and four, DDPM and DDIM: seconds, rounds and error against sequential.

    Args:
        quick: One repetition of a tenth of the steps: a check that all of it runs.

    Yields:
        One record per number of samples, sampler and method: medians over the repetitions, with different seeds.
    """
    repetitions = 1 if quick else 7
    cases = [(pd.DDPM(), "ddpm", 1000), (pd.DDIM(), "ddim", 50)]
    for count in (1,) if quick else (1, 4):
        denoiser = pd.pretrained("digits", labels=[(3, 1, 4, 1)[index] for index in range(count)], guidance=2.0)
        for sampler, name, steps in cases:
            span = max(5, steps // 10) if quick else steps
            yield _measure(denoiser, count, sampler, name, span, repetitions)


def _measure(denoiser: pd.Denoiser, count: int, sampler: pd.Sampler, name: str, steps: int, repetitions: int) -> Record:
    def run(seed: int, solver: pd.Solver, span: int) -> pd.Solution:
        return pd.sample(denoiser, shape=(count, 1, 28, 28), sampler=sampler, steps=span, seed=seed, solver=solver)

    run(0, pd.sequential(), 3)
    run(0, pd.default(TOL), steps)  # the planner measures the model once; later calls find its costs known
    pairs = [(run(seed, pd.sequential(), steps), run(seed, pd.default(TOL), steps)) for seed in range(repetitions)]
    gaps = torch.cat([distance(after.samples, before.samples, denoiser.variance) for before, after in pairs])
    parallel = [after.stats for _, after in pairs]
    seconds = torch.tensor([stats.seconds for stats in parallel])
    sequential = torch.tensor([before.stats.seconds for before, _ in pairs])
    rounds = [rounds for stats in parallel for rounds in stats.sample_rounds]
    middle = float(seconds.median())
    return Record(
        problem="digits" if count == 1 else f"digits x {count}",
        method="default",
        sampler=name,
        steps=steps,
        window=parallel[-1].choice,
        tol=TOL,
        samples=count,
        rounds_mean=sum(rounds) / len(rounds),
        rounds_max=max(rounds),
        evaluations=parallel[-1].evaluations,
        seconds=middle,
        sequential_seconds=float(sequential.median()),
        error_median=float(gaps.median()),
        error_worst=float(gaps.max()),
        engine_share=sum(stats.engine_seconds for stats in parallel) / float(seconds.sum()),
        extra={
            "repetitions": repetitions,
            "seconds_least": float(seconds.min()),
            "seconds_most": float(seconds.max()),
            "sequential_least": float(sequential.min()),
            "sequential_most": float(sequential.max()),
        },
    )
