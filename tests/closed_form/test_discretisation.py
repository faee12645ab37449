"""The divergence from the continuous dynamics, against Gaussian data, for which every quantity is affine in the noises.

Statistical tests compare with four standard errors: each fails by chance once in 16,000 times, and seeds are fixed.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift import discretisation
from paradrift.forms import Form
from paradrift.samplers.frozen import bridge, recognise
from paradrift.samplers.held import Levels, step

MEAN, VALUE = 0.7, 0.4
OU, LINEAR, EDM, FLOW = pd.OU(horizon=4.0), pd.Discrete.linear(1000), pd.EDM(0.02, 80.0), pd.Flow()
GRIDS = {
    OU: 4 - np.concatenate([np.linspace(0, 3, 13), 4 - np.exp(np.linspace(0, np.log(0.05), 9))[1:]]),
    LINEAR: pd.grids.default(LINEAR, 20),
    EDM: pd.grids.karras(EDM, 16),
    FLOW: np.linspace(0.99, 0.01, 16),
    pd.VE(): np.linspace(1, 0, 20),
}
CASES = [
    (OU, Form.SCORE, 1.0),
    (OU, Form.RESIDUAL, 0.5),
    (LINEAR, Form.DATA, 0.8),
    (LINEAR, Form.RESIDUAL, 1.0),
    (EDM, Form.NOISE, 0.7),
    (EDM, Form.DATA, 1.0),
    (FLOW, Form.SCORE, 0.6),
    (FLOW, Form.DATA, 1.0),
    (pd.VE(), Form.SCORE, 1.0),
]
FORMS = (Form.DATA, Form.NOISE, Form.SCORE, Form.RESIDUAL)


def word(value):
    return value.name if isinstance(value, Form) else str(value) if isinstance(value, float) else type(value).__name__


def output(form, alpha, sigma):
    """Slope and offset of a form for N(MEAN, VALUE)."""
    spread = alpha**2 * VALUE + sigma**2
    return {
        Form.DATA: (alpha * VALUE / spread, MEAN * sigma**2 / spread),
        Form.NOISE: (sigma / spread, -sigma * alpha * MEAN / spread),
        Form.SCORE: (-1 / spread, alpha * MEAN / spread),
        Form.RESIDUAL: (1 - 1 / spread, alpha * MEAN / spread),
    }[form]


def rate(form, share, schedule, t):
    """Nats per log(sigma/alpha) and squared difference of outputs."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    gain = {Form.DATA: alpha**2 / sigma**2, Form.NOISE: 1.0}.get(form, sigma**2)
    return (1 + share**2) ** 2 / (4 * share**2) * gain


def affine(sampler, table, sweeps=None):
    """Rows and held outputs as coefficients of (1, y_0, xi_1 ... xi_M), after K Picard sweeps or exactly."""
    size = table.rows
    rows = np.zeros((size, size + 1))
    rows[:, 1] = table.start
    for _ in range(sweeps or 1):
        before, rows, held = rows, np.zeros_like(rows), np.zeros((size - 1, size + 1))
        rows[0, 1] = table.start
        for m in range(1, size):
            slope, offset = output(sampler.form, table.alpha[m - 1], table.sigma[m - 1])
            held[m - 1] = slope * (rows if sweeps is None else before)[m - 1]
            held[m - 1, 0] += offset
            rows[m] = table.a[m, m - 1] * rows[m - 1] + table.b[m, m - 1] * held[m - 1]
            rows[m, m + 1] += table.c[m, m]
    return rows, held


def exact(sampler, schedule, times, sweeps=None):
    """The divergence by step: a quadrature of second moments, with maps from tables of two steps."""
    table = sampler.tableau(schedule, times)
    rows, held = affine(sampler, table, sweeps)
    points, weights = np.polynomial.legendre.leggauss(32)
    nats = []
    for j in range(table.rows - 1 - (table.sigma[-1] == 0)):
        high, low = (np.log(table.sigma[k] / table.alpha[k]) for k in (j, j + 1))
        total = 0.0
        for point, weight in zip(points, weights, strict=True):
            t = float(schedule.time(-(low + high + (high - low) * point) / 2))
            two = sampler.tableau(schedule, np.array([times[j], t, times[j + 1]]))
            c = math.hypot(two.a[2, 1] * two.c[1, 1], two.c[2, 2])
            state = two.a[1, 0] * rows[j] + two.b[1, 0] * held[j]
            state[j + 2] += two.c[1, 1] * two.a[2, 1] * two.c[1, 1] / c
            slope, offset = output(sampler.form, two.alpha[1], two.sigma[1])
            apart = held[j] - slope * state
            apart[0] -= offset
            square = apart @ apart + (slope * two.c[1, 1] * two.c[2, 2] / c) ** 2
            total += weight * (high - low) / 2 * rate(sampler.form, sampler.stochasticity, schedule, t) * square
        nats.append(total)
    return np.array(nats)


def drawn(schedule, times, sampler, samples=2500, solver=None, size=1, form=Form.NOISE, **request):
    model = pd.Gaussian([MEAN] * size, VALUE, schedule, form=form)
    solver = solver or pd.sequential()
    given = dict(sampler=sampler, times=times, seed=3, **request)
    solution = pd.sample(model, (samples, size), solver=solver, dtype=torch.float64, trajectory=True, **given)
    return solution, model


@pytest.mark.parametrize("schedule", GRIDS, ids=word)
@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_the_samplers_own_and_may_be_cut_anywhere(schedule, form):
    if form is Form.RESIDUAL and schedule not in (OU, LINEAR):
        pytest.skip("the residual form is for variance-preserving schedules")
    sampler = pd.Exponential(form=form, stochasticity=0.7)
    times = GRIDS[schedule][:-1]
    table = sampler.tableau(schedule, times)
    start, end = Levels(table.alpha[:-1], table.sigma[:-1]), Levels(table.alpha[1:], table.sigma[1:])
    whole = step(sampler.form, sampler.stochasticity, schedule, start, end)
    for name, found in zip("abc", (whole.a, whole.b, whole.c), strict=True):
        expected = table.band(name, 0 if name == "c" else 1)[1:]
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    middle = schedule.time((np.log(start.alpha / start.sigma) + 2 * np.log(end.alpha / end.sigma)) / 3)
    between = Levels(schedule.alpha(middle), schedule.sigma(middle))
    first, second = (
        step(sampler.form, sampler.stochasticity, schedule, start, between),
        step(sampler.form, sampler.stochasticity, schedule, between, end),
    )
    np.testing.assert_allclose(second.a * first.a, whole.a, rtol=1e-9)
    np.testing.assert_allclose(second.a * first.b + second.b, whole.b, rtol=1e-9)
    np.testing.assert_allclose((second.a * first.c) ** 2 + second.c**2, whole.c**2, rtol=1e-9)
    law = bridge(sampler, schedule, start, between, end)
    np.testing.assert_allclose(law.known**2 + law.fresh**2, first.c**2, rtol=1e-12)
    np.testing.assert_allclose(law.known * whole.c, second.a * first.c**2, rtol=1e-9)  # covariance with the end


# four of them by default: each form, on four schedules
QUICK = [case if i in (1, 2, 4, 6) else pytest.param(*case, marks=pytest.mark.slow) for i, case in enumerate(CASES)]


@pytest.mark.parametrize(("schedule", "form", "share"), QUICK, ids=word)
def test_the_estimate_has_the_exact_mean(schedule, form, share):
    sampler, times = pd.Exponential(form=form, stochasticity=share), GRIDS[schedule]
    solution, model = drawn(schedule, times, sampler, size=4)
    found, nats = discretisation.kl(solution, model), 4 * exact(sampler, schedule, times)
    assert abs(found.mean - nats.sum()) < 4 * found.standard_error < 0.2 * nats.sum()
    assert found.per_step.shape == (len(nats), 2500)
    apart = found.per_step.mean(1).numpy() - nats
    spread = found.per_step.std(1).numpy() / math.sqrt(2500)
    assert np.all(np.abs(apart) < 5 * spread)  # 20 steps at 5 standard errors: once in 80,000
    assert found.evaluations == 2500 * (len(nats) + 1)
    assert found.sampler.form is form


@pytest.mark.parametrize(
    ("schedule", "form"),
    [(OU, Form.SCORE), (OU, Form.RESIDUAL), (FLOW, Form.DATA), (FLOW, Form.SCORE), (EDM, Form.NOISE)],
)
def test_the_exact_value_is_the_limit_of_divergences_on_ever_finer_grids(schedule, form):
    """Without rates: the held dynamics and the exact reverse transitions, both Gaussian, on a subdivided grid."""
    share, times = 0.7, {OU: [2.0, 1.2, 0.5], FLOW: [0.8, 0.6, 0.35], EDM: [2.0, 1.2, 0.6]}[schedule]
    sampler, times = pd.Exponential(form=form, stochasticity=share), np.array(times)
    rows, held = affine(sampler, sampler.tableau(schedule, times))

    def on_grid(parts):
        total = 0.0
        for j, (high, low) in enumerate(itertools.pairwise(times)):
            fine = sampler.tableau(schedule, np.linspace(high, low, parts + 1))
            a, b, c = fine.band("a", 1)[1:], fine.band("b", 1)[1:], np.diagonal(fine.c)[1:]
            spread = fine.alpha**2 * VALUE + fine.sigma**2
            phi = (spread[1:] / spread[:-1]) ** ((1 + share**2) / 2) * (fine.alpha[:-1] / fine.alpha[1:]) ** share**2
            theirs = spread[1:] - phi**2 * spread[:-1]
            state, own = rows[j].copy(), 0.0  # known part, and the variance of noises inside the step
            for i in range(parts):
                gap = (a[i] - phi[i]) * state + b[i] * held[j]
                gap[0] -= (fine.alpha[i + 1] - phi[i] * fine.alpha[i]) * MEAN
                square = gap @ gap + (a[i] - phi[i]) ** 2 * own
                ratio = c[i] ** 2 / theirs[i]
                total += (ratio - 1 - np.log(ratio) + square / theirs[i]) / 2
                state, own = a[i] * state + b[i] * held[j], a[i] ** 2 * own + c[i] ** 2
        return total

    limit = 2 * on_grid(800) - on_grid(400)
    assert limit == pytest.approx(exact(sampler, schedule, times).sum(), rel=1e-4)


@pytest.mark.parametrize("form", [Form.SCORE, Form.RESIDUAL])
def test_old_outputs_count_in_full(form):
    """Two Picard sweeps: the path's own divergence from the continuous dynamics, not the sequential sampler's."""
    sampler, times = pd.Exponential(form=form, stochasticity=0.8), GRIDS[OU]
    lazy = pd.Solver(window=pd.Whole(), slopes=pd.Zero(), guess=pd.Repeat(), stop=pd.Sweeps(2), verify=0)
    solution, model = drawn(OU, times, sampler, solver=lazy, form=form, size=8)
    found = discretisation.kl(solution, model)
    nats = 8 * exact(sampler, OU, times, sweeps=2).sum()
    assert abs(found.mean - nats) < 4 * found.standard_error < 0.1 * nats
    assert nats > 1.2 * 8 * exact(sampler, OU, times).sum()


def free(sampler, schedule, times):
    """Expectation of the leading order."""
    table = sampler.tableau(schedule, times)
    rows, held = affine(sampler, table)
    if table.sigma[-1] > 0:
        slope, offset = output(sampler.form, table.alpha[-1], table.sigma[-1])
        after = slope * rows[-1:]
        after[0, 0] += offset
        held = np.concatenate([held, after])
    weight = (table.band("b", 1)[1 : len(held)] / np.diagonal(table.c)[1 : len(held)]) ** 2 / 4
    return weight * np.square(np.diff(held, axis=0)).sum(1)


@pytest.mark.parametrize(("schedule", "form", "share"), QUICK, ids=word)
def test_the_free_estimate_is_half_the_weighted_change_of_outputs(schedule, form, share):
    sampler, times = pd.Exponential(form=form, stochasticity=share), GRIDS[schedule]
    solution, model = drawn(schedule, times, sampler)
    found, expected = discretisation.leading(solution, model), free(sampler, schedule, times).sum()
    assert abs(found.mean - expected) < 4 * found.standard_error < 0.2 * expected
    assert found.evaluations == (5000 if sampler.tableau(schedule, times).sigma[-1] > 0 else 2500)


def test_the_free_estimate_is_right_to_leading_order():
    sampler = pd.Exponential(form=Form.SCORE)
    ratios = []
    for count in (10, 20, 40):
        times = np.linspace(4.2, 0.2, count + 1)
        schedule = pd.OU(horizon=4.2)
        ratios.append(free(sampler, schedule, times).sum() / exact(sampler, schedule, times).sum())
    bias = np.array(ratios) - 1
    assert np.all(np.abs(bias[1:] / bias[:-1] - 0.5) < 0.1)
    assert abs(bias[-1]) < 0.05


def test_a_start_without_signal_and_a_clean_end():
    """Pure noise at t = 1 in data form: the first step has infinite log-SNR, finite nats; the last is left out."""
    times, sampler = np.linspace(1, 0, 12), pd.DDPM()
    solution, model = drawn(FLOW, times, sampler, samples=6000, form=Form.FLOW)
    found = discretisation.kl(solution, model)
    assert found.per_step.shape == (10, 6000)
    own = pd.Exponential(form=Form.DATA)
    late = exact(own, FLOW, np.concatenate([[1 - 1e-9], times[1:]]))
    apart, spread = found.per_step.mean(1).numpy() - late, found.per_step.std(1).numpy() / math.sqrt(6000)
    assert np.all(np.abs(apart) < 5 * spread)
    assert 10 * spread[0] < late[0]
    assert found.sampler.form is Form.DATA


@pytest.mark.parametrize(
    ("made", "form", "share"),
    [
        (pd.DDPM(), Form.DATA, 1.0),
        (pd.DDIM(eta=1.0), Form.DATA, 1.0),
        *[(pd.Exponential(form=form, stochasticity=share), form, share) for form in FORMS for share in (0.3, 1.0)],
    ],
)
def test_a_table_says_which_integrator_it_is(made, form, share):
    table = made.tableau(LINEAR, GRIDS[LINEAR])
    for written in (table, table.reform(Form.V), table.reform(Form.SCORE)):
        found = recognise(written, LINEAR)
        assert found.form is form
        assert found.stochasticity == pytest.approx(share, rel=1e-9)


def test_steps_per_sample_do_not_depend_on_chunks_or_rows_and_fresh_draws_differ(monkeypatch):
    solution, model = drawn(LINEAR, GRIDS[LINEAR], pd.DDPM(), samples=9, size=3)
    whole = discretisation.kl(solution, model)
    other = discretisation.kl(solution, model, fresh=1)
    assert float((other.nats - whole.nats).abs().min()) > 0
    monkeypatch.setattr("paradrift.kept._CHUNK", 4 * 21 * 3)
    counted = pd.Counted(model)
    parts = discretisation.kl(solution, counted, max_rows=7)
    torch.testing.assert_close(parts.per_step, whole.per_step, rtol=1e-12, atol=1e-14)
    assert counted.rows == parts.evaluations == 9 * 20
    assert str(whole).startswith(
        f"KL(sampler || continuous) = {whole.mean:.4g} ± {whole.standard_error:.2g} nats over 9"
    )
    assert "data form, stochasticity 1, 180 evaluations" in str(whole)
    assert math.isnan(dataclasses.replace(whole, nats=whole.nats[:1]).standard_error)
    assert whole.total_variation == pytest.approx(min(1, math.sqrt(whole.mean / 2)))


def test_a_solution_knows_its_sampler_and_noise():
    solution, model = drawn(LINEAR, GRIDS[LINEAR], pd.DDPM(), samples=3)
    ready = pd.noise.Philox(seed=3, shape=(1,), dtype=torch.float64)
    for function in (discretisation.kl, discretisation.leading):
        assert torch.equal(function(solution, model).nats, function(solution, model, noise=ready).nats)
    strange = dataclasses.replace(solution, recipe=dataclasses.replace(solution.recipe, seed=None))
    with pytest.raises(pd.SpecError, match="expected the noise of this path"):
        discretisation.kl(strange, model)


def test_single_precision_changes_little():
    model = pd.Gaussian([MEAN] * 2, VALUE, LINEAR)
    request = dict(steps=100, seed=1)
    found = [
        discretisation.kl(
            pd.sample(model, (20, 2), solver=pd.sequential(), trajectory=True, dtype=dtype, **request), model
        )
        for dtype in (torch.float32, torch.float64)
    ]
    torch.testing.assert_close(found[0].nats, found[1].nats, rtol=2e-3, atol=1e-4)


def test_what_has_no_divergence_is_refused():
    solution, model = drawn(LINEAR, GRIDS[LINEAR], pd.DDPM(), samples=2)

    def refused(sentence, what=solution, function=discretisation.kl):
        with pytest.raises(pd.SpecError, match=sentence):
            function(what, model)

    others = (pd.DDIM(), pd.DPMppSDE(), pd.DDPM(variance="large"))
    strange = dataclasses.replace(solution, recipe=dataclasses.replace(solution.recipe, seed=4))

    for function in (discretisation.kl, discretisation.leading):
        refused("expected the noises and the sampler of this solution", strange, function)
        for sampler in others:
            other = drawn(LINEAR, GRIDS[LINEAR], sampler, samples=2)[0]
            refused("expected an exponential integrator with noise", other, function)
        refused("expected a solution with its path", dataclasses.replace(solution, trajectory=None), function)
        refused("expected a causal path", dataclasses.replace(solution, certifiable=False), function)
        lost = dataclasses.replace(solution, status=(pd.Status.CONVERGED, pd.Status.INTERRUPTED))
        refused("found sample 1: interrupted", lost, function)
    exact = dataclasses.replace(solution, stats=dataclasses.replace(solution.stats, rejected=(0, 1)))
    refused("found one exact in law", exact)
    short = dataclasses.replace(solution, trajectory=solution.trajectory[:, :11])
    refused("expected a path .* of 21 rows", short)
    spoiled = solution.trajectory.clone()
    spoiled[1, 5] = torch.nan
    refused(
        "finite model outputs along the path, found others in sample 1",
        dataclasses.replace(solution, trajectory=spoiled),
    )
