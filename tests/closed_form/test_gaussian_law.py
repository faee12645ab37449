"""Gaussian data: the law of a table's answer against the recursion, golden numbers and the exact dynamics."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradrift.forms import Form
from paradrift.samplers import DDIM, DDPM, Exponential
from paradrift.schedules import EDM, OU, VP, Flow

FORMS = [Form.SCORE, Form.NOISE, Form.DATA, Form.RESIDUAL]
GOLDEN = np.concatenate([np.linspace(0, 3, 13), 4 - np.exp(np.linspace(0, np.log(0.05), 9))[1:]])


def exact(schedule, times, value, mean, start, share):
    """Mean and variance of the reverse dynamics at the last time, from N(start) at the first; value = data variance."""
    alpha, sigma = schedule.alpha(times[[0, -1]]), schedule.sigma(times[[0, -1]])
    spread = alpha**2 * value + sigma**2
    phi = (spread[1] / spread[0]) ** ((1 + share**2) / 2) * (alpha[0] / alpha[1]) ** share**2
    return alpha[1] * mean + phi * (start[0] - alpha[0] * mean), spread[1] + phi**2 * (start[1] - spread[0])


@pytest.mark.parametrize(
    ("form", "mean", "var"),
    [
        (Form.SCORE, 0.6345349282106842, 2.5115172935860532),
        (Form.RESIDUAL, 0.5828003230872086, 2.2003971473697965),
    ],
)
def test_golden_numbers(form, mean, var, law_of):
    """One block of 20 steps on OU from T = 4 to 0.05, stochasticity 0.8, data N(0.7, 2.5), start N(0, 1)."""
    table = Exponential(form=form, stochasticity=0.8).tableau(OU(horizon=4.0), 4 - GOLDEN)
    law = law_of(table, 2.5, 0.7, (0.0, 1.0))
    np.testing.assert_allclose([law.mean[-1], law.var[-1]], [mean, var], rtol=1e-12)


@given(st.sampled_from(FORMS), st.floats(0, 1), st.lists(st.floats(0.01, 1), min_size=1, max_size=12))
def test_recursion_of_mean_and_variance(form, share, steps):
    """mean' = (a + b k) mean + b q and var' = (a + b k)^2 var + c^2 with a, b, c, k, q written out for OU."""
    times = 0.02 + np.append(np.cumsum(steps)[::-1], 0.0)
    table = Exponential(form=form, stochasticity=share).tableau(OU(horizon=20.0), times)
    mu, value, mean, var = 0.7, 2.5, 0.3, 1.4
    u2 = share**2
    a, b, c = (table.band(name, lag)[1:] for name, lag in (("a", 1), ("b", 1), ("c", 0)))
    for i, (t, s) in enumerate(pairwise(times)):
        eps, spread = t - s, np.exp(-t) * value + 1 - np.exp(-t)
        alpha, var_t, var_s = np.exp(-t / 2), 1 - np.exp(-t), 1 - np.exp(-s)
        rho = np.sqrt(np.exp([t, s]) - 1)
        row, k, q = {
            Form.SCORE: (
                (np.exp(eps / 2), (1 + u2) * np.expm1(eps / 2), u2 * np.expm1(eps)),
                -1 / spread,
                alpha * mu / spread,
            ),
            Form.RESIDUAL: (
                (
                    np.exp(-u2 * eps / 2),
                    (1 + u2) * (eps / 2 if u2 == 0 else -np.expm1(-u2 * eps / 2) / u2),
                    -np.expm1(-u2 * eps),
                ),
                1 - 1 / spread,
                alpha * mu / spread,
            ),
            Form.NOISE: (
                (
                    np.exp(eps / 2),
                    -(1 + u2) * np.exp(-s / 2) * (rho[0] - rho[1]),
                    u2 * np.exp(-s) * (rho[0] ** 2 - rho[1] ** 2),
                ),
                np.sqrt(var_t) / spread,
                -np.sqrt(var_t) * alpha * mu / spread,
            ),
            Form.DATA: (
                (
                    np.sqrt(var_s / var_t) * (rho[1] / rho[0]) ** u2,
                    np.exp(-s / 2) * (1 - (rho[1] / rho[0]) ** (1 + u2)),
                    var_s * (1 - (rho[1] / rho[0]) ** (2 * u2)),
                ),
                alpha * value / spread,
                mu * var_t / spread,
            ),
        }[form]
        np.testing.assert_allclose([a[i], b[i], c[i] ** 2], row, rtol=1e-8, atol=1e-12)
        mean, var = (row[0] + row[1] * k) * mean + row[1] * q, (row[0] + row[1] * k) ** 2 * var + row[2]
    # the same through the closed loop of the table: f = k z + q at every node
    unit, outputs, noise = table.gains()
    spread = np.exp(-times) * value + 1 - np.exp(-times)
    k = {Form.SCORE: -1 / spread, Form.RESIDUAL: 1 - 1 / spread}.get(form)
    if k is not None:
        loop = np.linalg.inv(np.eye(table.rows) - outputs * k)
        shift = np.exp(-times / 2) * 0.7 / spread
        np.testing.assert_allclose((loop @ (unit * 0.3 + outputs @ shift))[-1], mean, rtol=1e-8)
        loads = (loop @ noise)[-1]
        np.testing.assert_allclose((loop @ unit)[-1] ** 2 * 1.4 + loads @ loads, var, rtol=1e-8)


WALKS = {
    "VP": (VP(), lambda n: np.linspace(1.0, 1e-3, n + 1)),
    "EDM": (EDM(), lambda n: np.geomspace(20.0, 0.05, n + 1)),
    "Flow": (Flow(), lambda n: np.linspace(0.98, 0.02, n + 1)),
}


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    ("form", "name"),
    [(form, name) for form in FORMS for name in WALKS if form is not Form.RESIDUAL or name == "VP"],
)
def test_tiny_steps_reach_the_exact_dynamics(form, name, share, law_of):
    schedule, times = WALKS[name]
    errors = []
    for steps in (128, 512):
        table = Exponential(form=form, stochasticity=share).tableau(schedule, times(steps))
        start = (0.4, 1.3 * table.start**2)
        law = law_of(table, 2.5, 0.7, start)
        errors.append(np.subtract((law.mean[-1], law.var[-1]), exact(schedule, times(steps), 2.5, 0.7, start, share)))
    assert np.all(np.abs(errors[1]) < 0.1)
    # first order: four times the steps leave a quarter of the error, or it was already nothing
    assert np.all((np.abs(errors[1]) < 0.32 * np.abs(errors[0])) | (np.abs(errors[0]) < 1e-3))


@given(st.lists(st.floats(0.05, 2), min_size=1, max_size=10), st.floats(0.1, 4), st.floats(-2, 2))
def test_ancestral_mean_is_exact_on_gaussians(law_of, steps, value, mean):
    """With the full noise the data prediction's mean does not move along a reverse path: any grid gives the mean."""
    times = 0.05 + np.append(np.cumsum(steps)[::-1], 0.0)
    vp = OU(horizon=30.0)
    law = law_of(DDPM().tableau(vp, times), value, mean, (0.3, 1.0))
    np.testing.assert_allclose(law.mean[-1], exact(vp, times, value, mean, (0.3, 1.0), 1.0)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_data_law_is_reached(eta, law_of):
    """From the right starting law, many steps end in the data's own mean and variance."""
    times = np.geomspace(80.0, 0.002, 400)
    law = law_of(DDIM(eta=eta).tableau(EDM(), np.append(times, 0)), 2.5, 0.7, (0.7, 80.0**2 + 2.5))
    np.testing.assert_allclose([law.mean[-1], law.var[-1]], [0.7, 2.5], rtol=0.03)
