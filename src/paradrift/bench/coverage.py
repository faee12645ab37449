"""How often an estimate of the error is at least the error: that of the solver, and that of an audit afterwards.

Samplers without noise, tolerances 1e-1 ... 1e-3, windows of 16. The true error is the distance to the sequential
run from the same start. In single precision that run is itself not sharp: a second one with batches of another size
differs by some rounding, and only samples whose error is above three times that are counted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench.problems import Problem, digits, mixture, rough
from paradrift.bench.records import Plain, Record
from paradrift.forms import Form
from paradrift.forward_error import forward_error
from paradrift.report import distance

TOLERANCES = (1e-1, 1e-2, 1e-3)
SHARES = (0.05, 0.5, 0.95)


def coverage(quick: bool) -> Iterator[Record]:
    """Estimated errors against true ones: how often they cover, and by how much.

    Args:
        quick: Few samples, short chains: a check that all of it runs.

    Yields:
        One record per problem and tolerance.
    """
    score_form = pd.Exponential(form=Form.SCORE, stochasticity=0.0)
    exact, network = mixture(stochastic=False), rough(pd.DDIM(), 50, "rough", 50 if quick else 300)
    trained = digits(pd.DDIM(), 10 if quick else 50, "digits")
    cases = [(exact, sampler, 256) for sampler in (pd.Euler(), pd.DPMpp2M(), pd.Heun())]
    cases += [(network, sampler, 256) for sampler in (pd.DDIM(), pd.DPMpp2M(), pd.Heun())]
    cases += [(trained, sampler, 24) for sampler in (pd.DDIM(), pd.DPMpp2M(), pd.Heun())]
    # the score form cannot end without noise: stop one step early
    cases += [
        (dataclasses.replace(problem, times=problem.times[:-1]), score_form, samples)
        for problem, samples in ((network, 256), (trained, 24))
    ]
    for problem, sampler, samples in cases[:: 5 if quick else 1]:
        chosen = dataclasses.replace(problem, sampler=sampler)
        yield from _covered(chosen, 2 if quick else samples, TOLERANCES[:1] if quick else TOLERANCES)


def _covered(problem: Problem, samples: int, tolerances: tuple[float, ...]) -> Iterator[Record]:
    before = problem.solve(samples, pd.sequential())
    again = problem.solve(samples, pd.sequential(), max_rows=max(1, samples // 3))
    model = problem.denoiser(samples)
    floor = distance(again.samples, before.samples, model.variance)
    for tol in tolerances:
        after = pd.sample(
            model,
            (samples, *problem.shape),
            sampler=problem.sampler,
            times=problem.times,
            solver=pd.default(tol, pd.Sliding(16)),
            seed=0,
            max_rows=1024,
            dtype=problem.dtype,
            trajectory=True,
        )
        begin = time.perf_counter()
        found = forward_error(after, model, max_rows=1024)
        seconds = time.perf_counter() - begin
        gaps = distance(after.samples, before.samples, model.variance)
        sharp = (gaps > 3 * floor) & (gaps > 1e-12)
        extra: dict[str, Plain] = {"counted": int(sharp.sum()), "rounding_median": float(floor.median())}
        estimates = {"solver": after.error, "one_round": found.summed, "two_rounds": found.error}
        for name, estimate in estimates.items():
            extra |= _against(name, estimate.double().cpu(), gaps, sharp)
        yield Record(
            problem=problem.name,
            method="window 16",
            sampler=type(problem.sampler).__name__,
            steps=problem.steps,
            window="Sliding(width=16)",
            tol=tol,
            samples=samples,
            rounds_mean=sum(after.stats.sample_rounds) / samples,
            rounds_max=max(after.stats.sample_rounds),
            evaluations=after.stats.evaluations,
            seconds=after.stats.seconds,
            error_median=float(gaps.median()),
            error_worst=float(gaps.max()),
            extra=extra | {"audit_evaluations": found.evaluations, "audit_seconds": seconds},
        )


def _against(name: str, estimate: Tensor, gaps: Tensor, sharp: Tensor) -> dict[str, Plain]:
    """Share of samples covered, and quantiles of estimate / error; None where nothing was counted."""
    ratios = (estimate / gaps)[sharp]
    if len(ratios) == 0:
        return {f"{name}_coverage": None}
    quantiles = torch.quantile(ratios, torch.tensor(SHARES, dtype=torch.float64), interpolation="nearest").tolist()
    return {f"{name}_coverage": float((ratios >= 1).double().mean()), f"{name}_least": float(ratios.min())} | {
        f"{name}_ratio_p{round(100 * share):02d}": value for share, value in zip(SHARES, quantiles, strict=True)
    }
