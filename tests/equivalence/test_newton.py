"""Newton's method: one round where the chain is affine, squared errors near the answer, and what may go wrong."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import paradrift as pd
from paradrift.denoisers import Value
from paradrift.executors import Local
from paradrift.forms import Form
from paradrift.noise.signs import signs
from paradrift.solvers.base import Request
from paradrift.solvers.elimination import damped, substitute

SCHEDULE = pd.OU(horizon=4.0, last=0.05)
SAMPLERS = [pd.DDPM(), pd.DDIM(), pd.DDIM(eta=0.7), pd.DPMpp2M(), pd.DPMpp3M(), pd.Heun(churn=6.0, high=10.0)]
NEVER = pd.Residual(0.0, 0.0)
VARIANTS = [
    pd.Newton(jacobian=pd.Full()),
    pd.Newton(jacobian=pd.Diagonal()),
    pd.Newton(jacobian=pd.Diagonal(3, seed=7)),
    pd.Newton(jacobian=pd.Full(), damping=1e-3),
    pd.Newton(jacobian=pd.Diagonal(), damping=1e-2),
    pd.Newton(jacobian=pd.Full(), damping=1.0, fading=True),
    pd.Newton(jacobian=pd.Full(), update=pd.Relaxed(0.7)),
]


def mixture(form=Form.NOISE):
    return pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, SCHEDULE, form=form)


def solve(method, samples=3, model=None, dim=2, **request):
    request = dict(sampler=pd.DDPM(), dtype=torch.float64, seed=5, trajectory=True) | request
    if not isinstance(request["sampler"], pd.Tableau):
        request = dict(steps=14) | request
    return pd.sample(model or mixture(), (samples, dim), solver=method, **request)


def never(method, **changes):
    return dataclasses.replace(method, stop=NEVER, **changes)


# the sequential answer


@settings(max_examples=40)
@given(
    sampler=st.sampled_from(SAMPLERS),
    method=st.sampled_from(VARIANTS),
    window=st.sampled_from([pd.Whole(), pd.Sliding(1), pd.Sliding(4), pd.Blocks(3)]),
    form=st.sampled_from([Form.NOISE, Form.DATA, Form.SCORE]),
    steps=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_every_variant_ends_at_the_sequential_path_within_as_many_rounds_as_nodes(
    sampler, method, window, form, steps, seed
):
    request = dict(sampler=sampler, steps=steps, seed=seed, model=mixture(form))
    theirs = solve(pd.sequential(), **request)
    found = solve(never(method, window=window), **request)
    assert found.converged
    assert found.stats.rounds <= found.stats.nodes
    assert found.certifiable == (method.damping == 0)
    torch.testing.assert_close(found.trajectory, theirs.trajectory, rtol=1e-9, atol=1e-9)
    assert found.error.max() == 0


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_stop_leaves_a_small_error_and_says_how_small(sampler):
    theirs = solve(pd.sequential(), 16, sampler=sampler, steps=30)
    found = solve(pd.Newton(jacobian=pd.Full(), stop=pd.Residual(1e-3, 0.0)), 16, sampler=sampler, steps=30)
    away = (found.samples - theirs.samples).square().mean(1).sqrt() / mixture().variance ** 0.5
    assert found.converged
    assert found.stats.rounds <= 12
    assert away.median() <= 1e-2
    assert (away <= 3 * found.error + 1e-12).float().mean() >= 0.9


# published behaviour: one round for affine chains, quadratic convergence, damping


def gaussian(*, rotated=True, form=Form.NOISE):
    spread = np.array([[1.0, 0.6, -0.3], [0.6, 0.8, 0.1], [-0.3, 0.1, 0.5]])
    return pd.Gaussian([0.5, -1.0, 0.2], spread if rotated else np.diag(spread).copy(), SCHEDULE, form=form)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_one_round_solves_a_chain_of_gaussian_data(sampler):
    request = dict(model=gaussian(), dim=3, sampler=sampler, steps=30)
    theirs = solve(pd.sequential(), **request).trajectory
    whole = solve(never(VARIANTS[0], max_rounds=1), **request).trajectory
    torch.testing.assert_close(whole, theirs, rtol=1e-9, atol=1e-9)
    # the diagonal is not enough where axes are mixed, and is where they are not
    part = solve(never(VARIANTS[1], max_rounds=1), **request).trajectory
    assert (part - theirs).abs().max() > 1e-2
    request |= dict(model=gaussian(rotated=False))
    straight = solve(never(VARIANTS[1], max_rounds=1), **request).trajectory
    torch.testing.assert_close(straight, solve(pd.sequential(), **request).trajectory, rtol=1e-9, atol=1e-9)


def test_one_round_is_the_closed_form_of_the_affine_chain():
    """z = (I - a - b J)^-1 (z0 e + b h + c xi) with f = J z + h, as one dense system."""
    table = pd.DPMpp2M().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12)).reform(Form.NOISE)
    model, rows = gaussian(), table.rows
    start = torch.randn(1, 3, dtype=torch.float64)
    times = torch.tensor(np.where(table.evaluated, table.t, 1.0))
    shift = model(torch.zeros(rows, 3, dtype=torch.float64), times)
    columns = [model(unit.expand(rows, 3), times) - shift for unit in torch.eye(3, dtype=torch.float64)]
    jacobian = torch.stack(columns, -1)
    system = torch.eye(3 * rows, dtype=torch.float64).view(rows, 3, rows, 3)
    right = torch.zeros(rows, 3, dtype=torch.float64)
    right[0] = start[0]
    for m, j in itertools.product(range(rows), range(rows)):
        system[m, :, j] -= table.a[m, j] * torch.eye(3, dtype=torch.float64) + table.b[m, j] * jacobian[j]
        right[m] += table.b[m, j] * shift[j]
    exact = torch.linalg.solve(system.reshape(3 * rows, 3 * rows), right.flatten()).view(rows, 3)
    found = solve(never(VARIANTS[0], max_rounds=1), 1, model=model, dim=3, sampler=table, start=start)
    torch.testing.assert_close(found.trajectory[0], exact, rtol=1e-9, atol=1e-9)


def test_one_round_solves_an_affine_chain_whose_jacobian_is_not_symmetric():
    turn = nn.Linear(3, 3).double()
    nn.init.normal_(turn.weight, std=0.5)
    request = dict(model=pd.denoiser(Turned(turn), predicts="noise", schedule=SCHEDULE), dim=3, sampler=pd.DPMpp2M())
    found = solve(never(VARIANTS[0], max_rounds=1), **request)
    torch.testing.assert_close(found.trajectory, solve(pd.sequential(), **request).trajectory, rtol=1e-8, atol=1e-8)


class Turned(nn.Module):
    def __init__(self, turn):
        super().__init__()
        self.turn = turn

    def forward(self, x, t):
        return self.turn(x)


def errors(method, **request):
    """Largest error of any answer after each round."""
    theirs, away = solve(pd.sequential(), **request).samples, []
    solve(never(method), callback=lambda seen: away.append(float((seen.answer - theirs).abs().max())), **request)
    return np.array(away)


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM(), pd.DPMpp2M()], ids=repr)
def test_errors_are_squared_from_round_to_round(sampler):
    away = errors(pd.Newton(jacobian=pd.Full()), samples=8, sampler=sampler, steps=40)
    small = np.flatnonzero((away < 0.1) & (away > 1e-8))
    for k in small:
        assert away[k + 1] <= 3 * away[k] ** 2 + 1e-13
    assert len(small) >= 2
    assert away[small[-1] + 1] < 1e-8
    # Picard iteration gains a factor in a round, not a square
    plain = errors(pd.FixedPoint(update=pd.Plain()), samples=8, sampler=sampler, steps=40)
    middle = np.flatnonzero((plain < 0.1) & (plain > 1e-8))[:-1]
    assert (plain[middle + 1] > 3 * plain[middle] ** 2).mean() > 0.8


def lone_axes(x, t, sample):
    """Two-mode data in every axis by itself: the Jacobian is diagonal and far from constant."""
    level = torch.exp(-t)[:, None]
    spread = 1 - 0.9 * level**2
    return torch.tanh(level * x / spread) * level / spread - x / spread


def test_one_probe_is_exact_where_the_jacobian_is_diagonal():
    model = pd.denoiser(Axes(), predicts="score", schedule=SCHEDULE)
    for probes in (1, 2):
        whole, part = (
            solve(never(pd.Newton(jacobian=jacobian), max_rounds=3), model=model, dim=5, sampler=pd.DDIM(), steps=30)
            for jacobian in (pd.Full(), pd.Diagonal(probes))
        )
        torch.testing.assert_close(part.trajectory, whole.trajectory, rtol=1e-9, atol=1e-9)
    assert part.stats.evaluations < whole.stats.evaluations


class Axes(nn.Module):
    def forward(self, x, t):
        return lone_axes(x, t, None)


def amplified(method, **request):
    """Rounds until the worst of 8 answers of a chain with a repelling middle stays within 1e-4 of the sequential one.

    Its steps are z + 0.1 (z - z^3) + 0.1 xi: started between the two attractors, and far out where it is steep.
    """
    rows = 51
    band, noise = np.diag(np.ones(50), -1), np.diag(np.append(0.0, np.full(50, 0.1)))
    nodes = np.arange(rows) < 50
    table = pd.Tableau(
        t=np.arange(51.0),
        a=band,
        b=0.1 * band,
        c=noise,
        form=Form.VALUE,
        evaluated=nodes,
        scale=np.ones(rows),
        draws=np.arange(rows) > 0,
    )
    model = Value(function=lambda x, t, sample: x - x**3, variance=1.0)
    away = errors(method, model=model, sampler=table, samples=8, dim=1, seed=1)
    assert away[-1] < 1e-10
    wrong = np.flatnonzero(~(away <= 1e-4))
    return int(wrong[-1]) + 2


def test_damping_tames_what_overshoots_and_both_end_at_the_sequential_answer():
    plain = amplified(pd.Newton(jacobian=pd.Full()))
    constant = amplified(pd.Newton(jacobian=pd.Full(), damping=1e-3))
    fading = amplified(pd.Newton(jacobian=pd.Full(), damping=0.1, fading=True))
    assert (plain, constant, fading) == (27, 20, 9)
    # too much of it is slow where it does not fade
    assert amplified(pd.Newton(jacobian=pd.Full(), damping=0.1)) > 40


# the parts


def dense(gains, n):
    """I - G as one matrix, of the system in the first place."""
    size = len(next(iter(gains.values())))
    matrix = torch.eye(size * n, dtype=torch.float64).view(size, n, size, n)
    for lag, gain in gains.items():
        for m in range(lag, size):
            matrix[m, :, m - lag] -= gain[m, 0, 0]
    return matrix.reshape(size * n, size * n)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("lags", [(1,), (1, 2), (1, 3), (2,)])
def test_substitution_and_damped_least_squares_are_dense_solves(n, lags):
    size = 9
    gains = {lag: 0.7 * torch.randn(size, 1, 1, n, n, dtype=torch.float64) for lag in lags}
    for lag, gain in gains.items():
        gain[:lag] = 0
    right = torch.randn(size, 1, 1, n, dtype=torch.float64)
    matrix = dense(gains, n)
    exact = torch.linalg.solve(matrix, right.flatten())
    torch.testing.assert_close(substitute(gains, right).flatten(), exact, rtol=1e-10, atol=1e-10)
    for damping in (1e-3, 2.0):
        normal = matrix.T @ matrix + damping * torch.eye(size * n)
        exact = torch.linalg.solve(normal, matrix.T @ right.flatten())
        found = damped(gains, right, torch.tensor(damping)).flatten()
        torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9)


def test_signs_are_fair_independent_and_addressed():
    """Means over 40,960 signs of each kind: five standard errors, a false alarm in a million each."""
    rows = torch.arange(40)
    drawn = signs(3, rows, 4, 256)
    assert set(drawn.unique().tolist()) == {-1, 1}
    assert abs(drawn.double().mean()) < 5 / drawn.numel() ** 0.5
    for other in (drawn.roll(1, 0), drawn.roll(1, 1), drawn.roll(1, 2), drawn.roll(32, 2), signs(4, rows, 4, 256)):
        assert abs((drawn * other).double().mean()) < 5 / drawn.numel() ** 0.5
    assert torch.equal(signs(3, rows[[7, 2]], 2, 100), drawn[:2, [7, 2], :100])
    noise = pd.noise.Philox(seed=3, shape=(256,)).draw(torch.arange(4), rows.expand(4, -1))
    assert abs((drawn * noise.sign()).double().mean()) < 5 / drawn.numel() ** 0.5


def test_hutchinson_is_unbiased_with_the_variance_of_its_formula():
    """5,000 addresses: means within four standard errors (3 of them: a false alarm in 5,000), variances within 15 %."""
    matrix = torch.tensor([[1.0, -0.5, 0.2], [0.3, 2.0, 0.7], [-0.4, 0.1, -1.0]], dtype=torch.float64)
    row, found = torch.arange(1000), []
    for seed in range(5):
        probes = pd.Diagonal(2, seed).directions(row, 3).double()
        found.append(pd.Diagonal(2, seed).blocks(probes, probes @ matrix.T)[..., 0, 0])
    estimates = torch.cat(found)
    variance = (matrix.square().sum(1) - matrix.diag().square()) / 2
    away = (estimates.mean(0) - matrix.diag()) / (variance / 5000).sqrt()
    assert away.abs().max() < 4
    torch.testing.assert_close(estimates.var(0), variance, rtol=0.15, atol=0)


# what the machine answers


def request_of(x, tangent, t=0.7):
    rows = len(x)
    return Request(
        x=x,
        t=torch.full((rows,), t, dtype=x.dtype),
        sample=torch.arange(rows),
        node=torch.zeros(rows, dtype=torch.int64),
        tangent=tangent,
    )


@pytest.mark.parametrize("max_rows", [None, 1, 2, 7, 1000])
def test_the_executor_answers_outputs_and_products_counted_as_two(max_rows):
    model = mixture(Form.SCORE)
    x, tangent = torch.randn(5, 2, dtype=torch.float64), torch.randn(3, 5, 2, dtype=torch.float64)
    machine = Local(denoiser=model, max_rows=max_rows)
    with torch.inference_mode():
        answer = machine.evaluate(request_of(x, tangent))
    times = torch.full((5,), 0.7, dtype=torch.float64)
    assert answer.shape == (4, 5, 2)
    torch.testing.assert_close(answer[0], model(x, times), rtol=1e-12, atol=1e-12)
    exact = torch.einsum("rij,krj->kri", model.jacobian(x, times), tangent)
    torch.testing.assert_close(answer[1:], exact, rtol=1e-10, atol=1e-10)
    assert machine.rows == 2 * 3 * 5
    assert machine.calls == (1 if max_rows in (None, 1000) else -(-15 // max(1, max_rows // 2)))


class Attention(nn.Module):
    """A network with fused attention, a norm and a time embedding."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.out = nn.Linear(2, 24), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x, t):
        q, k, v = (self.embed(x) + torch.sin(t)[:, None, None]).chunk(3, -1)
        return self.out(self.norm(nn.functional.scaled_dot_product_attention(q, k, v)))


def test_a_network_is_differentiated_whatever_its_parameters_and_modes_say():
    network = Attention().double()
    model = pd.denoiser(network, predicts="noise", schedule=SCHEDULE)
    x, tangent = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(1, 4, 3, 2, dtype=torch.float64)
    with torch.inference_mode():
        answer = Local(denoiser=model).evaluate(request_of(x, tangent))
    for row in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda z: network(z[None], torch.tensor([0.7]))[0], x[row])
        exact = torch.einsum("abcd,cd->ab", jacobian, tangent[0, row])
        torch.testing.assert_close(answer[1, row], exact, rtol=1e-8, atol=1e-8)
    assert not answer.requires_grad
    request = dict(sampler=pd.DDIM(), steps=20, dtype=torch.float64)
    method = pd.Newton(jacobian=pd.Full(), stop=pd.Residual(1e-6, 0.0))
    found = pd.sample(model, (2, 3, 2), solver=method, **request)
    theirs = pd.sample(model, (2, 3, 2), solver=pd.sequential(), **request)
    assert found.stats.rounds < 10
    torch.testing.assert_close(found.samples, theirs.samples, rtol=0, atol=1e-4)


@pytest.mark.parametrize("jacobian", [pd.Full(), pd.Diagonal(3)], ids=repr)
def test_evaluations_are_two_for_each_row_and_product(jacobian):
    seen = []
    found = solve(pd.Newton(jacobian=jacobian, window=pd.Sliding(5)), 1, callback=seen.append)
    assert found.stats.evaluations == seen[-1].evaluations
    products = 2 if isinstance(jacobian, pd.Full) else 3
    assert seen[0].evaluations == 2 * products * 5


# certificates, batches, budgets, breakdowns


def test_weights_of_its_paths_have_mean_one():
    """E exp(-llr) = 1 and E llr = E nats, four standard errors: a false alarm in 16,000 runs each."""
    schedule = pd.OU(horizon=3.0, last=0.2)
    law = pd.GaussianMixture([0.4, 0.6], [[-1.0], [1.2]], 0.2, schedule, form=Form.SCORE)
    sampler = pd.Exponential(form=Form.SCORE, stochasticity=1.0)
    method = pd.Newton(jacobian=pd.Full(), stop=pd.Residual(0.1, 0.0))
    found = solve(method, 20_000, law, 1, sampler=sampler, steps=12, seed=3)
    certificate = pd.certificate.kl(found, law)
    weights, away = torch.exp(-certificate.llr), certificate.llr - certificate.nats
    root = math.sqrt(len(weights))
    assert certificate.mean > 0.001
    assert abs(weights.mean() - 1) < 4 * weights.std() / root < 0.03
    assert abs(away.mean()) < 4 * away.std() / root
    ahead = solve(dataclasses.replace(method, damping=1e-3), 4, law, 1, sampler=sampler, steps=12)
    with pytest.raises(pd.SpecError, match="causal"):
        pd.certificate.kl(ahead, law)


@pytest.mark.parametrize("method", VARIANTS, ids=range(len(VARIANTS)))
def test_a_later_noise_changes_no_earlier_row_of_a_causal_iterate(method):
    start, noises = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 15, 2, dtype=torch.float64)
    other, row, same = noises.clone(), 8, []
    other[:, row] += 1.0
    for rounds in (1, 2, 4):
        one, two = (
            solve(dataclasses.replace(method, max_rounds=rounds), 2, start=start, noise=noise).trajectory[:, :row]
            for noise in (noises, other)
        )
        same.append(torch.equal(one, two))
    assert all(same) == (method.damping == 0)


@pytest.mark.parametrize("method", VARIANTS, ids=range(len(VARIANTS)))
def test_a_sample_does_not_depend_on_its_batch_mates(method):
    """Up to rounding: products of small matrices are not the same bits in every batch."""
    together, alone = solve(method, 4, seed=[3, 1, 2, 9]), solve(method, 1, seed=[3])
    torch.testing.assert_close(together.trajectory[:1], alone.trajectory, rtol=1e-12, atol=1e-12)
    assert together.stats.sample_rounds[0] == alone.stats.rounds


def test_a_budget_ends_with_the_best_answer_so_far():
    found = solve(never(pd.Newton()), max_rounds=3)
    assert found.status == (pd.Status.BUDGET_EXHAUSTED,) * 3
    assert found.stats.rounds == 3
    assert torch.isfinite(found.samples).all()
    assert torch.isfinite(found.error).all()


class Broken:
    """A model whose output, or whose derivative alone, is not a number where it should not be asked."""

    def __init__(self, bad, derivative=False):
        self._model, self._bad, self._derivative = mixture(), bad, derivative
        self.form, self.schedule, self.variance = self._model.form, self._model.schedule, self._model.variance

    def __call__(self, x, t, sample=None):
        bad, outputs = self._bad(x, t, sample)[:, None], self._model(x, t, sample)
        # a root at zero is zero, and its derivative there is infinite
        return outputs + (x * 0).abs().sqrt() * bad if self._derivative else torch.where(bad, torch.nan, outputs)


@pytest.mark.parametrize("method", VARIANTS, ids=range(len(VARIANTS)))
def test_a_model_that_breaks_for_one_sample_breaks_that_sample_only(method):
    fine = solve(method)
    broken = Broken(lambda x, t, sample: (sample == 1) & (t <= 2.0))
    found = solve(method, model=broken)
    assert found.status == (pd.Status.CONVERGED, pd.Status.NON_FINITE, pd.Status.CONVERGED)
    assert torch.isfinite(found.samples).all()
    torch.testing.assert_close(found.trajectory[[0, 2]], fine.trajectory[[0, 2]], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("method", VARIANTS, ids=range(len(VARIANTS)))
def test_numbers_that_are_not_finite_on_the_way_do_no_harm(method, derivative):
    calls = itertools.count()
    bad = Broken(lambda x, t, sample: (t < 1.0) & (derivative or next(calls) == 1), derivative)
    found = solve(never(method), model=bad)
    assert found.converged
    torch.testing.assert_close(found.samples, solve(pd.sequential()).samples, rtol=1e-7, atol=1e-7)


def test_without_a_finite_derivative_it_goes_on_as_picard_iteration():
    bad = Broken(lambda x, t, sample: t < 4.1, derivative=True)
    found = solve(pd.Newton(stop=pd.Residual(1e-4, 0.0)), model=bad, steps=40, sampler=pd.DDIM())
    picard = pd.FixedPoint(update=pd.Plain(), form=Form.NOISE, stop=pd.Residual(1e-4, 0.0))
    plain = solve(picard, steps=40, sampler=pd.DDIM())
    assert found.stats.rounds == plain.stats.rounds < 20


class Cut(nn.Module):
    def forward(self, x, t):
        return -x.detach()


class Opaque(nn.Module):
    def forward(self, x, t):
        return Odd.apply(x)


class Odd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return -x

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


def network(module):
    return pd.denoiser(module, predicts="noise", schedule=SCHEDULE)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pd.Full(0), "limit of at least 1"),
        (lambda: pd.Diagonal(0), "at least 1 probe"),
        (lambda: pd.Newton(damping=-1.0), "damping of at least 0"),
        (lambda: pd.Newton(damping=math.nan), "damping of at least 0"),
        (lambda: pd.Newton(max_rounds=0), "max_rounds of at least 1"),
        (lambda: solve(pd.Newton(jacobian=pd.Full(limit=1))), "at most 1 elements.*choose Diagonal"),
        (lambda: solve(pd.Newton(window=pd.Auto())), "concrete window"),
        (lambda: solve(pd.Newton(), tol=1e-2), "expected no tol= beside Newton"),
        (lambda: solve(pd.Newton(), model=network(Cut())), "cut off from its state"),
        (lambda: solve(pd.Newton(), model=network(Opaque())), "forward-mode derivatives"),
        (
            lambda: Local(denoiser=mixture()).evaluate(request_of(torch.zeros(3, 2), torch.zeros(3, 2))),
            r"tangents of shape \(K, 3, 2\)",
        ),
    ],
)
def test_what_cannot_be_carried_out_is_refused_in_one_sentence(make, words):
    with pytest.raises(pd.SpecError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
