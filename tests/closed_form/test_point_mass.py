"""Data at one point: a data-form ODE sampler is exact on any grid, because its only approximation is a constant."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from paradrift.forms import Form
from paradrift.samplers import DDIM, DPMpp2M, DPMpp3M, DPMppSDE, Euler, Exponential, FlowEuler, FlowHeun, Heun
from paradrift.schedules import EDM, OU, VE, VP, Cosine, Discrete, Flow

SCHEDULES = [VP(), Cosine(), OU(), VE(), EDM(), Flow(), Discrete.linear()]
SAMPLERS = [
    DDIM(),
    Euler(),
    Heun(),
    DPMpp2M(),
    DPMpp2M(short=0),
    DPMpp3M(),
    DPMpp3M(short=0, curvature=2),
    DPMppSDE(stochasticity=0.0),
    Exponential(form=Form.DATA, stochasticity=0.0),
    FlowEuler(),
    FlowHeun(),
]


@st.composite
def walks(draw):
    """A sampler, a schedule and a random grid inside it."""
    schedule = draw(st.sampled_from(SCHEDULES))
    sampler = draw(st.sampled_from(SAMPLERS))
    if isinstance(sampler, FlowEuler | FlowHeun):
        schedule = Flow()
    if isinstance(schedule, Discrete):
        times = draw(st.lists(st.integers(-1, 999), min_size=2, max_size=12, unique=True))
        return sampler, schedule, np.array(sorted(times, reverse=True), float)
    gaps = np.array(draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=12)))
    first = 0.99 if isinstance(schedule, Flow) and isinstance(sampler, Heun) else schedule.first
    parts = np.append(0.0, np.cumsum(gaps) / gaps.sum())
    parts[-1] = 1.0
    return sampler, schedule, first + parts * (schedule.last - first)


@given(walks(), st.floats(-3, 3), st.floats(-3, 3))
def test_exact_on_any_grid(walk, point, noise):
    sampler, schedule, times = walk
    table = sampler.tableau(schedule, times).reform(Form.DATA)
    start, end = table.alpha[[0, -1]], table.sigma[[0, -1]]
    u, outputs, _ = table.gains()
    answer = u[-1] * (start[0] * point + end[0] * noise) + outputs[-1].sum() * point
    np.testing.assert_allclose(answer, start[1] * point + end[1] * noise, rtol=1e-9, atol=1e-9)
