"""Fixed points: the sequential answer, the formulas by hand, causality and certificates, and what may go wrong."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paradrift as pd
from paradrift import choices
from paradrift.cli import main
from paradrift.forms import Form

SCHEDULE = pd.OU(horizon=4.0, last=0.05)
SAMPLERS = [
    pd.DDPM(),
    pd.DDIM(),
    pd.DDIM(eta=0.7),
    pd.Exponential(form=Form.SCORE, stochasticity=1.0),
    pd.Exponential(form=Form.NOISE, stochasticity=0.5),
    pd.DPMpp2M(),
    pd.Heun(churn=6.0, high=10.0),
]
UPDATES = [
    pd.Plain(),
    pd.Relaxed(0.7),
    pd.Anderson(3),
    pd.TriangularAnderson(2),
    pd.TriangularAnderson(4, ridge=1e-10),
    pd.TriangularAnderson(5, ridge=0.0),
]
NEVER = pd.Residual(0.0, 0.0)


def mixture(form=Form.NOISE):
    return pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, SCHEDULE, form=form)


def solve(method, samples=3, model=None, **request):
    request = dict(sampler=pd.DDPM(), dtype=torch.float64, seed=5, trajectory=True) | request
    if not isinstance(request["sampler"], pd.Tableau):
        request = dict(steps=14) | request
    return pd.sample(model or mixture(), (samples, 2), solver=method, **request)


def iterates(method, count, **request):
    """Trajectories after 1, 2, ... rounds, with nothing settled but what is exact."""
    return [
        solve(dataclasses.replace(method, stop=NEVER, max_rounds=rounds), **request).trajectory
        for rounds in range(1, count + 1)
    ]


# the sequential answer


@given(
    sampler=st.sampled_from(SAMPLERS),
    update=st.sampled_from(UPDATES),
    order=st.one_of(st.none(), st.integers(1, 20)),
    window=st.sampled_from([pd.Whole(), pd.Sliding(1), pd.Sliding(4), pd.Sliding(9), pd.Blocks(3)]),
    form=st.sampled_from([None, Form.NOISE, Form.DATA, Form.SCORE]),
    steps=st.integers(1, 14),
    seed=st.integers(0, 999),
)
def test_every_choice_ends_at_the_sequential_path_within_as_many_rounds_as_nodes(
    sampler, update, order, window, form, steps, seed
):
    request = dict(sampler=sampler, steps=steps, seed=seed)
    theirs = solve(pd.sequential(), **request)
    found = solve(pd.FixedPoint(update=update, order=order, window=window, form=form, stop=NEVER), **request)
    assert found.converged
    assert found.stats.rounds <= found.stats.nodes
    assert found.certifiable == (not isinstance(update, pd.Anderson))
    torch.testing.assert_close(found.trajectory, theirs.trajectory, rtol=1e-10, atol=1e-10)
    assert found.error.max() == 0


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_the_published_stop_leaves_a_small_error_and_says_how_small(sampler):
    theirs = solve(pd.sequential(), 32, sampler=sampler, steps=40)
    for tol in (1e-2, 1e-4):
        found = solve(pd.FixedPoint(stop=pd.Residual(tol, 0.0)), 32, sampler=sampler, steps=40)
        away = (found.samples - theirs.samples).square().mean(1).sqrt() / mixture().variance ** 0.5
        assert found.converged
        assert found.stats.rounds < 40
        assert away.median() <= 20 * tol
        assert (away <= 3 * found.error).float().mean() >= 0.9
        assert (found.error > 0).all()


# the formulas


def numbers(table):
    return [np.append(0.0, np.diagonal(table.a, -1)), np.append(0.0, np.diagonal(table.b, -1)), np.diagonal(table.c)]


def by_hand(table, model, start, noises, *, order, memory, ridge, rounds):
    """ParaTAA in plain loops, for one sample and a one-step table: order-k equations written out, sums from the front.

    The row after the front is exact, earlier rows stand still, and differences begin with the first update.
    """
    a, b, c = numbers(table)
    size = table.rows
    y = np.tile(start, (size, 1))
    states, residuals, found, front = [], [], [], 0
    for _ in range(rounds):
        f = np.zeros_like(y)
        for m in range(size - 1):
            f[m] = model(torch.tensor(y[m : m + 1]), torch.tensor([table.t[m]]))[0].numpy()
        residual = np.zeros_like(y)
        for m in range(front + 1, size):
            i = max(m - order, front)
            total = np.prod(a[i + 1 : m + 1]) * y[i]
            for j in range(i, m):
                total = total + np.prod(a[j + 2 : m + 1]) * (b[j + 1] * f[j] + c[j + 1] * noises[j + 1])
            residual[m] = total - y[m]
        states.append(y.copy())
        residuals.append(residual)
        usable = len(states) - 1  # the first guess is no iterate
        count = min(memory - 1, usable - 1)
        dx = [states[-p] - states[-p - 1] for p in range(1, count + 1)]
        dr = [residuals[-p] - residuals[-p - 1] for p in range(1, count + 1)]
        new = y.copy()
        for m in range(front + 1, size):
            new[m] = y[m] + residual[m]
            rows = range(front + 1, m + 1)
            now, before = (sum(float(r[i] @ r[i]) for i in rows) for r in (residuals[-1], residuals[-2:][0]))
            if m == front + 1 or count < 1 or now > before:
                continue
            gram = np.array([[sum(float(p[i] @ q[i]) for i in rows) for q in dr] for p in dr])
            right = np.array([sum(float(p[i] @ residual[i]) for i in rows) for p in dr])
            gamma = np.linalg.solve(gram + ridge * np.eye(count), right)
            new[m] -= sum(g * (x[m] + r[m]) for g, x, r in zip(gamma, dx, dr, strict=True))
        y = new
        front += 1
        found.append(y.copy())
    return found


@pytest.mark.parametrize(("order", "memory", "ridge"), [(99, 2, 1e-3), (99, 4, 1e-6), (5, 3, 1e-3), (1, 2, 1e-3)])
@pytest.mark.parametrize("stochasticity", [0.0, 1.0])
def test_triangular_anderson_is_its_formulas_row_by_row(order, memory, ridge, stochasticity):
    model = mixture(Form.SCORE)
    sampler = pd.Exponential(form=Form.SCORE, stochasticity=stochasticity)
    table = sampler.tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 12))
    start = torch.randn(1, 2, dtype=torch.float64)
    noises = torch.randn(1, table.rows, 2, dtype=torch.float64)
    hand = by_hand(table, model, start[0].numpy(), noises[0].numpy(), order=order, memory=memory, ridge=ridge, rounds=9)
    method = pd.FixedPoint(update=pd.TriangularAnderson(memory, ridge=ridge), order=order)
    ours = iterates(method, 9, samples=1, model=model, sampler=table, start=start, noise=noises)
    for theirs, path in zip(hand, ours, strict=True):
        np.testing.assert_allclose(path[0].numpy(), theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", [Form.SCORE, Form.DATA])
@pytest.mark.parametrize("sampler", SAMPLERS[:5], ids=repr)
def test_all_rows_at_once_is_the_picard_iteration_row_by_row(sampler, form):
    ours = iterates(pd.FixedPoint(update=pd.Plain(), form=form), 6, sampler=sampler)
    for sweeps, path in enumerate(ours, start=1):
        picard = dataclasses.replace(pd.piadm_sde(1, sweeps), slopes=pd.Zero(form))
        torch.testing.assert_close(path, solve(picard, sampler=sampler).trajectory, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8, 11, 13])
def test_an_order_is_so_many_plain_rows_written_into_each_other(order):
    table = pd.DDPM().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 14)).reform(Form.NOISE)
    a, b, c = numbers(table)
    start = torch.randn(1, 2, dtype=torch.float64)
    noises = torch.randn(1, table.rows, 2, dtype=torch.float64)
    given = dict(samples=1, sampler=table, start=start, noise=noises)
    first, second = iterates(pd.FixedPoint(update=pd.Plain(), order=order), 2, **given)
    before, times = first[0], torch.tensor(table.t)
    outputs = mixture()(before[:-1], times[:-1])
    for m in range(2, table.rows):
        value = before[max(m - order, 1)]
        for j in range(max(m - order, 1), m):
            value = a[j + 1] * value + b[j + 1] * outputs[j] + c[j + 1] * noises[0, j + 1]
        torch.testing.assert_close(second[0, m], value, rtol=1e-10, atol=1e-10)


def test_order_one_is_jacobi_and_needs_a_round_a_node():
    def needed(order):
        return solve(pd.FixedPoint(update=pd.Plain(), order=order, stop=pd.Residual(1e-8, 0.0)), steps=40).stats.rounds

    assert needed(1) == 40
    assert needed(None) < needed(8) < 40


def test_relaxed_goes_part_of_the_way_after_the_first_update():
    start = torch.randn(1, 2, dtype=torch.float64)
    given = dict(samples=1, start=start, noise=torch.randn(1, 15, 2, dtype=torch.float64))
    plain = iterates(pd.FixedPoint(update=pd.Plain()), 2, **given)
    relaxed = iterates(pd.FixedPoint(update=pd.Relaxed(0.3)), 2, **given)
    assert torch.equal(plain[0], relaxed[0])
    torch.testing.assert_close(relaxed[1][:, 3:], (0.7 * plain[0] + 0.3 * plain[1])[:, 3:], rtol=1e-12, atol=1e-12)


def test_the_stop_looks_at_the_defect_of_order_one_and_at_the_noise_of_the_step():
    table = pd.DDPM().tableau(SCHEDULE, pd.grids.shrinking(SCHEDULE, 20))
    found = pd.Residual(1e-3, 0.5).thresholds(table)
    np.testing.assert_allclose(found[1:], np.maximum(1e-3, 0.5 * np.diagonal(table.c)[1:]), rtol=1e-12)
    # rows that were settled have defects within the rule, rows that were stepped have none
    tol = 1e-2
    given = dict(start=torch.randn(3, 2, dtype=torch.float64), noise=torch.randn(3, 21, 2, dtype=torch.float64))
    path = solve(pd.FixedPoint(stop=pd.Residual(tol, 0.0)), sampler=table, **given).trajectory
    written = table.reform(Form.NOISE)
    a, b, c = numbers(written)
    sizes = []
    for m in range(1, 21):
        output = mixture()(path[:, m - 1], torch.full((3,), written.t[m - 1], dtype=torch.float64))
        defect = a[m] * path[:, m - 1] + b[m] * output + c[m] * given["noise"][:, m] - path[:, m]
        sizes.append(defect.square().mean(1).sqrt())
    largest = torch.stack(sizes).max()
    assert 1e-3 * tol < largest <= tol * (1 + 1e-9)


# causality and the certificate


@pytest.mark.parametrize("update", UPDATES[:5], ids=repr)
@pytest.mark.parametrize("window", [pd.Whole(), pd.Sliding(9)])
def test_a_later_noise_changes_no_earlier_row_of_a_causal_iterate(update, window):
    start = torch.randn(2, 2, dtype=torch.float64)
    noises = torch.randn(2, 15, 2, dtype=torch.float64)
    other, row = noises.clone(), 8
    other[:, row] += 1.0
    method = pd.FixedPoint(update=update, window=window, stop=pd.Residual(1e-2, 0.0))
    same = []
    for rounds in range(2, 8):
        one, two = (
            solve(dataclasses.replace(method, max_rounds=rounds), 2, start=start, noise=noise).trajectory
            for noise in (noises, other)
        )
        same.append(torch.equal(one[:, :row].nan_to_num(), two[:, :row].nan_to_num()))
        assert rounds < 3 or not torch.equal(one[:, row:].nan_to_num(), two[:, row:].nan_to_num())
    assert all(same) == update.causal


def drawn(update, tol, samples=20_000, model=None):
    schedule = pd.OU(horizon=3.0, last=0.2)
    law = pd.GaussianMixture([0.4, 0.6], [[-1.0], [1.2]], 0.2, schedule, form=Form.SCORE)
    sampler = pd.Exponential(form=Form.SCORE, stochasticity=1.0)
    method = pd.FixedPoint(update=update, stop=pd.Residual(tol, 0.0))
    found = pd.sample(
        law, (samples, 1), sampler=sampler, steps=12, solver=method, seed=3, dtype=torch.float64, trajectory=True
    )
    return found, law


@pytest.mark.parametrize("update", [pd.Plain(), pd.Relaxed(0.7), pd.TriangularAnderson(3)], ids=repr)
def test_weights_of_causal_paths_have_mean_one(update):
    """E exp(-llr) = 1 and E llr = E nats, four standard errors: a false alarm in 16,000 runs each."""
    found, law = drawn(update, 0.1)
    certificate = pd.certificate.kl(found, law)
    weights, away = torch.exp(-certificate.llr), certificate.llr - certificate.nats
    root = math.sqrt(len(weights))
    assert certificate.mean > 0.005
    assert abs(weights.mean() - 1) < 4 * weights.std() / root < 0.03
    assert abs(away.mean()) < 4 * away.std() / root


def test_full_anderson_is_refused_a_certificate():
    found, law = drawn(pd.Anderson(3), 0.1, samples=4)
    assert not found.certifiable
    with pytest.raises(pd.SpecError, match="causal"):
        pd.certificate.kl(found, law)


# published behaviour


def rounds_to(tol, stochasticity, update, samples=16):
    """First round from which no answer is further than tol from the sequential one, rms over elements."""
    schedule = pd.OU(horizon=math.log(16) + 4, last=0.1)
    centres = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = pd.GaussianMixture([0.3, 0.4, 0.3], centres, 0.3, schedule, form=Form.SCORE)
    request = dict(sampler=pd.Exponential(form=Form.SCORE, stochasticity=stochasticity), dtype=torch.float64)
    request |= dict(times=pd.grids.shrinking(schedule, 113))
    theirs = pd.sample(model, (samples, 16), solver=pd.sequential(), **request).samples
    away = []
    method = pd.FixedPoint(update=update, stop=NEVER, max_rounds=30)
    pd.sample(
        model,
        (samples, 16),
        solver=method,
        callback=lambda seen: away.append(float((seen.answer - theirs).square().mean(1).sqrt().max())),
        **request,
    )
    return int(np.flatnonzero(~(np.array(away) <= tol))[-1]) + 2


def test_anderson_saves_a_third_of_the_rounds_of_picard_on_a_mixture():
    found = {
        (update, share): rounds_to(1e-3, share, update)
        for update in (pd.Plain(), pd.TriangularAnderson(3), pd.Relaxed(0.8))
        for share in (0.0, 1.0)
    }
    assert list(found.values()) == [12, 25, 9, 16, 9, 17]


def test_a_similar_trajectory_saves_rounds():
    request = dict(samples=4, sampler=pd.DDPM(), steps=60)
    near = pd.GaussianMixture([0.4, 0.6], [[-1.05, 0.5], [0.8, 0.25]], 0.1, SCHEDULE)
    path = solve(pd.sequential(), model=near, **request).trajectory
    cold, warm = (solve(pd.parataa(start=start), **request) for start in (None, path))
    assert warm.stats.rounds <= 0.6 * cold.stats.rounds
    theirs = solve(pd.sequential(), **request).samples
    torch.testing.assert_close(warm.samples, theirs, rtol=0, atol=0.02)


def test_a_given_row_is_never_settled_as_it_is():
    """It does not hold its own noise as a certificate needs it, however small its defect."""
    near = solve(pd.sequential()).trajectory + 1e-6
    warm = solve(pd.FixedPoint(start=pd.Given(near), stop=pd.Residual(1e-3, 0.0)))
    assert warm.stats.rounds == 2
    assert not (warm.trajectory[:, 1:] == near[:, 1:]).any()


def test_presets_are_the_published_choices():
    assert pd.parataa() == pd.FixedPoint(
        update=pd.TriangularAnderson(2, ridge=1e-3), order=20, form=Form.NOISE, stop=pd.Residual(1e-3, 1e-3)
    )
    assert pd.parataa(window=32).window == pd.Sliding(32)
    assert pd.anderson().update == pd.Anderson(5, ridge=1e-4)
    assert pd.relaxed(0.7).update == pd.Relaxed(0.7)
    for preset in (pd.parataa(), pd.anderson(), pd.relaxed(0.8)):
        found = solve(preset, 8, sampler=pd.DDIM(), steps=50)
        assert found.converged
        assert found.stats.rounds < 30


# batches, budgets, breakdowns


@settings(max_examples=15)
@given(update=st.sampled_from(UPDATES), window=st.sampled_from([pd.Whole(), pd.Sliding(5)]), seed=st.integers(0, 99))
def test_a_sample_has_the_same_bits_whatever_its_batch_mates(update, window, seed):
    method = pd.FixedPoint(update=update, window=window, order=7, stop=pd.Residual(1e-2, 1e-1))
    together = solve(method, 4, seed=[seed, 1, 2, 3])
    alone = solve(method, 1, seed=[seed])
    assert torch.equal(together.trajectory[:1], alone.trajectory)
    assert together.stats.sample_rounds[0] == alone.stats.rounds
    assert torch.equal(together.error[:1], alone.error)


@pytest.mark.parametrize("window", [pd.Whole(), pd.Sliding(4)])
def test_a_budget_ends_with_the_best_answer_so_far(window):
    found = solve(pd.FixedPoint(window=window, stop=NEVER), max_rounds=3)
    assert found.status == (pd.Status.BUDGET_EXHAUSTED,) * 3
    assert found.stats.rounds == 3
    assert torch.isfinite(found.samples).all()
    assert torch.isfinite(found.error).all() == isinstance(window, pd.Whole)


def test_a_callback_sees_fronts_that_only_advance():
    seen = []
    found = solve(pd.FixedPoint(window=pd.Sliding(6), stop=pd.Residual(1e-2, 0.0)), callback=seen.append)
    settled = torch.stack([one.settled for one in seen])
    assert (settled.diff(dim=0) >= 0).all()
    assert settled[-1].tolist() == [14] * 3
    assert len(seen) == found.stats.rounds
    assert torch.equal(seen[-1].answer, found.samples)


class Broken:
    """A model whose output is not a number where it should not be asked."""

    def __init__(self, bad):
        self._model, self._bad = mixture(), bad
        self.form, self.schedule, self.variance = self._model.form, self._model.schedule, self._model.variance

    def __call__(self, x, t, sample=None):
        return torch.where(self._bad(x, t, sample)[:, None], torch.nan, self._model(x, t, sample))


@pytest.mark.parametrize("update", UPDATES, ids=repr)
def test_a_model_that_breaks_for_one_sample_breaks_that_sample_only(update):
    method = pd.FixedPoint(update=update, stop=pd.Residual(1e-3, 0.0))
    fine = solve(method)
    for last in (4.0, 2.0, 0.1):
        broken = Broken(lambda x, t, sample, last=last: (sample == 1) & (t <= last))
        found = solve(method, model=broken)
        assert found.status == (pd.Status.CONVERGED, pd.Status.NON_FINITE, pd.Status.CONVERGED)
        assert torch.isinf(found.error).tolist() == [False, True, False]
        assert torch.isfinite(found.samples).all()
        assert torch.equal(found.trajectory[[0, 2]], fine.trajectory[[0, 2]])


@pytest.mark.parametrize("update", UPDATES, ids=repr)
@pytest.mark.parametrize("round_", [0, 1, 4])
def test_outputs_that_are_not_finite_on_the_way_do_no_harm(update, round_):
    calls = itertools.count()
    once = Broken(lambda x, t, sample: (t < 1.0) & (next(calls) == round_))
    found = solve(pd.FixedPoint(update=update, stop=pd.Residual(1e-10, 0.0)), model=once)
    assert found.converged
    torch.testing.assert_close(found.samples, solve(pd.sequential()).samples, rtol=1e-7, atol=1e-7)


# refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pd.FixedPoint(order=0), "order of at least 1"),
        (lambda: pd.FixedPoint(max_rounds=0), "max_rounds of at least 1"),
        (lambda: pd.Relaxed(0.0), "weight above 0"),
        (lambda: pd.Relaxed(math.nan), "weight above 0"),
        (lambda: pd.TriangularAnderson(0), "memory of at least 1"),
        (lambda: pd.Anderson(2, ridge=-1.0), "ridge of at least 0"),
        (lambda: pd.Residual(math.nan), "tolerances of at least 0"),
        (lambda: solve(pd.FixedPoint(window=pd.Auto())), "concrete window"),
        (lambda: solve(pd.FixedPoint(window=pd.Wavefront(2))), "window that starts at a front"),
        (lambda: solve(pd.FixedPoint(start=pd.Coast())), "start that gives states"),
        (lambda: solve(pd.FixedPoint(), tol=1e-2), "expected no tol= beside FixedPoint"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_in_one_sentence(make, words):
    with pytest.raises(pd.SpecError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_command_line_knows_the_preset(capsys):
    assert main(["sample", "--solver", "parataa", "--kl", "1"]) == 2
    assert "expected no --kl or --exact beside --solver parataa" in capsys.readouterr().err
    rule = choices.sampler(choices.SamplerName.DDIM, choices.SolverName.PARATAA, 8)
    method = choices.solver(choices.SolverName.PARATAA, rule, pd.Tolerance(0.01), span="32", blocks=8, sweeps=8)
    assert method == pd.parataa(window=32, tol=0.01, share=0.01)
