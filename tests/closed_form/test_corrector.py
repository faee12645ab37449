"""PIADM-ODE whole: the corrector's step, the table against both algorithms written out by hand, its law, its rounds."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch

import paradrift as pd
from paradrift import certificate
from paradrift.cli import main
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.samplers.kinetic import kinetic_step

OU = pd.OU(horizon=4.0, last=0.05)
TIMES = pd.grids.shrinking(OU, 14)
MIXTURE = pd.GaussianMixture([0.4, 0.6], [[-1.2, 0.3], [0.8, -0.2]], 0.2, OU, form=Form.SCORE)
ODE = pd.Exponential(stochasticity=0.0)


def corrected(blocks=3, predictor=ODE, /, **settings):
    return pd.Corrected(blocks=blocks, predictor=predictor, corrector=pd.Underdamped(**settings))


def nats(law, other):
    """KL(law | other) of Gaussians in one dimension, each (mean, variance)."""
    (mean, var), (centre, spread) = law, other
    return (var / spread - 1 + (mean - centre) ** 2 / spread + math.log(spread / var)) / 2


# ---- one step


def exact_step(length, friction):
    """Weights and noises of one step from the impulse response of the linear equation, by quadrature."""
    drift = np.array([[0.0, 1.0], [0.0, -friction]])
    points, weights = np.polynomial.legendre.leggauss(40)
    ages, weights = length * (points + 1) / 2, length * weights / 2
    response = np.array([scipy.linalg.expm(drift * age)[:, 1] for age in ages])  # of (u, v) to a kick of v
    covariance = 2 * friction * np.einsum("k,ki,kj->ij", weights, response, response)
    # what is left of u's noise once v's is known: the part of its response that is orthogonal to v's
    left = response[:, 0] - covariance[0, 1] / covariance[1, 1] * response[:, 1]
    return scipy.linalg.expm(drift * length), weights @ response, covariance, 2 * friction * weights @ left**2


@pytest.mark.parametrize("friction", [0.3, 2.0, 40.0])
@pytest.mark.parametrize("damping", [1e-4, 1e-2, 0.0999, 0.1001, 0.7, 3.0, 12.0])
def test_the_step_solves_the_linear_equation_exactly(damping, friction):
    length = damping / friction
    step = kinetic_step(length, friction)
    transition, weights, covariance, left = exact_step(length, friction)
    close = dict(rel=1e-11, abs=0)
    assert (1.0, step.u_v, step.v_v) == pytest.approx((transition[0, 0], *transition[:, 1]), **close)
    assert (step.u_s, step.v_s) == pytest.approx(tuple(weights), **close)
    assert step.v_noise**2 == pytest.approx(covariance[1, 1], **close)
    assert step.u_shared * step.v_noise == pytest.approx(covariance[0, 1], **close)
    assert step.u_noise**2 == pytest.approx(left, **close)
    assert step.u_shared**2 + step.u_noise**2 == pytest.approx(covariance[0, 0], **close)


def test_series_and_closed_form_meet():
    below, above = (dataclasses.astuple(kinetic_step(length, 1.0)) for length in (0.1 * (1 - 1e-15), 0.1))
    assert below == pytest.approx(above, rel=1e-12)


# ---- the two algorithms, written out by hand


def by_hand(score, times, blocks, sweeps, corrections, settings, start, noises):
    """Algorithms 2 and 3 on the OU process: every sweep sums from the start of its block, no table, no recursion.

    Noises are (S, R, D): no column for a predictor's row, one for a fresh velocity, two for each step of a corrector.
    """
    y, row, at = start, 0, 0
    for count in blocks:
        t = times[at : at + count + 1]
        eps, tau = -np.diff(t), t[0] - t
        states = [y] * (count + 1)
        for _ in range(sweeps):
            s = [score(states[j], t[j]) for j in range(count)]
            states = [
                math.exp(tau[m] / 2) * y
                + sum(math.exp((tau[m] - tau[j + 1]) / 2) * math.expm1(eps[j] / 2) * s[j] for j in range(m))
                for m in range(count + 1)
            ]
        at, row = at + count, row + count
        u, row = states[-1], row + 1
        v = noises[:, row]
        root = math.sqrt(settings.lipschitz or 1 / -math.expm1(-t[-1]))
        gamma, e = settings.friction * root, settings.time / root / (settings.steps * settings.blocks)
        decay = math.exp(-gamma * e)
        lost = (1 - decay) / gamma
        psi = (e - lost) / gamma, lost
        var_v, both = 1 - decay**2, gamma * lost**2
        var_u = 2 / gamma * (e - 2 * lost + (1 - decay**2) / (2 * gamma))
        for _ in range(settings.blocks):
            first = noises[:, row + 1 : row + 2 * settings.steps : 2].unbind(1)
            second = noises[:, row + 2 : row + 2 * settings.steps + 1 : 2].unbind(1)
            row += 2 * settings.steps
            n_v = [math.sqrt(var_v) * xi for xi in first]
            n_u = [
                both / var_v * n + math.sqrt(var_u - both**2 / var_v) * xi for n, xi in zip(n_v, second, strict=True)
            ]
            pairs = [(u, v)] * (settings.steps + 1)
            for _ in range(corrections):
                s = [score(pairs[j][0], t[-1]) for j in range(settings.steps)]
                added = [(psi[0] * s[j] + n_u[j], psi[1] * s[j] + n_v[j]) for j in range(settings.steps)]
                pairs = []
                for m in range(settings.steps + 1):
                    position, velocity = u + -math.expm1(-gamma * m * e) / gamma * v, math.exp(-gamma * m * e) * v
                    for j in range(m):
                        left = (m - j - 1) * e
                        position = position + added[j][0] - math.expm1(-gamma * left) / gamma * added[j][1]
                        velocity = velocity + math.exp(-gamma * left) * added[j][1]
                    pairs.append((position, velocity))
            u, v = pairs[-1]
        y = u
    return y


SETTINGS = [
    dict(steps=4),
    dict(steps=3, blocks=2, time=1.7, friction=0.6),
    dict(steps=1, blocks=1, time=0.3),
    dict(steps=5, time=0.8, friction=3.0, lipschitz=6.0),
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("sweeps", [(1, 1), (3, 2), (14, 5)])
@pytest.mark.parametrize("blocks", [3, (2, 5, 7)])
def test_the_preset_is_the_blockwise_recursion_of_both_algorithms(blocks, sweeps, settings):
    sampler = corrected(blocks, **settings)
    rows = sampler.tableau(OU, TIMES).rows
    start, noises = torch.randn(4, 2, dtype=torch.float64), torch.randn(4, rows, 2, dtype=torch.float64)
    given = dict(sampler=sampler, times=TIMES, start=start, noise=noises, dtype=torch.float64)
    sizes = (4, 5, 5) if blocks == 3 else blocks
    score = lambda x, t: MIXTURE(x, torch.full((len(x),), t, dtype=torch.float64))  # noqa: E731
    expected = by_hand(score, TIMES, sizes, *sweeps, sampler.corrector, start, noises)
    found = pd.sample(MIXTURE, start.shape, solver=pd.piadm_ode(sampler, *sweeps), **given)
    torch.testing.assert_close(found.samples, expected, rtol=1e-12, atol=1e-12)
    exact = pd.sample(MIXTURE, start.shape, solver=pd.sequential(), **given)
    done = sweeps[0] >= max(sizes) and sweeps[1] >= sampler.corrector.steps
    gap = float((found.samples - exact.samples).abs().max())
    assert gap < 1e-12 if done else gap > 1e-7


def test_one_number_of_sweeps_is_for_both():
    sampler = corrected(4, steps=6, blocks=2)
    assert pd.piadm_ode(sampler, 5) == pd.piadm_ode(sampler, 5, 5)
    assert pd.piadm_ode(sampler, 5, 3).stop == pd.Sweeps((5, 3, 3))


@pytest.mark.parametrize("form", [Form.DATA, Form.NOISE, Form.V, Form.FLOW])
def test_the_score_is_frozen_whatever_form_the_model_speaks(form):
    sampler = corrected(3, steps=4)
    solver, given = pd.piadm_ode(sampler, 2), dict(sampler=sampler, times=TIMES, dtype=torch.float64)
    other = pd.GaussianMixture([0.4, 0.6], [[-1.2, 0.3], [0.8, -0.2]], 0.2, OU, form=form)
    found, expected = (pd.sample(model, (3, 2), solver=solver, **given) for model in (other, MIXTURE))
    torch.testing.assert_close(found.samples, expected.samples, rtol=1e-9, atol=1e-9)


# ---- laws, Gaussian data


def law_by_hand(value, mean, times, blocks, settings):
    """Mean and variance of the answer for data N(mean, value): (u, v) as a Gaussian in the plane."""
    centre, spread, at = 0.0, 1.0, 0
    for count in blocks:
        for t, s in zip(times[at : at + count], times[at + 1 : at + count + 1], strict=True):
            var = math.exp(-t) * value - math.expm1(-t)
            grown, weight = math.exp((t - s) / 2), math.expm1((t - s) / 2)
            centre = (grown - weight / var) * centre + weight * math.exp(-t / 2) * mean / var
            spread *= (grown - weight / var) ** 2
        at += count
        t = times[at]
        var, goal = math.exp(-t) * value - math.expm1(-t), math.exp(-t / 2) * mean
        root = math.sqrt(settings.lipschitz or 1 / -math.expm1(-t))
        gamma = settings.friction * root
        transition, weights, covariance, _ = exact_step(settings.time / root / settings.steps / settings.blocks, gamma)
        move = transition - np.outer(weights, [1 / var, 0.0])
        place, law = np.array([centre - goal, 0.0]), np.diag([spread, 1.0])
        for _ in range(settings.steps * settings.blocks):
            place, law = move @ place, move @ law @ move.T + covariance
        centre, spread = place[0] + goal, law[0, 0]
    return centre, spread


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("value", [0.03, 0.6, 2.5])
def test_the_law_of_the_answer_is_that_of_both_algorithms(law_of, value, settings):
    sampler = corrected((2, 5, 7), **settings)
    found = law_of(sampler.tableau(OU, TIMES), value, 0.7, (0.0, 1.0))
    expected = law_by_hand(value, 0.7, TIMES, (2, 5, 7), sampler.corrector)
    np.testing.assert_allclose((found.mean[-1], found.var[-1]), expected, rtol=1e-12)


def test_the_law_of_a_correlated_gaussian_is_that_of_its_eigenvalues():
    """Impulses through the real solver give the affine map of the answer, and so its mean and covariance."""
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    values, mean = np.array([2.5, 0.1]), np.array([0.7, -0.4])
    model = pd.Gaussian(mean, turn @ np.diag(values) @ turn.T, OU)
    sampler = corrected(3, steps=3, blocks=2)
    rows = sampler.tableau(OU, TIMES).rows
    size = 1 + 2 * rows  # at rest, then one unit in each element of the start and of each row's noise
    units = torch.cat([torch.zeros(1, 2 * rows), torch.eye(2 * rows)]).double().unflatten(1, (rows, 2))
    noises = units.clone()
    noises[:, 0] = 0
    given = dict(sampler=sampler, times=TIMES, start=units[:, 0], noise=noises, dtype=torch.float64)
    answers = pd.sample(model, (size, 2), solver=pd.sequential(), **given).samples.numpy()
    loads = answers[1:] - answers[0]
    laws = [law_by_hand(*pair, TIMES, (4, 5, 5), sampler.corrector) for pair in zip(values, turn.T @ mean, strict=True)]
    centres, spreads = np.array(laws).T
    np.testing.assert_allclose(answers[0], turn @ centres, rtol=1e-12)
    np.testing.assert_allclose(loads.T @ loads, turn @ np.diag(spreads) @ turn.T, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("friction", [0.7, 2.0, 5.0])
@pytest.mark.parametrize("value", [0.05, 1.0, 3.0])
def test_the_corrector_keeps_the_law_up_to_its_step_size(law_of, value, friction):
    """The mean exactly; the variance with a defect that halves with the step, after one run and in the long run."""
    t = 0.7
    alpha, sigma = math.exp(-t / 2), math.sqrt(-math.expm1(-t))
    law = alpha * 0.7, alpha**2 * value + sigma**2
    for time, steps in ((1.0, 8), (25.0, 200)):
        defects = []
        for finer in (1, 2, 4):
            corrector = pd.Underdamped(time=time, friction=friction, steps=steps * finer)
            found = law_of(corrector.tableau_at(t, alpha, sigma), value, 0.7, law)
            assert found.mean[-1] == pytest.approx(law[0], rel=1e-12)
            defects.append(found.var[-1] / law[1] - 1)
        assert 1e-4 < defects[0] < 0.3 * sigma**2 / law[1]
        assert defects[0] / defects[1] == pytest.approx(2, abs=0.3)
        assert defects[1] / defects[2] == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(("value", "sigma"), [(0.05, 0.5), (0.3, 80.0), (2.5, 0.7), (2.5, 80.0)])
def test_a_long_corrector_forgets_what_it_was_given(law_of, value, sigma):
    table = pd.Underdamped(time=10 * (1 + value / sigma**2), steps=400).tableau_at(1.0, 1.0, sigma)
    found = law_of(table, value, 0.7, (3.0 * sigma, 9.0 * sigma**2))
    assert nats((0.7, value + sigma**2), (found.mean[-1], found.var[-1])) < 1e-3


SCHEDULES = {
    "ou": (OU, pd.grids.shrinking(OU, 8), ODE),
    "vp": (pd.VP(), pd.grids.default(pd.VP(), 8), ODE),
    "discrete": (pd.Discrete.linear(1000), pd.grids.default(pd.Discrete.linear(1000), 8), ODE),
    "cosine": (pd.Cosine(), pd.grids.default(pd.Cosine(), 8), pd.DDIM()),
    "edm": (pd.EDM(), pd.grids.default(pd.EDM(), 8), pd.DDIM()),
    "edm heun": (pd.EDM(), pd.grids.default(pd.EDM(), 8), pd.Heun()),
    "ve": (pd.VE(), pd.grids.default(pd.VE(), 8), ODE),
    "flow": (pd.Flow(), pd.grids.default(pd.Flow(), 8), pd.FlowEuler()),
}


@pytest.mark.parametrize("value", [0.3, 2.5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_correctors_bring_a_coarse_predictor_closer_on_every_schedule(law_of, name, value):
    schedule, times, predictor = SCHEDULES[name]
    alpha, sigma = float(schedule.alpha(times[-1])), float(schedule.sigma(times[-1]))
    goal = alpha * 0.7, alpha**2 * value + sigma**2
    plain = predictor.tableau(schedule, times)
    tables = [plain, *(corrected(4, predictor, time=2.0, steps=steps).tableau(schedule, times) for steps in (8, 64))]
    errors = []
    for table in tables:
        law = law_of(table, value, 0.7, (0.0, table.start**2))
        errors.append(nats(goal, (law.mean[-1], law.var[-1])))
    assert errors[0] > 1e-4
    assert errors[1] < 0.85 * errors[0]
    assert errors[2] < 0.85 * errors[0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_runs_in_blocks_and_finds_the_sequential_answer(name):
    schedule, times, predictor = SCHEDULES[name]
    model = pd.GaussianMixture([0.4, 0.6], [[-1.2, 0.3], [0.8, -0.2]], 0.2, schedule)
    sampler = corrected(2, predictor, steps=3, blocks=2)
    given = dict(sampler=sampler, times=times, dtype=torch.float64)
    exact = pd.sample(model, (64, 2), solver=pd.sequential(), **given)
    found = pd.sample(model, (64, 2), solver=pd.piadm_ode(sampler, 20, 3), **given)
    torch.testing.assert_close(found.samples, exact.samples, rtol=1e-8, atol=1e-8)
    assert bool(torch.isfinite(exact.samples).all())


def test_a_grid_without_noise_at_its_end_takes_its_last_step_after_the_last_corrector():
    schedule = pd.Discrete.linear(1000)
    times = pd.grids.default(schedule, 6)
    table = corrected(2, steps=2).tableau(schedule, times)
    levels = table.t[table.evaluated]
    np.testing.assert_array_equal(levels, times[[0, 1, 2, 3, 3, 3, 4, 5, 5, 5]])
    assert (table.sigma[-1], table.c[-1].any(), table.a[-1, -2] != 0) == (0, False, True)
    with pytest.raises(SpecError, match="a last block of at least 2 steps on a grid that ends without noise"):
        corrected(6).tableau(schedule, times)


def test_the_mixture_keeps_its_weights():
    """4000 draws: the share of a mode has the standard error 0.008, the band is 5 of them (one failure in 10^6)."""
    model = pd.GaussianMixture([0.3, 0.7], [[-2.0], [1.0]], 0.1, OU)
    sampler = corrected(4)
    found = pd.sample(
        model, (4000, 1), sampler=sampler, times=pd.grids.shrinking(OU, 24), solver=pd.piadm_ode(sampler, 4)
    )
    share = float((found.samples < -0.5).double().mean())
    assert share == pytest.approx(0.3, abs=0.04)


# ---- rounds, noise


@pytest.mark.parametrize("blocks", [1, 3, 4])
@pytest.mark.parametrize("settings", [dict(steps=4), dict(steps=5, blocks=3)])
@pytest.mark.parametrize("sweeps", [(1, 1), (3, 2), (2, 4)])
def test_rounds_are_as_the_theorem_counts_them(blocks, settings, sweeps):
    sampler = corrected(blocks, **settings)
    model = pd.Counted(MIXTURE)
    solver = pd.piadm_ode(sampler, *sweeps)
    found = pd.sample(model, (2, 2), sampler=sampler, times=TIMES, solver=solver, dtype=torch.float64)
    expected = (sweeps[0] + sweeps[1] * sampler.corrector.blocks) * blocks
    assert found.stats.rounds == model.calls == expected
    assert found.stats.nodes == 14 + blocks * sampler.corrector.steps * sampler.corrector.blocks
    assert found.stats.evaluations <= 2 * (
        14 * sweeps[0] + blocks * sampler.corrector.steps * sampler.corrector.blocks * sweeps[1]
    )


def test_sweeps_in_which_nothing_moves_need_no_round():
    sampler = corrected((2, 12), steps=3)
    found = pd.sample(MIXTURE, (2, 2), sampler=sampler, times=TIMES, solver=pd.piadm_ode(sampler, 6, 9))
    assert found.stats.rounds == 2 + 3 + 6 + 3


@pytest.mark.parametrize(
    "solver", [pd.default(1e-9, pd.Sliding(5)), pd.default(1e-9, pd.Whole()), pd.default(1e-9, pd.Blocks(4))]
)
def test_every_solver_finds_the_same_answer_for_the_same_seed(solver):
    sampler = corrected(3, steps=3, blocks=2)
    given = dict(sampler=sampler, times=TIMES, dtype=torch.float64, seed=5)
    expected = pd.sample(MIXTURE, (6, 2), solver=pd.sequential(), **given)
    found = pd.sample(MIXTURE, (6, 2), solver=solver, **given)
    assert found.converged
    torch.testing.assert_close(found.samples, expected.samples, rtol=1e-7, atol=1e-7)
    assert found.stats.rounds < expected.stats.rounds == 32
    alone = pd.sample(MIXTURE, (1, 2), solver=solver, **given | {"seed": [5]})
    torch.testing.assert_close(alone.samples, found.samples[:1], rtol=1e-7, atol=1e-7)


def test_the_certificate_names_the_first_row_without_noise():
    sampler = corrected(3)
    given = dict(sampler=sampler, times=TIMES)
    found = pd.sample(MIXTURE, (3, 2), solver=pd.piadm_ode(sampler, 3), trajectory=True, **given)
    with pytest.raises(SpecError, match=r"noise in every row but the last, found none in row 1 \(t=3\.5"):
        certificate.kl(found, MIXTURE)


def test_a_predictor_with_noise_is_certified_with_its_corrector():
    """E exp(-llr) = 1 within 4 standard errors (one failure in 15,000), for rows that share a noise."""
    sampler = corrected(3, pd.Exponential(stochasticity=1.0), steps=3)
    given = dict(sampler=sampler, times=TIMES)
    found = pd.sample(
        MIXTURE, (4000, 2), solver=pd.piadm_ode(sampler, 4, 3), trajectory=True, dtype=torch.float64, **given
    )
    proof = certificate.kl(found, MIXTURE)
    weights = torch.exp(-proof.llr)
    assert 1e-6 < proof.mean < 1
    assert abs(float(weights.mean()) - 1) < 4 * float(weights.std()) / math.sqrt(4000) < 0.1


# ---- the digits, bad input


@pytest.mark.slow
def test_the_digits_are_corrected():
    sampler = corrected(2, steps=2)
    model = pd.Counted(pd.pretrained("digits", labels=[7], guidance=None))
    given = dict(sampler=sampler, steps=12)
    exact = pd.sample(model, (1, 1, 28, 28), solver=pd.sequential(), **given)
    assert (exact.stats.rounds, model.calls) == (16, 16)
    found = pd.sample(model, (1, 1, 28, 28), solver=pd.piadm_ode(sampler, 5, 2), **given)
    assert (found.stats.rounds, model.calls) == (14, 30)
    assert 0 < float((found.samples - exact.samples).square().mean().sqrt()) < 0.1
    assert float(exact.samples.mean()) == pytest.approx(-0.74, abs=0.2)  # of the pictures it was trained on


@pytest.mark.slow
def test_the_command_runs_the_algorithm_with_its_corrector(tmp_path, capsys):
    words = ["sample", "--out", str(tmp_path), "--labels", "7", "--guidance", "1", "--steps", "12", "--json"]
    ours = ["--solver", "piadm-ode", "--sampler", "exponential-ode", "--blocks", "2", "--sweeps", "6"]
    assert main([*words, *ours]) == 0
    sequential, parallel = json.loads(capsys.readouterr().out)["runs"]
    nodes = 12 + 2 * pd.Underdamped().steps
    assert sequential["stats"]["rounds"] == sequential["stats"]["nodes"] == nodes
    assert parallel["stats"]["rounds"] == 2 * (6 + pd.Underdamped().steps)
    assert max(parallel["error_measured"]) < 1e-5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            [],
            "expected --sampler exponential-ode beside --solver piadm-ode, whose corrector belongs",
        ),
        (["--sampler", "ddim"], "expected --sampler exponential-ode beside --solver piadm-ode"),
        (["--sampler", "exponential-ode", "--blocks", "0"], "expected at least 1 block"),
        (["--sampler", "exponential-ode", "--sweeps", "0"], "expected at least 1 sweep"),
        (
            ["--sampler", "exponential-ode", "--tol", "1"],
            "expected no --tol, --kl or --exact beside --solver piadm-ode",
        ),
    ],
)
def test_the_command_refuses_what_does_not_fit(tmp_path, capsys, words, expected):
    assert main(["sample", "--out", str(tmp_path), "--solver", "piadm-ode", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"paradrift: {expected}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: pd.Underdamped(steps=0), "the corrector's steps to be a whole number of at least 1, found 0"),
        (lambda: pd.Underdamped(steps=2.5), "the corrector's steps to be a whole number of at least 1, found 2.5"),
        (lambda: pd.Underdamped(blocks=0), "the corrector's blocks to be a whole number of at least 1, found 0"),
        (lambda: pd.Underdamped(time=0.0), "the corrector's time to be a positive number, found 0.0"),
        (lambda: pd.Underdamped(friction=-1.0), "the corrector's friction to be a positive number, found -1.0"),
        (lambda: pd.Underdamped(lipschitz=math.inf), "the corrector's lipschitz to be a positive number, found inf"),
        (lambda: pd.Underdamped().tableau_at(0.0, 1.0, 0.0), "noise at the level of a corrector, found sigma = 0.0"),
        (lambda: corrected(0), "at least 1 block, and 1 step in each, found blocks=0"),
        (lambda: corrected((3, 0)), r"at least 1 block, and 1 step in each, found blocks=\(3, 0\)"),
        (lambda: corrected(()), r"at least 1 block, and 1 step in each, found blocks=\(\)"),
        (lambda: corrected(15).tableau(OU, TIMES), "at most as many blocks as steps, found 15 blocks of 14 steps"),
        (lambda: corrected((5, 5)).tableau(OU, TIMES), "blocks that share the grid's 14 steps, found 10 in them"),
        (lambda: pd.piadm_ode(corrected(), 0), "at least 1 sweep, found"),
        (lambda: pd.piadm_ode(corrected(), 3, 0), "at least 1 sweep, found"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, expected):
    with pytest.raises(SpecError, match=f"^expected {expected}") as caught:
        make()
    assert "\n" not in str(caught.value)
