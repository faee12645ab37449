"""What every sampler's table promises, EDM's algorithm written out, and the sentences that refuse nonsense."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradrift import grids, samplers
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.samplers import (
    DDIM,
    DDPM,
    DEIS,
    Ancestral,
    DPMpp2M,
    DPMpp3M,
    DPMppSDE,
    Euler,
    Exponential,
    FlowEuler,
    FlowHeun,
    Heun,
    UniPC,
)
from paradrift.schedules import EDM, OU, VE, VP, Cosine, Discrete, Flow

SCHEDULES = [VP(), Cosine(), OU(), VE(), EDM(), Flow(), Discrete.linear()]
EVERYWHERE = [DDIM(), DDIM(eta=0.5), DDPM(), DDPM(variance="large"), Euler(), Ancestral(), DPMpp2M(), DPMpp3M()]
EVERYWHERE += [DPMppSDE(), Exponential(form=Form.DATA, stochasticity=0.7), DEIS(), DEIS(variable="time"), UniPC()]


def assert_same(one, other, tol=1e-12):
    """The two tables are one map: equal gains in one form."""
    for left, right in zip(one.gains(), other.reform(one.form).gains(), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=tol * max(1, np.abs(left).max()))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sampler", EVERYWHERE, ids=repr)
def test_tables_hold_on_every_schedule(sampler, schedule):
    times = grids.default(schedule, 20)
    table = sampler.tableau(schedule, times)
    assert (table.rows, table.nodes) == (21, 20)
    assert np.array_equal(table.t, times)
    assert np.array_equal(table.alpha, schedule.alpha(times))
    assert np.array_equal(table.sigma, schedule.sigma(times))
    assert table.reach == {DPMpp2M: 2, DPMppSDE: 2, DPMpp3M: 3, DEIS: 3, UniPC: 3}.get(type(sampler), 1)
    unit = isinstance(schedule, VP | Cosine | OU | Discrete | Flow)
    assert table.start == (1 if unit else schedule.sigma(schedule.first))
    # a clean point stays clean: where the data are one point x0, the mean of every row is alpha x0
    u, outputs, _ = table.gains()
    np.testing.assert_allclose(u * table.alpha[0] + outputs.sum(axis=1), table.alpha, rtol=1e-9, atol=1e-9)


def test_every_sampler_is_checked_here():
    made = {type(s).__name__ for s in EVERYWHERE} | {"Heun", "FlowEuler", "FlowHeun"}
    elsewhere = {"Corrected", "Underdamped"}  # closed_form/test_corrector.py, on every schedule as well
    elsewhere |= {"AcceleratedODE", "AcceleratedSDE"}  # test_alternatives.py, on every schedule too
    assert made == set(samplers.__all__) - {"Sampler", "Gridded"} - elsewhere


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.integers(2, 30))
def test_one_family_many_names(schedule, share, steps):
    times = grids.default(schedule, steps)

    def table(sampler):
        return sampler.tableau(schedule, times)

    assert_same(table(DDIM()), table(Euler()))
    assert_same(table(DDIM(eta=share)), table(Ancestral(eta=share)))
    assert_same(table(DDIM(eta=1.0)), table(DDPM()))
    assert_same(table(DDPM()), table(Exponential(form=Form.DATA)).reform(Form.DATA))
    assert_same(table(DDIM()), table(Exponential(form=Form.DATA, stochasticity=0.0)))
    assert_same(table(DPMppSDE(stochasticity=0.0)), table(DPMpp2M()))
    if isinstance(schedule, Flow):
        assert_same(table(FlowEuler()), table(DDIM()))
    else:
        assert_same(table(Exponential(form=Form.NOISE, stochasticity=0.0)), table(DDIM()), tol=1e-9)


def test_posterior_variance_of_ddpm():
    schedule = Discrete.linear()
    beta = np.linspace(1e-4, 0.02, 1000)
    bar = np.array(schedule.alphas_cumprod)
    small, large = (DDPM(variance=v).tableau(schedule, grids.default(schedule, 1000)) for v in ("small", "large"))
    tilde = beta[1:] * (1 - bar[:-1]) / (1 - bar[1:])  # equation 7 of the paper
    np.testing.assert_allclose(small.band("c", 0)[1:-1] ** 2, tilde[::-1], rtol=1e-9)
    np.testing.assert_allclose(large.band("c", 0)[1:-1] ** 2, beta[:0:-1], rtol=1e-9)
    assert small.draws.sum() == 999


@pytest.mark.parametrize("name", ["DDIM", "Ancestral", "DPMppSDE"])
def test_a_noise_is_drawn_at_the_last_step_too(name):
    noisy = {"DDIM": DDIM(eta=0.3), "Ancestral": Ancestral(), "DPMppSDE": DPMppSDE()}[name]
    table = noisy.tableau(EDM(), grids.karras(EDM(), 6))
    assert table.draws.sum() == 6
    assert table.c[-1, -1] == 0


@pytest.mark.parametrize("steps", [6, 20])
@pytest.mark.parametrize("churn", [0.0, 3.0, 40.0])
@pytest.mark.parametrize(("low", "high", "inflation"), [(0.0, np.inf, 1.0), (0.05, 50.0, 1.003)])
def test_heun_is_algorithm_2_of_edm(steps, churn, low, high, inflation, walk, denoised, start, noises):
    t = grids.karras(EDM(), steps)
    x, drawn = 80 * start, iter(noises)
    for i in range(steps):  # Karras et al. 2022, algorithm 2, line by line
        gamma = min(churn / steps, 2**0.5 - 1) if low <= t[i] <= high else 0
        t_hat = t[i] + gamma * t[i]
        x_hat = x + (t_hat**2 - t[i] ** 2) ** 0.5 * inflation * next(drawn) if gamma > 0 else x
        d = (x_hat - denoised(x_hat, 1.0, t_hat)) / t_hat
        x = x_hat + (t[i + 1] - t_hat) * d
        if t[i + 1] != 0:
            x = x_hat + (t[i + 1] - t_hat) * (d / 2 + (x - denoised(x, 1.0, t[i + 1])) / t[i + 1] / 2)
    table = Heun(churn=churn, low=low, high=high, inflation=inflation).tableau(EDM(), t)
    np.testing.assert_allclose(walk(table, 80 * start, noises, denoised)[-1], x, rtol=1e-12, atol=1e-13)
    assert table.nodes == 2 * steps - 1
    churned = (t[:-1] >= low) & (t[:-1] <= high) & (churn > 0)
    assert table.draws.sum() == churned.sum()
    assert table.rows == 2 * steps + churned.sum()
    raised = table.draws.nonzero()[0]
    np.testing.assert_allclose(table.sigma[raised], t[:-1][churned] * (1 + min(churn / steps, 2**0.5 - 1)), rtol=1e-13)
    assert not np.any(table.evaluated[raised - 1]), "the state before churn is not evaluated"
    np.testing.assert_allclose(table.t, table.sigma, rtol=1e-14)


def test_heun_with_churn_holds_on_other_schedules(walk, denoised, start, noises):
    """The same noise levels on a variance-preserving schedule: the same path, seen through x / alpha."""
    vp = OU(horizon=6.0, last=0.01)
    times = np.linspace(4.0, 0.01, 9)
    sigma = vp.sigma(times) / vp.alpha(times)
    options = Heun(churn=2.0, high=5.0)

    def rescaled(x, alpha, level):
        return denoised(x / alpha, 1.0, level / alpha)

    one = walk(options.tableau(vp, times), start, noises, rescaled)[-1] / vp.alpha(times)[-1]
    two = walk(options.tableau(EDM(), sigma), start / vp.alpha(times)[0], noises, denoised)[-1]
    np.testing.assert_allclose(one, two, rtol=1e-10)
    table = options.tableau(vp, times)
    assert table.draws.any()
    np.testing.assert_allclose(table.alpha, vp.alpha(table.t), rtol=1e-12)
    np.testing.assert_allclose(table.sigma, vp.sigma(table.t), rtol=1e-12)


def test_short_grids_end_at_low_order():
    """Where the end keeps some noise, only `short` lowers the order of the last steps."""
    times = np.linspace(1, 0, 11)
    for sampler, lags in [(DPMpp2M(), [2, 2, 1]), (DPMpp3M(), [3, 2, 1]), (DPMppSDE(), [2, 2, 1])]:
        used = np.count_nonzero(sampler.tableau(VE(), times).b, axis=1)
        assert used[-3:].tolist() == lags
        assert used[:4].tolist() == [0, 1, 2, lags[0]]
        full = type(sampler)(short=0).tableau(VE(), times).b
        assert np.count_nonzero(full, axis=1)[-3:].tolist() == [lags[0]] * 3


@given(st.floats(0, 1), st.integers(1, 12))
def test_score_quadrature_meets_closed_forms(share, steps):
    """On the straight path the integral of alpha d(rho^2) is 2 (rho - log(1 + rho)), which the code does not know."""
    times = np.linspace(0.999, 0.0, steps + 1)
    table = Exponential(stochasticity=share).tableau(Flow(), times)
    rho = times / (1 - times)
    exact = (1 + share**2) * (1 - times[1:]) * -np.diff(rho - np.log1p(rho))
    np.testing.assert_allclose(table.band("b", 1)[1:], exact, rtol=1e-11)


def test_score_rows_of_the_theory():
    """The rule of PIADM on OU, the row of alpha = 1 on EDM."""
    eps, u = 0.37, 0.6
    table = Exponential(stochasticity=u).tableau(OU(), np.array([2.0, 2.0 - eps]))
    np.testing.assert_allclose(table.a[1, 0], np.exp(eps / 2), rtol=1e-14)
    np.testing.assert_allclose(table.b[1, 0], (1 + u**2) * (np.exp(eps / 2) - 1), rtol=1e-13)
    np.testing.assert_allclose(table.c[1, 1], u * np.sqrt(np.exp(eps) - 1), rtol=1e-13)
    flat = Exponential(stochasticity=u).tableau(EDM(), np.array([3.0, 1.0]))
    np.testing.assert_allclose([flat.a[1, 0], flat.b[1, 0]], [1, (1 + u**2) / 2 * 8], rtol=1e-14)
    still = Exponential(form=Form.RESIDUAL, stochasticity=0.0).tableau(OU(), np.array([2.0, 2.0 - eps]))
    np.testing.assert_allclose([still.a[1, 0], still.b[1, 0], still.c[1, 1]], [1, eps / 2, 0], rtol=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(eta=1.5), "expected eta in [0, 1], found 1.5"),
        (lambda: Ancestral(eta=-0.1), "expected eta in [0, 1], found -0.1"),
        (lambda: DDPM(variance="learned"), "expected variance 'small' or 'large', found 'learned'"),
        (lambda: Exponential(stochasticity=float("nan")), "expected stochasticity in [0, 1], found nan"),
        (lambda: Exponential(form=Form.V), "expected the form SCORE, NOISE, DATA or RESIDUAL, found Form.V"),
        (lambda: DPMpp3M(curvature=3), "expected curvature 1 (as published) or 2 (third order), found 3"),
        (lambda: Heun(churn=-1.0), "expected churn >= 0"),
        (lambda: Exponential(form=Form.NOISE).tableau(Flow(), [1.0, 0.5]), "found alpha = 0 at t=1.0: start the grid"),
        (lambda: Heun().tableau(Flow(), [1.0, 0.5]), "use FlowHeun or DDIM"),
        (lambda: Heun(churn=4.0).tableau(Discrete.linear(), [999, 500, 0]), "expected churned noise levels inside"),
        (lambda: Exponential(form=Form.RESIDUAL).tableau(EDM(), [9.0, 1.0]), "expected a variance-preserving schedule"),
        (lambda: FlowEuler().tableau(VP(), [1.0, 0.5]), "expected a straight path, alpha + sigma = 1"),
        (lambda: FlowHeun().tableau(EDM(), [1.0, 0.5]), "expected a straight path"),
        (lambda: DDIM().tableau(EDM(), [0.0, -1.0]), "expected noise at every time but the last"),
        (lambda: DDIM().tableau(Flow(), [1.0, 1.0]), "expected strictly decreasing times"),
        (lambda: Euler().tableau(Backwards(), [1.0, 0.5]), "expected every step to raise the signal-to-noise ratio"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SpecError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Backwards:
    """A schedule whose noise grows towards the data."""

    first, last = 1.0, 0.0

    def alpha(self, t):
        return np.ones_like(t)

    def sigma(self, t):
        return 2 - np.asarray(t)

    def time(self, log_snr):
        return 2 - np.exp(-log_snr)


@pytest.mark.parametrize("sampler", [*EVERYWHERE, Heun(churn=2.0), FlowEuler(), FlowHeun()], ids=repr)
def test_repr_round_trip(sampler):
    written = repr(sampler).replace("<Form.DATA: 'data'>", "Form.DATA").replace("inf,", "np.inf,")
    assert eval(written) == sampler
    assert hash(eval(written)) == hash(sampler)
