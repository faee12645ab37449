"""Picard sweeps of the real solver on Gaussian data: golden numbers, bounds, rounds, blocks, and ParaDiGMS' own loop.

For Gaussian data every iterate is an affine map of the start and the noises, Y = p y_0 + q + R xi. Impulses fed into
the solver (the zero start, a unit start, a unit noise in one column) give that map column by column.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.forms import Form

GOLDEN = np.concatenate([np.linspace(0, 3, 13), 4 - np.exp(np.linspace(0, np.log(0.05), 9))[1:]])
TIMES, VALUE, MEAN, SHARE = 4 - GOLDEN, 2.5, 0.7, 0.8
SEQUENTIAL = {
    Form.SCORE: (0.6345349282106842, 2.5115172935860532),
    Form.RESIDUAL: (0.5828003230872086, 2.2003971473697965),
}
PATH_KL = {
    Form.SCORE: {1: 7.1612698170, 2: 11.5694960648, 3: 6.3538920374, 4: 1.5805563182, 5: 0.2065011950},
    Form.RESIDUAL: {
        1: 0.1496833217,
        2: 0.0107895878,
        3: 3.7151834573e-4,
        4: 6.2671160858e-6,
        5: 5.6822392913e-8,
    },
}
LAST_KL = {1: 5.4505725898, 2: 4.9670694848, 3: 2.7674191715, 5: 0.0163467108}


def picard(sweeps, blocks=1, form=None):
    return pd.Solver(
        window=pd.Blocks(blocks), slopes=pd.Zero(form), guess=pd.Repeat(), stop=pd.Sweeps(sweeps), verify=0
    )


def table_of(form):
    return pd.Exponential(form=form, stochasticity=SHARE).tableau(pd.OU(horizon=4.0), TIMES)


def maps(form, solver):
    """p, q of shape (R,) and R of shape (R, R), from impulses: sample 0 is at rest, 1 starts at 1, then the noises."""
    table = table_of(form)
    model = pd.Gaussian([MEAN], VALUE, pd.OU(horizon=4.0), form=form)
    start = torch.zeros(table.rows + 2, 1, dtype=torch.float64)
    start[1] = 1
    noises = torch.zeros(table.rows + 2, table.rows, 1, dtype=torch.float64)
    noises[torch.arange(table.rows) + 2, torch.arange(table.rows)] = 1
    found = pd.sample(
        model,
        start.shape,
        sampler=table,
        solver=solver,
        start=start,
        noise=noises,
        dtype=torch.float64,
        trajectory=True,
    )
    rows = found.trajectory[..., 0].numpy()
    return rows[1] - rows[0], rows[0], (rows[2:] - rows[0]).T


def law(form, solver):
    p, q, r = maps(form, solver)
    return q[-1], p[-1] ** 2 + r[-1] @ r[-1]


def start_only(form):
    """The iterate number 0: every row repeats the start."""
    rows = table_of(form).rows
    return np.ones(rows), np.zeros(rows), np.zeros((rows, rows))


@pytest.mark.parametrize("form", SEQUENTIAL)
def test_golden_mean_and_variance_of_the_sequential_sampler(form):
    np.testing.assert_allclose(law(form, pd.sequential()), SEQUENTIAL[form], rtol=1e-11)
    np.testing.assert_allclose(law(form, pd.default(0.0, pd.Sliding(7))), SEQUENTIAL[form], rtol=1e-11)


@pytest.mark.parametrize("form", PATH_KL)
def test_golden_path_divergence_of_picard(form):
    """The KL of the path of iterate K against the sequential path, in nats: 10 digits."""
    table = table_of(form)
    alpha, sigma = np.exp(-TIMES / 2), np.sqrt(-np.expm1(-TIMES))
    slope = (1.0 if form is Form.RESIDUAL else 0.0) - 1 / (alpha**2 * VALUE + sigma**2)
    b, c = table.band("b", 1)[1:], table.band("c", 0)[1:]
    weight = b**2 / (2 * c**2) * slope[:-1] ** 2
    iterates = {0: start_only(form)} | {k: maps(form, picard(k)) for k in range(1, 6)}
    for k, expected in PATH_KL[form].items():
        dp, dq, dr = (before - after for before, after in zip(iterates[k - 1], iterates[k], strict=True))
        spread = dp[:-1] ** 2 + (dr[:-1] ** 2).sum(1)
        # the golden numbers have ten digits after the point, or after the leading one
        found = float(weight @ (dq[:-1] ** 2 + spread))
        assert found == pytest.approx(expected, rel=1e-8 if expected > 1e-2 else 3e-10 + 1e-8)


def test_golden_divergence_of_the_last_row():
    mean, var = SEQUENTIAL[Form.SCORE]
    for k, expected in LAST_KL.items():
        m, v = law(Form.SCORE, picard(k))
        assert 0.5 * (v / var - 1 + (m - mean) ** 2 / var + math.log(var / v)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("form", SEQUENTIAL)
def test_as_many_sweeps_as_nodes_are_the_sequential_sampler_to_the_last_bit(form):
    model = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, pd.OU(horizon=4.0), form=form)
    sampler = pd.Exponential(form=form, stochasticity=SHARE)
    options = dict(sampler=sampler, times=TIMES, trajectory=True)
    theirs = pd.sample(model, (3, 2), solver=pd.sequential(), **options)
    nodes = theirs.stats.nodes
    for sweeps in (nodes, nodes + 3):
        assert torch.equal(pd.sample(model, (3, 2), solver=picard(sweeps), **options).trajectory, theirs.trajectory)
    for blocks in (2, 4, 20):  # of at most 10, 5, 1 nodes
        solver = picard(nodes // blocks, blocks)
        assert torch.equal(pd.sample(model, (3, 2), solver=solver, **options).trajectory, theirs.trajectory)
    few = pd.sample(model, (3, 2), solver=picard(4), **options)
    assert torch.equal(few.trajectory[:, :5], theirs.trajectory[:, :5])  # (7.2): row m is exact after m sweeps
    assert not torch.equal(few.trajectory[:, 7:], theirs.trajectory[:, 7:])


@pytest.mark.parametrize("blocks", [1, 3, 4])
@pytest.mark.parametrize("sweeps", [1, 2, 4])
def test_the_preset_is_the_blockwise_recursion(sweeps, blocks):
    """G = B diag(k), p' = G p + u, q' = G q + r, R' = G R + Gamma, block by block, each from the last row before it."""
    eps = np.diff(GOLDEN)
    a, b, c = np.exp(eps / 2), (1 + SHARE**2) * np.expm1(eps / 2), SHARE * np.sqrt(np.expm1(eps))
    alpha, spread = np.exp(-TIMES / 2), np.exp(-TIMES) * VALUE - np.expm1(-TIMES)
    k, shift = -1 / spread, alpha * MEAN / spread
    rows = len(TIMES)
    p, q, r = np.zeros(rows), np.zeros(rows), np.zeros((rows, rows))
    p[0] = 1.0
    edges = [(rows - 1) * block // blocks for block in range(blocks + 1)]
    for low, high in pairwise(edges):
        length = high - low
        gain, noise, unit = np.zeros((length + 1, length)), np.zeros((length + 1, length)), np.ones(length + 1)
        for m in range(1, length + 1):
            unit[m] = a[low : low + m].prod()
            for j in range(m):
                damp = a[low + j + 1 : low + m].prod()
                gain[m, j], noise[m, j] = damp * b[low + j], damp * c[low + j]
        own = np.zeros((length + 1, rows))
        own[:, low + 1 : high + 1] = noise
        block = [np.repeat(values[low : low + 1], length + 1, 0) for values in (p, q, r)]
        for _ in range(sweeps):
            closed = gain * k[low:high]
            block = [
                closed @ block[0][:-1] + unit * p[low],
                closed @ block[1][:-1] + gain @ shift[low:high] + unit * q[low],
                closed @ block[2][:-1] + own + unit[:, None] * r[low],
            ]
        p[low : high + 1], q[low : high + 1], r[low : high + 1] = block
    found = maps(Form.SCORE, pd.piadm_sde(blocks=blocks, sweeps=sweeps))
    for ours, theirs in zip(found, (p, q, r), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_preset_takes_blocks_times_sweeps_rounds_and_freezes_the_score_of_any_model():
    sampler = pd.Exponential(stochasticity=1.0)
    answers = []
    for form in (Form.SCORE, Form.NOISE, Form.DATA, Form.V):
        model = pd.Gaussian([MEAN, 0.1], VALUE, pd.OU(horizon=4.0), form=form)
        options = dict(sampler=sampler, times=TIMES, dtype=torch.float64)
        found = pd.sample(model, (2, 2), solver=pd.piadm_sde(blocks=4, sweeps=3), **options)
        assert found.stats.rounds == 12
        assert found.stats.evaluations <= 2 * 20 * 3
        answers.append(found.samples)
        torch.testing.assert_close(answers[-1], answers[0], rtol=1e-9, atol=1e-9)


def test_iterates_stay_below_the_factorial_bound():
    """(7.1): |u_m^(k)| <= theta_m^k / k! max |u^(0)|, u the error over the product of the a, theta = sum |b| L / a."""
    model = pd.GaussianMixture([0.5, 0.5], [[-1.2], [1.2]], 0.3, pd.OU(horizon=4.0), form=Form.SCORE)
    table = pd.Exponential(stochasticity=SHARE).tableau(pd.OU(horizon=4.0), TIMES)
    grid = torch.linspace(-9, 9, 2001, dtype=torch.float64)[:, None]
    steepest = [model.jacobian(grid, torch.full((2001,), time)).abs().max().item() for time in TIMES[:-1]]
    a, b = table.band("a", 1)[1:], table.band("b", 1)[1:]
    theta = np.concatenate([[0.0], np.cumsum(np.abs(b) * np.array(steepest) / a)])
    scale = np.concatenate([[1.0], np.cumprod(a)])
    start = torch.randn(16, 1, dtype=torch.float64)
    noises = torch.randn(16, table.rows, 1, dtype=torch.float64)
    options = dict(sampler=table, start=start, noise=noises, dtype=torch.float64, trajectory=True)
    exact = pd.sample(model, (16, 1), solver=pd.sequential(), **options).trajectory
    first = np.maximum.accumulate(((start[:, None] - exact).abs()[..., 0] / torch.from_numpy(scale)).numpy(), axis=1)
    closest = 0.0
    for k in range(1, 21):
        found = pd.sample(model, (16, 1), solver=picard(k), **options).trajectory
        error = ((found - exact).abs()[..., 0] / torch.from_numpy(scale)).numpy()
        bound = theta**k / math.factorial(k) * first
        assert np.all(error <= bound + 1e-13)
        assert np.all(error[:, : k + 1] < 1e-13)
        if k <= 3:
            closest = max(closest, float((error[:, k + 1 :] / bound[:, k + 1 :]).max()))
    assert closest > 0.05  # the bound is not so loose that anything would pass


def rounds_until(model, table, slopes, tolerance, samples=8, most=50):
    """Sweeps of one block until no row of any sample is further than the tolerance from the sequential path."""
    start = torch.randn(samples, *model.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shape = (samples, table.rows, *model.shape)
    noises = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    options = dict(sampler=table, start=start, noise=noises, dtype=torch.float64, trajectory=True)
    exact = pd.sample(model, start.shape, solver=pd.sequential(), **options).trajectory
    low, high = 1, most
    while low < high:
        k = (low + high) // 2
        solver = pd.Solver(window=pd.Whole(), slopes=slopes, guess=pd.Repeat(), stop=pd.Sweeps(k), verify=0)
        found = pd.sample(model, start.shape, solver=solver, **options).trajectory
        low, high = (low, k) if float((found - exact).abs().max()) < tolerance else (k + 1, high)
    return low


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, (20, 44, 4, 14)), pytest.param(0.0, (9, 22, 4, 14), marks=pytest.mark.slow)],
)
def test_reference_slopes_need_far_fewer_rounds(share, expected):
    """The three modes in two dimensions of the theory: 32 rounds (SDE) and 15 (ODE) without, 9 and 10 with."""
    centres = [[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]]
    model = pd.GaussianMixture([0.4, 0.3, 0.3], centres, 0.2, pd.OU(horizon=8.0, last=0.02), form=Form.SCORE)
    times = np.append(np.linspace(8, 1, 71), np.geomspace(1, 0.02, 42)[1:])
    table = pd.Exponential(stochasticity=share).tableau(pd.OU(horizon=8.0, last=0.02), times)
    plain = rounds_until(model, table, pd.Zero(), 1e-3)
    reference = rounds_until(model, table, pd.Reference(model.variance), 1e-3)
    assert expected[0] <= plain <= expected[1]
    assert expected[2] <= reference <= expected[3]
    assert reference < plain * (0.6 if share else 0.9)


def published(model, table, start, noises, window, tol):
    """ParaDiGMS as in its authors' code, for one sample: cumulative sums of drifts and noises, a sliding window."""
    last = table.rows - 1
    alpha, sigma = table.alpha, table.sigma
    ratio = alpha[:-1] * sigma[1:] / (alpha[1:] * sigma[:-1])
    std = sigma[1:] * np.sqrt(1 - ratio**2)  # of the step that leaves each row
    x = start.expand(last + 1, -1).clone()
    added = torch.from_numpy(std)[:, None] * noises[1:]
    begin, end, rounds, evaluations = 0, min(window, last), 0, 0
    while begin < last:
        data = model(x[begin:end], torch.tensor(table.t[begin:end]))
        r, decay = torch.from_numpy(ratio[begin:end])[:, None], torch.tensor(sigma[1:] / sigma[:-1])[begin:end]
        mean = decay[:, None] * r * x[begin:end] + torch.tensor(alpha[1:][begin:end])[:, None] * (1 - r**2) * data
        drift = mean - x[begin:end]
        new = x[begin] + drift.cumsum(0) + added[begin:end].cumsum(0)
        error = (new - x[begin + 1 : end + 1]).square().mean(1)
        scale = torch.from_numpy(np.append(std, 0.0)[begin + 1 : end + 1]) ** 2
        failed = (error > tol**2 * scale).nonzero().flatten().tolist()
        rounds, evaluations = rounds + 1, evaluations + end - begin
        x[begin + 1 : end + 1] = new
        moved = min(1 + (failed[0] if failed else end - begin), end - begin)
        later = min(begin + moved + window, last)
        x[end + 1 : later + 1] = x[end]
        begin, end = begin + moved, later
    return x[last], rounds, evaluations


@pytest.mark.parametrize(("window", "tol"), [(8, 0.1), (16, 0.1), (16, 0.02), (60, 0.3)])
def test_paradigms_is_its_published_loop_round_for_round(window, tol):
    schedule = pd.Discrete.linear(60, 1e-3, 0.2)
    model = pd.GaussianMixture([0.5, 0.3, 0.2], torch.randn(3, 8), 0.1, schedule)
    table = pd.DDPM().tableau(schedule, np.arange(59.0, -2.0, -1.0))
    start = torch.randn(5, 8, dtype=torch.float64)
    noises = torch.randn(5, table.rows, 8, dtype=torch.float64)
    ours = pd.sample(
        model,
        (5, 8),
        sampler=table,
        solver=pd.paradigms(window, tol),
        start=start,
        noise=noises,
        dtype=torch.float64,
    )
    rounds = []
    for sample in range(5):
        answer, count, _ = published(model, table, start[sample], noises[sample], window, tol)
        torch.testing.assert_close(ours.samples[sample], answer, rtol=1e-9, atol=1e-9)
        rounds.append(count)
    assert ours.stats.sample_rounds == tuple(rounds)
    assert max(rounds) < 45
