"""Choices that the property tests do not draw: grouped secants, finishing on the answer, warm starts."""

from __future__ import annotations

import dataclasses

import torch

import paradrift as pd
from paradrift.bench.problems import mixture
from paradrift.report import distance


def two_scales() -> pd.Gaussian:
    """Two groups of elements whose slopes differ: variances 4 and 0.04."""
    variance = torch.cat([torch.full((8,), 4.0), torch.full((8,), 0.04)])
    return pd.Gaussian(torch.linspace(-1, 1, 16), variance, pd.Discrete.linear(1000))


def solve(slopes: pd.Secant, tol: float = 1e-6) -> tuple[pd.Solution, pd.Solution]:
    chain = {"sampler": pd.DDIM(), "steps": 50, "dtype": torch.float64, "seed": 3}
    before = pd.sample(two_scales(), (6, 16), solver=pd.sequential(), **chain)
    after = pd.sample(two_scales(), (6, 16), window=pd.Whole(), slopes=slopes, tol=tol, **chain)
    return before, after


def test_secants_per_group_are_exact_where_each_group_is_one_gaussian() -> None:
    groups = torch.arange(16) // 8
    before, grouped = solve(pd.Secant(groups=groups))
    _, single = solve(pd.Secant())
    assert float((grouped.samples - before.samples).abs().max()) < 3e-6
    assert float((single.samples - before.samples).abs().max()) < 3e-6
    # one slope cannot serve both groups; two slopes make the whole problem affine and solved in a few sweeps
    assert grouped.stats.rounds <= 6 < single.stats.rounds


def test_one_group_for_all_is_the_plain_secant() -> None:
    _, plain = solve(pd.Secant())
    _, same = solve(pd.Secant(groups=torch.zeros(16, dtype=torch.int64)))
    assert plain.stats.sample_rounds == same.stats.sample_rounds
    assert torch.allclose(plain.samples, same.samples, rtol=0, atol=1e-9)


def finishing(finish: bool | None, stochastic: bool, tol: float = 1e-3) -> tuple[pd.Solution, pd.Solution]:
    problem = mixture(stochastic=stochastic)
    solver = dataclasses.replace(pd.default(tol, pd.Whole()), stop=pd.Tolerance(tol, finish=finish))
    return problem.solve(64, pd.sequential()), problem.solve(64, solver)


def test_finishing_on_the_answer_saves_rounds_and_keeps_the_tolerance() -> None:
    before, finished = finishing(True, stochastic=False)
    _, prefix = finishing(False, stochastic=False)
    assert prefix.certifiable
    assert not finished.certifiable
    assert sum(finished.stats.sample_rounds) < sum(prefix.stats.sample_rounds)
    variance = mixture(stochastic=False).denoiser(64).variance
    assert float(distance(finished.samples, before.samples, variance).max()) <= 1e-3


def test_the_answer_may_end_a_solve_without_noise_and_never_one_with_noise() -> None:
    for stochastic in (False, True):
        _, usual = finishing(None, stochastic, tol=1e-2)
        _, named = finishing(not stochastic, stochastic, tol=1e-2)
        _, other = finishing(stochastic, stochastic, tol=1e-2)
        assert usual.certifiable
        assert usual.stats.sample_rounds == named.stats.sample_rounds != other.stats.sample_rounds
        assert torch.equal(usual.samples, named.samples)


def test_without_a_tolerance_nothing_ends_before_all_rows_have_settled() -> None:
    before, exact = finishing(None, stochastic=False, tol=0.0)
    _, prefix = finishing(False, stochastic=False, tol=0.0)
    assert exact.stats.sample_rounds == prefix.stats.sample_rounds
    assert torch.allclose(exact.samples, before.samples, rtol=0, atol=1e-12)


def test_a_solution_as_the_guess_needs_hardly_any_rounds() -> None:
    problem = mixture(stochastic=True)
    chain = {"sampler": problem.sampler, "times": problem.times, "dtype": torch.float64, "seed": 1}
    cold = pd.sample(problem.denoiser(4), (4, 64), window=pd.Whole(), tol=1e-3, trajectory=True, **chain)
    assert cold.trajectory is not None
    warm = pd.sample(
        problem.denoiser(4), (4, 64), window=pd.Whole(), tol=1e-3, guess=pd.Given(cold.trajectory), **chain
    )
    assert warm.stats.rounds < cold.stats.rounds
    assert torch.allclose(warm.samples, cold.samples, rtol=0, atol=3e-3)
