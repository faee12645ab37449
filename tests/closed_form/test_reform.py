"""A table written for outputs of another form is the same sampler."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paradrift.errors import SpecError
from paradrift.forms import Form, from_data
from paradrift.samplers import DDIM, DDPM, DPMpp3M, DPMppSDE, Exponential, FlowHeun, Heun
from paradrift.schedules import EDM, OU, VE, VP, Cosine, Discrete, Flow

FORMS = [Form.DATA, Form.NOISE, Form.V, Form.FLOW, Form.SCORE, Form.RESIDUAL]
GRIDS = [
    (VP(), np.linspace(1, 1e-3, 9)),
    (Cosine(), np.linspace(0.9, 0.01, 9)),
    (OU(), np.linspace(4, 0.05, 9)),
    (VE(sigma_max=10.0), np.linspace(1, 0, 9)),
    (EDM(), np.append(np.geomspace(20, 0.05, 8), 0)),
    (Flow(), np.linspace(0.95, 0, 9)),
    (Discrete.linear(), np.array([900, 700, 500, 300, 200, 100, 50, 0, -1.0])),
]
SAMPLERS = [DDIM(eta=0.4), DDPM(), Exponential(stochasticity=0.8), DPMpp3M(short=0), DPMppSDE(), Heun(churn=0.0)]


def closed_loop(table):
    """Gains from start and noises to rows, with the denoiser D = k x + q of Gaussian data closing the loop."""
    alpha, sigma, nodes = table.alpha, table.sigma, table.evaluated
    spread = alpha**2 * 2.5 + sigma**2
    p, q = np.zeros(table.rows), np.zeros(table.rows)
    p[nodes], q[nodes] = from_data(table.form, alpha[nodes], sigma[nodes])
    slope, shift = p + q * alpha * 2.5 / spread, q * 0.7 * sigma**2 / spread
    loop = np.linalg.inv(np.eye(table.rows) - table.a - table.b * slope)
    return loop[:, 0], loop @ (table.b @ shift), loop @ table.c


@given(st.sampled_from(GRIDS), st.sampled_from(SAMPLERS), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_reform_keeps_the_sampler(grid, sampler, first, second):
    schedule, times = grid
    table = sampler.tableau(schedule, times)
    once = table.reform(first)
    twice = once.reform(second)
    assert (once.form, twice.form) == (first, second)
    for one, two, three in zip(closed_loop(table), closed_loop(once), closed_loop(twice), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(three, one, rtol=1e-8, atol=1e-9)


def test_reform_to_noise_is_ddim_as_usually_written():
    schedule = Discrete.linear()
    table = DDIM().tableau(schedule, np.array([600.0, 300.0, 0.0])).reform(Form.NOISE)
    alpha, sigma = table.alpha, table.sigma
    np.testing.assert_allclose(table.band("a", 1)[1:], alpha[1:] / alpha[:-1], rtol=1e-12)
    np.testing.assert_allclose(table.band("b", 1)[1:], sigma[1:] - sigma[:-1] * alpha[1:] / alpha[:-1], rtol=1e-12)


def test_a_start_without_signal_has_no_noise_form():
    table = DDIM().tableau(Flow(), np.array([1.0, 0.5, 0.0]))
    assert FlowHeun().tableau(Flow(), np.array([1.0, 0.5, 0.0])).reform(Form.DATA).nodes == 3
    assert table.reform(Form.FLOW).band("b", 1).tolist() == [0, -0.5, -0.5]
    with pytest.raises(SpecError, match="expected alpha > 0 to turn noise into data, found 0.0"):
        table.reform(Form.NOISE)
