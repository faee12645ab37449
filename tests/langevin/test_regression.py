"""A posterior of 50 coefficients on real data: digits at least five, 49 principal components and a constant."""

import math

import pytest
import torch
from sklearn.datasets import load_digits

import paradrift as pd
from paradrift.langevin import effective_size, langevin

FRICTION = 2.0


def posterior():
    """The score after a linear change of variables in which the posterior is roughly standard normal."""
    pictures, digits = load_digits(return_X_y=True)
    centred = torch.tensor(pictures - pictures.mean(0))
    components = torch.linalg.svd(centred, full_matrices=False).U[:, :49] * math.sqrt(len(centred))
    data = torch.cat([torch.ones(len(centred), 1), components], 1).double()
    labels = torch.tensor(digits >= 5).double()
    mode = torch.zeros(50, dtype=torch.float64)
    for _ in range(20):  # Newton
        chance = torch.sigmoid(data @ mode)
        hessian = (data * (chance * (1 - chance))[:, None]).T @ data + torch.eye(50, dtype=torch.float64)
        mode = mode + torch.linalg.solve(hessian, (labels - chance) @ data - mode)
    root = torch.linalg.inv(torch.linalg.cholesky(hessian)).T

    def score(y):
        x = mode + y @ root.T
        return ((labels - torch.sigmoid(x @ data.T)) @ data - x) @ root

    return score


def test_the_parallel_chains_are_the_sequential_ones():
    score, x = posterior(), torch.zeros(2, 50, dtype=torch.float64)
    before = langevin(score, x, 150, 0.2, FRICTION, solver=pd.sequential())
    after = langevin(score, x, 150, 0.2, FRICTION, scale=1.0, window=pd.Sliding(32))
    assert after.converged
    assert float((after.states - before.states).square().mean(2).sqrt().max()) < 1e-2
    assert after.stats.rounds < 50


@pytest.mark.slow
def test_the_posterior_moments_are_those_of_a_long_sequential_run():
    # 100 comparisons, each within 5 standard errors from effective sizes: wrong alarms below 1e-4 in all
    score = posterior()
    x = torch.zeros(8, 50, dtype=torch.float64)
    kept = []
    for seed, settings in ((1, {"solver": pd.sequential()}), (2, {"window": pd.Sliding(32), "scale": 1.0})):
        chain = langevin(score, x, 3000, 0.2, FRICTION, seed=seed, **settings)
        assert chain.converged
        kept.append(chain.states[:, 100:])
    (first, second), sizes = kept, [effective_size(draws) for draws in kept]
    squares = [effective_size((draws - draws.mean((0, 1))).square()) for draws in kept]
    spread = torch.cat(kept).std((0, 1))
    error = spread * (1 / sizes[0] + 1 / sizes[1]).sqrt()
    assert bool(((first.mean((0, 1)) - second.mean((0, 1))).abs() < 5 * error).all())
    # the standard deviation of a square is sqrt(2) variances in a normal law: relative error of sd is half of that
    ratio = first.std((0, 1)) / second.std((0, 1))
    assert bool(((ratio - 1).abs() < 5 * (0.5 / squares[0] + 0.5 / squares[1]).sqrt() * 1.2).all())
