"""The laws of the chains: exactly where they are affine, and by statistics with a stated error rate elsewhere."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats

import paradrift as pd
from paradrift.langevin import effective_size, langevin
from paradrift.langevin.tables import overdamped, underdamped
from paradrift.samplers.kinetic import kinetic_step


def affine(step, friction, k):
    """The map of (u, v) in one step for the score -k u, and the covariance of its noise."""
    one = kinetic_step(step, friction)
    move = np.array([[1 - one.u_s * k, one.u_v], [-one.v_s * k, one.v_v]])
    root = np.array([[one.u_shared, one.u_noise], [one.v_noise, 0.0]])
    return move, root @ root.T


def closed_loop(table, k):
    """Rows as linear functions of the noises, when the model answers -k z."""
    rows = table.rows
    return np.linalg.solve(np.eye(rows) - table.a + k * table.b, table.c)


@pytest.mark.parametrize(("k", "h"), [(1.0, 0.3), (4.0, 0.2)])
def test_the_law_of_an_overdamped_table_is_the_closed_form(k, h):
    # v' = (1 - hk)^2 v + 2h from a fixed start, towards (1/k) / (1 - hk/2)
    noises = closed_loop(overdamped(60, h), k)
    shrink = (1 - h * k) ** 2
    stationary = 1 / k / (1 - h * k / 2)
    expected = stationary * (1 - shrink ** np.arange(61))
    np.testing.assert_allclose((noises**2).sum(1), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("k", "h", "friction"), [(1.0, 0.3, 1.5), (4.0, 0.1, 2.5)])
def test_the_law_of_an_underdamped_table_is_the_affine_map_of_its_step(k, h, friction):
    steps = 200
    table = underdamped(steps, h, friction)
    c = table.c.copy()
    c[1, 1] = 1 / friction  # a standard normal velocity, as the front door hands it over
    noises = np.linalg.solve(np.eye(table.rows) - table.a + k * table.b, c)
    move, spread = affine(h, friction, k)
    covariance = np.diag([0.0, 1.0])
    for m in range(1, steps + 1):
        covariance = move @ covariance @ move.T + spread
        u, v = noises[2 * m + 2], noises[2 * m + 1] * friction
        np.testing.assert_allclose([[u @ u, u @ v], [v @ u, v @ v]], covariance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(covariance, linalg.solve_discrete_lyapunov(move, spread), rtol=1e-3)


@pytest.mark.parametrize("friction", [None, 1.5])
def test_sampled_moments_are_those_of_the_discrete_chain(friction):
    # 4000 independent chains, two elements, each moment within 4.5 standard errors: wrong alarms below 1e-4 in all
    k, h, steps, chains = 2.0, 0.2, 60, 4000
    chain = langevin(lambda x: -k * x, torch.zeros(chains, 2, dtype=torch.float64), steps, h, friction, thin=steps)
    assert chain.converged
    if friction is None:
        variance = 1 / k / (1 - h * k / 2) * (1 - (1 - h * k) ** (2 * steps))
        pairs = [(chain.last, variance)]
    else:
        move, spread = affine(h, friction, k)
        covariance = np.diag([0.0, 1.0])
        for _ in range(steps):
            covariance = move @ covariance @ move.T + spread
        pairs = [(chain.last, covariance[0, 0]), (chain.last_velocity, covariance[1, 1])]
    for values, variance in pairs:
        count = values.numel()
        assert abs(float(values.mean())) < 4.5 * math.sqrt(variance / count)
        assert abs(float(values.square().mean()) / variance - 1) < 4.5 * math.sqrt(2 / count)


def well(x):
    return -4 * x * (x * x - 1)


CENTRES = torch.tensor([[-1.2, 0.0], [1.2, 0.5]], dtype=torch.float64)
SPREAD = 0.4


def mixture(x):
    away = x[:, None] - CENTRES
    shares = torch.softmax(-away.square().sum(-1) / (2 * SPREAD), 1)
    return -(shares[..., None] * away).sum(1) / SPREAD


@pytest.mark.parametrize("friction", [None, 2.0])
@pytest.mark.parametrize(("score", "elements"), [(well, 1), (mixture, 2)])
def test_targets_with_two_modes_give_the_sequential_chains(score, elements, friction):
    x = torch.zeros(16, elements, dtype=torch.float64) + 0.1
    step = 0.02 if friction is None else 0.1
    before = langevin(score, x, 120, step, friction, solver=pd.sequential())
    after = langevin(score, x, 120, step, friction, tol=1e-3, scale=1.0, slopes=pd.Zero())
    assert after.converged
    assert float((after.states - before.states).square().mean(2).sqrt().max()) < 1e-3
    assert bool((before.last[:, 0] < 0).any())
    assert bool((before.last[:, 0] > 0).any())


def test_a_double_well_is_drawn_from_its_density():
    # 1000 independent chains from both wells; h = 0.004 biases variances by about h V" / 4 < 1 %, far below what
    # Kolmogorov and Smirnov see in 1000 draws (5 %). Rejection at 1e-3 of true hypotheses.
    starts = torch.linspace(-1.5, 1.5, 1000, dtype=torch.float64)[:, None]
    chain = langevin(well, starts, 600, 0.004, thin=600, slopes=pd.Zero(), window=pd.Sliding(32), scale=1.0)
    assert chain.converged
    grid = np.linspace(-4, 4, 20001)
    density = np.exp(-((grid**2 - 1) ** 2))
    distribution = np.cumsum(density) / density.sum()
    found = stats.kstest(chain.last[:, 0].numpy(), lambda q: np.interp(q, grid, distribution))
    assert found.pvalue > 1e-3


def test_a_mixture_in_the_plane_is_drawn_from_its_density():
    # chi-squared over the shares of the modes and of quadrants around them; rejection at 1e-3 of true hypotheses
    starts = CENTRES[torch.arange(1200) % 2]
    chain = langevin(mixture, starts, 250, 0.04, thin=250, scale=1.0, window=pd.Sliding(32))
    assert chain.converged
    ticks = np.linspace(-5, 5, 801)
    x, y = np.meshgrid(ticks, ticks, indexing="ij")
    density = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * SPREAD)) for a, b in CENTRES.tolist())

    def cell(x, y):
        return (np.digitize(x, [-1.2, 0, 1.2])) * 3 + np.digitize(y, [0.0, 0.5])

    expected = np.bincount(cell(x, y).ravel(), density.ravel(), minlength=12) / density.sum()
    counts = np.bincount(cell(*chain.last.T.numpy()), minlength=12)
    assert stats.chisquare(counts, expected * counts.sum()).pvalue > 1e-3


def test_the_effective_size_of_an_autoregression_is_the_closed_form():
    # x' = r x + noise has n (1 - r) / (1 + r) effective draws; over 30 repetitions the estimate varies by some 5 %
    r, count, chains = 0.8, 20000, 4
    noise = np.random.default_rng(0).standard_normal((chains, count))
    draws = np.zeros((chains, count))
    for m in range(1, count):
        draws[:, m] = r * draws[:, m - 1] + noise[:, m]
    expected = chains * count * (1 - r) / (1 + r)
    assert float(effective_size(torch.tensor(draws))) == pytest.approx(expected, rel=0.15)


def test_chains_that_disagree_have_few_effective_draws():
    draws = torch.randn(2, 1000) + torch.tensor([[-5.0], [5.0]])
    assert float(effective_size(draws)) < 20


def test_too_few_draws_have_no_effective_size():
    with pytest.raises(pd.SpecError, match="expected draws of shape"):
        effective_size(torch.zeros(2, 3))
