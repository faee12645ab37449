"""The tolerance means what it says: a small part of `paradrift bench calibration` and `oracle`, as tests."""

from __future__ import annotations

import pytest
import torch

import paradrift as pd
from paradrift.bench.calibration import errors_by_round, stable
from paradrift.bench.problems import Problem, digits, mixture, modes, rough
from paradrift.report import distance


def problems() -> list[tuple[Problem, int]]:
    return [
        (mixture(stochastic=False), 64),
        (mixture(stochastic=True), 64),
        (rough(pd.DDIM(), 50, "rough ODE 50"), 32),
        (rough(pd.DDPM(), 100, "rough SDE 100"), 16),
        (digits(pd.DDIM(), 25, "digits ODE 25"), 8),
        (digits(pd.DDPM(), 100, "digits SDE 100"), 8),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("window", [pd.Whole(), pd.Sliding(16)], ids=["whole", "sliding"])
def test_the_worst_stable_sample_stays_under_three_tolerances(index: int, window: pd.Window) -> None:
    problem, samples = problems()[index]
    before = problem.solve(samples, pd.sequential())
    for tol in (1e-1, 1e-2, 1e-3, 1e-4):
        after = problem.solve(samples, pd.default(tol, window))
        gaps = distance(after.samples, before.samples, problem.denoiser(samples).variance)
        kept = stable(problem, samples, before, tol)
        assert after.converged
        assert bool(kept.any())
        assert float(gaps[kept].max()) <= 3 * tol


@pytest.mark.slow
def test_rounds_of_the_whole_window_stay_near_the_oracle() -> None:
    ours, best = {}, {}
    for problem, samples in problems():
        count = min(samples, 16)
        variance = problem.denoiser(count).variance
        before = problem.solve(count, pd.sequential())
        errors = errors_by_round(problem, count, before, variance, 40)
        for tol in (1e-1, 1e-2, 1e-3, 1e-4):
            late = (~(errors <= tol)).int() * torch.arange(1, len(errors) + 1)[:, None]
            best.setdefault(tol, []).append(float((late.amax(0) + 1).double().mean()))
            after = problem.solve(count, pd.default(tol, pd.Whole()))
            ours.setdefault(tol, []).append(sum(after.stats.sample_rounds) / count)
    for tol in ours:
        mean, oracle = (sum(values[tol]) / len(values[tol]) for values in (ours, best))
        assert mean <= 1.3 * oracle + 1, f"at tol {tol}: {mean:.2f} rounds, the oracle needs {oracle:.2f}"


def test_eight_evaluations_a_round_on_the_toy_without_a_flip() -> None:
    """Thirteen rounds a sample at most, relative error at most 5.4e-3: 200 of the 2000 samples of the benchmark."""
    problem = mixture(stochastic=False)
    before = problem.solve(200, pd.sequential()).samples
    solution = problem.solve(200, pd.default(1e-2, pd.Sliding(8), verify=0))
    after, stats = solution.samples, solution.stats
    assert stats.evaluations <= 8 * sum(stats.sample_rounds)
    assert sum(stats.sample_rounds) / 200 <= 13
    assert float(((after - before).norm(dim=1) / before.norm(dim=1)).max()) <= 5.4e-3
    assert torch.equal(torch.cdist(after, modes()).argmin(1), torch.cdist(before, modes()).argmin(1))
