r"""What a tolerance means: the error found against the error asked for, and rounds against the best possible.

*Calibration.* For tolerances 1e-1 ... 1e-4, the distance of each sample to the sequential answer, median and worst.
Samples at which the sequential sampler itself is unstable (moving the start by rms tol / 10 of its own standard
deviation moves the result by tol or more) are counted and left out of the worst.

*Oracle.* Sweeps of the whole window until the final error stays below the tolerance, known only afterwards: no stop can
need fewer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench.problems import Problem, digits, mixture, rough
from paradrift.bench.records import Record
from paradrift.noise import Philox
from paradrift.report import distance
from paradrift.tableau import Tableau

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)


def calibration(quick: bool) -> Iterator[Record]:
    """Error against tolerance on mixtures, the embedded model and a rough network.

    Args:
        quick: Few samples, short chains: a check that all of it runs.

    Yields:
        One record per problem, window and tolerance.
    """
    small = 4 if quick else 256
    cases = [
        (mixture(stochastic=False), small),
        (mixture(stochastic=True), small),
        (rough(pd.DDIM(), 50, "rough ODE 50"), small),
        (rough(pd.DDPM(), 250, "rough SDE 250"), 2 if quick else 64),
        (digits(pd.DDIM(), 20 if quick else 50, "digits ODE 50"), small),
        (digits(pd.DDPM(), 1000 if not quick else 40, "digits DDPM 1000"), 2 if quick else 16),
        (digits(pd.DDPM(), 25 if quick else 250, "digits SDE 250"), small),
    ]
    for problem, samples in cases:
        windows: list[pd.Whole | pd.Sliding] = [pd.Sliding(16)]
        if problem.steps <= 50:
            windows.insert(0, pd.Whole())
        yield from _calibrate(problem, samples, windows, TOLERANCES[:2] if quick else TOLERANCES)


def _calibrate(
    problem: Problem, samples: int, windows: list[pd.Whole | pd.Sliding], tolerances: tuple[float, ...]
) -> Iterator[Record]:
    before = problem.solve(samples, pd.sequential())
    variance = problem.denoiser(samples).variance
    for tol in tolerances:
        steady = stable(problem, samples, before, tol)
        for window in windows:
            after = problem.solve(samples, pd.default(tol, window), max_rows=1024)
            gaps = distance(after.samples, before.samples, variance)
            known = (gaps > 1e-9) & torch.isfinite(after.error)
            cover = (after.error[known] / gaps[known]) if bool(known.any()) else torch.ones(1)
            yield Record(
                problem=problem.name,
                method="whole window" if isinstance(window, pd.Whole) else f"window {window.width}",
                sampler=type(problem.sampler).__name__,
                steps=problem.steps,
                window=str(window),
                tol=tol,
                samples=samples,
                rounds_mean=sum(after.stats.sample_rounds) / samples,
                rounds_max=max(after.stats.sample_rounds),
                evaluations=after.stats.evaluations,
                seconds=after.stats.seconds,
                sequential_seconds=None,
                error_median=float(gaps[steady].median()),
                error_worst=float(gaps[steady].max()),
                engine_share=after.stats.engine_seconds / after.stats.seconds,
                extra={
                    "unstable_share": 1 - float(steady.double().mean()),
                    "error_worst_of_all": float(gaps.max()),
                    "above_3_tol": int((gaps[steady] > 3 * tol).sum()),
                    "estimate_over_error_median": float(cover.median()),
                    "estimate_over_error_p05": float(cover.double().quantile(0.05)),
                },
            )


def stable(problem: Problem, samples: int, before: pd.Solution, tol: float) -> Tensor:
    """Where the sequential sampler itself is stable: moving the start a little moves its answer by less than tol.

    Args:
        problem: The problem.
        samples: How many samples S.
        before: The sequential answers.
        tol: The tolerance; the start is moved by tol / 10 of its own standard deviation.

    Returns:
        Shape (S,), bool.
    """
    table = _table(problem, samples)
    like = torch.zeros(samples, *problem.shape, dtype=problem.dtype)
    noise = Philox(seed=0, shape=problem.shape, dtype=problem.dtype)
    start = noise.start(torch.arange(samples)) * table.start
    push = torch.randn(like.shape, generator=torch.Generator().manual_seed(17), dtype=problem.dtype)
    moved = problem.solve(samples, pd.sequential(), start=start + push * table.start * tol / 10)
    return distance(moved.samples, before.samples, problem.denoiser(samples).variance) < tol


def _table(problem: Problem, samples: int) -> Tableau:
    schedule = problem.denoiser(samples).schedule
    assert schedule is not None
    return problem.sampler.tableau(schedule, problem.times)


def oracle(quick: bool) -> Iterator[Record]:
    """Rounds of the whole window against the oracle, tolerance by tolerance.

    Args:
        quick: Two samples of two problems.

    Yields:
        One record per problem and tolerance; the oracle's rounds stand in ``extra``.
    """
    cases = [mixture(stochastic=False), mixture(stochastic=True)]
    if not quick:
        cases += [
            rough(pd.DDIM(), 50, "rough ODE 50"),
            rough(pd.DDPM(), 250, "rough SDE 250"),
            digits(pd.DDIM(), 25, "digits ODE 25"),
            digits(pd.DDIM(), 50, "digits ODE 50"),
            digits(pd.DDPM(), 250, "digits SDE 250"),
        ]
    samples = 2 if quick else 8
    for problem in cases:
        variance = problem.denoiser(samples).variance
        before = problem.solve(samples, pd.sequential())
        errors = errors_by_round(problem, samples, before, variance, 16 if quick else 40)
        for tol in TOLERANCES:
            late = (~(errors <= tol)).int() * torch.arange(1, len(errors) + 1)[:, None]
            best = late.amax(0) + 1
            after = problem.solve(samples, pd.default(tol, pd.Whole()))
            gaps = distance(after.samples, before.samples, variance)
            yield Record(
                problem=problem.name,
                method="whole window",
                sampler=type(problem.sampler).__name__,
                steps=problem.steps,
                window="Whole()",
                tol=tol,
                samples=samples,
                rounds_mean=sum(after.stats.sample_rounds) / samples,
                rounds_max=max(after.stats.sample_rounds),
                evaluations=after.stats.evaluations,
                seconds=after.stats.seconds,
                error_median=float(gaps.median()),
                error_worst=float(gaps.max()),
                extra={"oracle_rounds": float(best.double().mean())},
            )


def errors_by_round(problem: Problem, samples: int, before: pd.Solution, variance: float | None, rounds: int) -> Tensor:
    """Error of the last row after each sweep of the whole window, with no stop at all.

    Args:
        problem: The problem.
        samples: How many samples S.
        before: The sequential answers.
        variance: Data variance per element.
        rounds: Most sweeps.

    Returns:
        Shape (rounds, S).
    """
    errors: list[Tensor] = []
    rounds = min(rounds, problem.steps)
    solver = pd.Solver(window=pd.Whole(), slopes=pd.Secant(), guess=pd.Coast(), stop=pd.Sweeps(rounds), verify=0)
    seen = pd.sample(
        problem.denoiser(samples),
        (samples, *problem.shape),
        sampler=problem.sampler,
        times=problem.times,
        solver=solver,
        dtype=problem.dtype,
        callback=lambda sweep: errors.append(distance(sweep.answer, before.samples, variance)),
    )
    errors.append(distance(seen.samples, before.samples, variance))
    return torch.stack(errors)
