"""The wavefront on Gaussian data: its path law by hand, its certificate, and rounds against dimension and blocks.

For Gaussian data every iterate is an affine map of the start and the noises, so the divergence of the path laws and the
expected certificate are both known without sampling.
"""

import math

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.forms import Form

GRID = np.concatenate([np.linspace(0, 3, 13), 4 - np.exp(np.linspace(0, np.log(0.05), 9))[1:]])
TIMES, VALUE, MEAN, SHARE = 4 - GRID, 2.5, 0.7, 0.8
STEPS = len(TIMES) - 1


def problem():
    schedule = pd.OU(horizon=4.0)
    table = pd.Exponential(form=Form.SCORE, stochasticity=SHARE).tableau(schedule, TIMES)
    return table, pd.Gaussian([MEAN], VALUE, schedule, form=Form.SCORE)


def by_hand(blocks, sweeps):
    """Mean and covariance of rows 0 to M after the last update of every block, by the recursion of the paper.

    x[n, j] holds rows 0 to M_n of block n as coefficients of (1, y_0, xi_1 ... xi_M). Weights are written anew from the
    exponential integrator, the closed sum over all earlier rows of the block, not row by row.
    """
    eps = np.diff(GRID)
    a, b, c = np.exp(eps / 2), (1 + SHARE**2) * np.expm1(eps / 2), SHARE * np.sqrt(np.expm1(eps))
    alpha, spread = np.exp(-TIMES / 2), np.exp(-TIMES) * VALUE - np.expm1(-TIMES)
    slope, offset = -1 / spread, alpha * MEAN / spread
    edges = [STEPS * block // blocks for block in range(blocks + 1)]
    unit = np.eye(STEPS + 2)
    x = {}
    for n in range(blocks):  # one block after the other: the order of rounds does not matter to what is used
        low, high = edges[n], edges[n + 1]
        for j in range(1, sweeps + 1):
            end = unit[1] if n == 0 else x[n - 1, j][-1]
            before = np.tile(end, (high - low + 1, 1)) if j == 1 else np.concatenate([end[None], x[n, j - 1][1:]])
            rows = [end]
            for m in range(1, high - low + 1):
                row = a[low : low + m].prod() * end
                for i in range(m):
                    damp = a[low + i + 1 : low + m].prod()
                    output = slope[low + i] * before[i] + offset[low + i] * unit[0]
                    row = row + damp * (b[low + i] * output + c[low + i] * unit[low + i + 2])
                rows.append(row)
            x[n, j] = np.stack(rows)
    maps = np.concatenate([unit[1:2], *(x[n, sweeps][1:] for n in range(blocks))])
    return maps[:, 0], maps[:, 1:] @ maps[:, 1:].T


def gaussian_kl(mean, cov, other_mean, other_cov):
    away = mean - other_mean
    quadratic = np.trace(np.linalg.solve(other_cov, cov)) - len(mean) + away @ np.linalg.solve(other_cov, away)
    return (quadratic + np.linalg.slogdet(other_cov)[1] - np.linalg.slogdet(cov)[1]) / 2


def expected_nats(blocks, sweeps):
    """The exact expectation of the certificate, from impulses."""
    table, model = problem()
    size = table.rows
    signed = torch.cat([torch.zeros(1, size), torch.eye(size), -torch.eye(size)]).double()
    start, noises = signed[:, :1], signed.clone()
    noises[:, 0] = 0
    given = dict(sampler=table, start=start, noise=noises[..., None])
    method = pd.wavefront(blocks, sweeps)
    solution = pd.sample(model, start.shape, solver=method, dtype=torch.float64, trajectory=True, **given)
    rest, plus, minus = pd.certificate.kl(solution, model, noise=given["noise"]).per_node.split([1, size, size], dim=1)
    return float((rest.squeeze(1) + ((plus + minus) / 2 - rest).sum(1)).sum())


@pytest.mark.parametrize(("blocks", "sweeps"), [(1, 3), (2, 1), (2, 4), (4, 3), (4, 4), (7, 3), (20, 1)])
def test_nats_are_the_divergence_of_the_gaussian_path_laws(blocks, sweeps):
    mean, cov = by_hand(blocks, sweeps)
    exact = gaussian_kl(mean, cov, *by_hand(1, STEPS))
    assert expected_nats(blocks, sweeps) == pytest.approx(exact, rel=1e-8, abs=1e-12)
    assert exact > 1e-3 or (blocks, sweeps) == (20, 1)  # blocks of one node are the sequential sampler


def test_one_block_has_the_golden_numbers_of_picard():
    assert expected_nats(1, 3) == pytest.approx(6.3538920374, rel=1e-8)


def test_weights_of_drawn_samples_have_mean_one():
    """E exp(-llr) = 1 and E llr = E nats, four standard errors: a false alarm in 16,000 runs each."""
    table, model = problem()
    found = pd.certificate.kl(
        pd.sample(
            model, (10_000, 1), sampler=table, solver=pd.wavefront(4, 5), seed=3, dtype=torch.float64, trajectory=True
        ),
        model,
    )
    root = math.sqrt(10_000)
    weights, noise = torch.exp(-found.llr), found.llr - found.nats
    assert abs(weights.mean() - 1) < 4 * weights.std() / root < 0.1
    assert abs(noise.mean()) < 4 * noise.std() / root
    exact = gaussian_kl(*by_hand(4, 5), *by_hand(1, STEPS))
    assert abs(found.mean - exact) < 4 * found.standard_error < 0.1 * exact


def needed(model, times, samples, method, tol, norm):
    """Rounds at the fewest sweeps for which no row of any sample is further than tol from the sequential one."""
    shape = (samples, *model.shape)
    request = dict(sampler=pd.Exponential(), times=times, dtype=torch.float64, trajectory=True)
    exact = pd.sample(model, shape, solver=pd.sequential(), **request).trajectory

    def run(sweeps):
        found = pd.sample(model, shape, solver=method(sweeps), **request)
        return norm(found.trajectory - exact).max() <= tol, found.stats.rounds

    low, high = 1, 64
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if run(middle)[0] else (middle + 1, high)
    return run(low)[1]


def triangle(steps):
    """Three modes in the plane, and the paper's grid: T = 8, stopped at 0.02, in steps of 0.05 where 222 are asked."""
    schedule = pd.OU(horizon=8.0, last=0.02)
    means = [[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]]
    model = pd.GaussianMixture([0.3, 0.4, 0.3], means, 0.1, schedule, form=Form.SCORE)
    return model, pd.grids.shrinking(schedule, steps)


def rounds_by_blocks(steps, samples, counts):
    model, times = triangle(steps)
    return {
        blocks: needed(model, times, samples, lambda sweeps, n=blocks: pd.wavefront(n, sweeps), 1e-3, torch.abs)
        for blocks in counts
    } | {"PIADM 8": needed(model, times, samples, lambda sweeps: pd.piadm_sde(8, sweeps), 1e-3, torch.abs)}


def test_more_blocks_cost_a_few_rounds_where_blocks_one_after_the_other_double_them():
    found = rounds_by_blocks(56, 4, (1, 8))
    assert found[1] <= found[8] < 1.4 * found[1] < found["PIADM 8"]


@pytest.mark.slow
def test_rounds_by_blocks_on_the_paper_s_grid():
    assert rounds_by_blocks(222, 64, (1, 4, 8, 16, 32)) == {1: 32, 4: 35, 8: 37, 16: 44, 32: 57, "PIADM 8": 64}


def rounds_by_dimension(dimension, method):
    """Three modes with centres N(0, I) and variance 0.3, T = log d + 4, stopped at 0.1, steps of 0.1, blocks of time 1
    on average; to 1e-2 in the Euclidean norm of every row."""
    schedule = pd.OU(horizon=math.log(dimension) + 4, last=0.1)
    steps = math.ceil(10 * (schedule.horizon - 1) + math.log(10) / math.log(1.1))
    centres = torch.randn(3, 1024, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[:, :dimension]
    model = pd.GaussianMixture([0.3, 0.4, 0.3], centres, 0.3, schedule, form=Form.SCORE)
    blocks = math.ceil(schedule.horizon)
    times = pd.grids.shrinking(schedule, steps)
    return needed(model, times, 8, lambda sweeps: method(blocks, sweeps), 1e-2, lambda error: error.norm(dim=2))


def test_rounds_grow_slowly_with_the_dimension():
    assert [rounds_by_dimension(d, pd.wavefront) for d in (4, 16)] == [22, 27]


@pytest.mark.slow
def test_rounds_grow_like_the_logarithm_of_the_dimension():
    dimensions = np.array([4, 16, 64, 256, 1024])
    found = [rounds_by_dimension(int(d), pd.wavefront) for d in dimensions]
    assert found == [22, 27, 33, 38, 42]
    line = np.polyfit(np.log(dimensions), found, 1)
    assert line[0] == pytest.approx(3.68, abs=0.01)
    assert np.abs(np.polyval(line, np.log(dimensions)) - found).max() < 0.7
    assert [rounds_by_dimension(d, pd.piadm_sde) for d in (4, 64, 256)] == [36, 54, 60]
