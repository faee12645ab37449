"""Orders of convergence, measured by regression on the exact flow of Gaussian data, and exactness on polynomials."""

import numpy as np
import pytest

from paradrift import grids
from paradrift.forms import Form
from paradrift.samplers import (
    DDIM,
    DDPM,
    DEIS,
    AcceleratedODE,
    AcceleratedSDE,
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
from paradrift.schedules import EDM, VE, VP, Flow

LADDER = np.array([128, 181, 256, 362, 512])  # coarser ladders meet accidental zero crossings


def gentle(schedule, steps):
    """Equal steps of log-SNR after two short ones, so that starting at order one does not hide order three.

    From log-SNR -2 to 1: over the whole range the error integrates a total derivative and nearly vanishes.
    """
    ends = -2.0, 1.0
    step = (ends[1] - ends[0]) / (steps - 2)
    ladder = np.concatenate([[0, step**2, 2 * step**2], step * np.arange(1, steps - 1)])
    return schedule.time(ends[0] + ladder)


def doubling(schedule, steps):
    """Equal steps after many that double from almost nothing, so that no order is hidden by the start."""
    step = 3.0 / steps
    ladder = np.append(0.0, step * 2.0 ** np.arange(-20, 0))
    return schedule.time(-2.0 + np.append(ladder, step * np.arange(1, steps + 1)))


def uniform_snr(schedule, steps):
    return np.geomspace(80.0, 0.01, steps + 1) if isinstance(schedule, EDM) else grids.log_snr(schedule, steps)


def errors(sampler, schedule, make, law_of, share):
    mean, var = [], []
    for steps in LADDER:
        times = make(schedule, steps)
        table = sampler.tableau(schedule, times)
        alpha, sigma = schedule.alpha(times[[0, -1]]), schedule.sigma(times[[0, -1]])
        spread = alpha**2 * 2.5 + sigma**2
        start = (0.4, 1.3 * table.start**2)
        phi = (spread[1] / spread[0]) ** ((1 + share**2) / 2) * (alpha[0] / alpha[1]) ** share**2
        law = law_of(table, 2.5, 0.7, start)
        mean.append(abs(law.mean[-1] - alpha[1] * 0.7 - phi * (0.4 - alpha[0] * 0.7)))
        var.append(abs(law.var[-1] - spread[1] - phi**2 * (start[1] - spread[0])))
    return np.array(mean), np.array(var)


def order(values):
    return -np.polyfit(np.log(LADDER), np.log(values), 1)[0]


@pytest.mark.parametrize(
    ("sampler", "schedule", "make", "promised"),
    [
        (DDIM(), VP(), uniform_snr, 1),
        (DDIM(), EDM(), uniform_snr, 1),
        (DDIM(), Flow(), grids.uniform, 1),
        (Euler(), VE(), uniform_snr, 1),
        (Exponential(stochasticity=0.0), VP(), uniform_snr, 1),
        (Exponential(form=Form.RESIDUAL, stochasticity=0.0), VP(), uniform_snr, 1),
        (Heun(), VP(), uniform_snr, 2),
        (Heun(), EDM(), uniform_snr, 2),
        (Heun(), EDM(), grids.karras, 2),
        (DPMpp2M(), VP(), uniform_snr, 2),
        (DPMpp2M(), EDM(), uniform_snr, 2),
        (DPMpp2M(), VE(), uniform_snr, 2),
        (DPMpp3M(), VP(), gentle, 2),  # as published: half of the parabola's weight is missing
        (DPMpp3M(), VE(), gentle, 2),
        (DPMpp3M(curvature=2), VP(), gentle, 3),
        (DPMpp3M(curvature=2), VE(), gentle, 3),
        (UniPC(), VP(), gentle, 2),  # its last step is of order one
        (UniPC(lower_order_final=False), VP(), gentle, 3),
        (UniPC(variant="bh1", lower_order_final=False), VE(), gentle, 3),
        (UniPC(order=3, lower_order_final=False), VP(), gentle, 4),
        (DEIS(order=0), VP(), uniform_snr, 1),
        (DEIS(order=1), EDM(), uniform_snr, 2),
        (DEIS(order=2), VP(), doubling, 3),
        (DEIS(order=2, variable="time"), VP(), doubling, 3),
        (DEIS(order=3), VP(), doubling, 4),
        (DEIS(order=3, variable="rho"), VE(), doubling, 4),
        (AcceleratedODE(), VP(), uniform_snr, 2),
        (AcceleratedODE(), EDM(), uniform_snr, 2),
        (FlowEuler(), Flow(), grids.uniform, 1),
        (FlowHeun(), Flow(), grids.uniform, 2),
    ],
    ids=lambda v: getattr(v, "__name__", None) or (repr(v) if not isinstance(v, int) else str(v)),
)
def test_order_of_the_flow(sampler, schedule, make, promised, law_of):
    measured = order(errors(sampler, schedule, make, law_of, 0.0)[0])
    assert measured == pytest.approx(promised, abs=0.25)


@pytest.mark.parametrize(
    ("sampler", "promised"),
    [(DDPM(), 1), (Exponential(form=Form.DATA), 1), (DPMppSDE(), 2), (Exponential(), 1), (AcceleratedSDE(), 2)],
)
@pytest.mark.parametrize("schedule", [VP(), EDM()], ids=["VP", "EDM"])
def test_weak_order_of_the_variance(sampler, promised, schedule, law_of):
    measured = order(errors(sampler, schedule, uniform_snr, law_of, 1.0)[1])
    assert measured == pytest.approx(promised, abs=0.25)


@pytest.mark.parametrize(
    ("sampler", "degree"),
    [(DDIM(), 0), (DPMpp3M(curvature=2, short=0), 2), (DPMpp2M(short=0), 0), (DPMpp3M(short=0), 1)],
    ids=["DDIM", "3M, third order", "2M", "3M, published"],
)
def test_data_integrators_are_exact_on_polynomials_of_log_snr(sampler, degree):
    """One step's weights against sigma_s * integral of e^lambda D(lambda): exact up to the degree, and no further.

    2M is the midpoint variant: exact on constants only, of order two all the same.
    """
    lam = np.array([0.0, 0.3, 0.7, 1.0, 1.6])
    table = sampler.tableau(EDM(), np.exp(-lam))
    points, weights = np.polynomial.legendre.leggauss(20)
    nodes = 1.3 + 0.3 * points  # the last step, from 1.0 to 1.6
    for power in range(degree + 2):
        exact = np.exp(-1.6) * 0.3 * (weights @ (np.exp(nodes) * nodes**power))
        ours = table.b[-1, :-1] @ lam[:-1] ** power
        assert (abs(ours - exact) < 1e-12) == (power <= degree), (power, ours - exact)


@pytest.mark.parametrize(("sampler", "power"), [(DDPM(), 2), (AcceleratedSDE(), 4)], ids=["DDPM", "accelerated"])
def test_the_accelerated_law_converges_twice_as_fast(sampler, power, law_of):
    """KL of the answer's law from the data's, Gaussian and in closed form, started from the exact law."""
    found = []
    for steps in LADDER:
        times = gentle(VP(), steps)
        table = sampler.tableau(VP(), times)
        alpha, spread = table.alpha[[0, -1]], 2.5 * table.alpha[[0, -1]] ** 2 + table.sigma[[0, -1]] ** 2
        law = law_of(table, 2.5, 0.7, (0.7 * alpha[0], spread[0]))
        ratio, apart = law.var[-1] / spread[1], law.mean[-1] - 0.7 * alpha[1]
        found.append((ratio - 1 - np.log1p(ratio - 1) + apart**2 / spread[1]) / 2)
    assert order(found) == pytest.approx(power, abs=0.25)
    if power == 4:
        assert found[0] < 1e-6


def test_the_variance_of_one_accelerated_step_is_the_formula_of_its_chapter(law_of):
    table = AcceleratedSDE().tableau(EDM(), np.array([2.0, 1.5]))
    spread, lost = 2.5 + 4.0, 4.0 - 2.25
    law = law_of(table, 2.5, 0.7, (0.7, spread))
    np.testing.assert_allclose(law.var[-1], spread - lost + lost**3 / (2 * spread**2), rtol=1e-13)
    np.testing.assert_allclose(law.mean[-1], 0.7, rtol=1e-13)
