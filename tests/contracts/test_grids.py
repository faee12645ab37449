"""Grids: diffusers' roundings, the laws of the others, and the sentences that refuse nonsense."""

import numpy as np
import pytest
from diffusers import DDIMScheduler, EDMEulerScheduler
from hypothesis import given
from hypothesis import strategies as st

from paradrift import grids
from paradrift.errors import SpecError
from paradrift.schedules import EDM, OU, VE, VP, Cosine, Discrete, Flow, log_snr

THOUSAND = Discrete.linear()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_discrete_grids_are_those_of_diffusers(spacing):
    scheduler = DDIMScheduler(timestep_spacing=spacing)
    make = getattr(grids, spacing)
    for steps in [*range(2, 130), 200, 333, 500, 777, 999, 1000]:
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps.tolist()
        # the oracle's trap: arange may step once too often and list a time of -1 after the last
        if spacing == "trailing" and len(theirs) > steps:
            assert theirs.pop() == -1
        assert make(THOUSAND, steps).tolist() == [*theirs, -1]


def test_leading_with_offset():
    scheduler = DDIMScheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(50)
    assert grids.leading(THOUSAND, 50, offset=1).tolist() == [*scheduler.timesteps.tolist(), -1]


def test_karras_is_the_paper_s():
    times = grids.karras(EDM(), 18)
    i = np.arange(18)
    paper = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(times, [*paper, 0], rtol=1e-12)
    scheduler = EDMEulerScheduler()
    scheduler.set_timesteps(18)
    np.testing.assert_allclose(times, scheduler.sigmas.numpy(), rtol=1e-6)
    late = grids.karras(VP(), 10)
    assert (late[0], late[-1], len(late)) == (1.0, 1e-3, 11)


@given(
    st.sampled_from([OU(), OU(horizon=20.0, last=1e-5), OU(horizon=0.5, last=0.1), VP(), Cosine(), VE()]),
    st.integers(1, 200),
)
def test_shrinking_steps_are_as_long_as_the_condition_allows(schedule, steps):
    times = grids.shrinking(schedule, steps)
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (schedule.first, schedule.last)
    left = np.logaddexp(0, -2 * log_snr(schedule, times))  # remaining time of the Ornstein-Uhlenbeck process
    kappa = -np.diff(left) / np.minimum(1, left[1:])
    np.testing.assert_allclose(kappa, kappa[0], rtol=1e-6)  # every step meets the condition, and with equality


@pytest.mark.parametrize("schedule", [VP(), Cosine(), OU(), VE(), THOUSAND, EDM()], ids=lambda s: type(s).__name__)
def test_log_snr_steps_are_equal(schedule):
    times = grids.log_snr(schedule, 20)
    ladder = log_snr(schedule, times)
    if np.isinf(ladder[-1]):
        assert times[-1] == schedule.last
        ladder = ladder[:-1]
    assert len(times) == 21
    np.testing.assert_allclose(np.diff(ladder), np.diff(ladder)[0], rtol=1e-6)


@pytest.mark.parametrize(
    "schedule", [VP(), Cosine(), OU(), VE(), EDM(), Flow(), THOUSAND], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("steps", [1, 2, 37])
def test_default_spans_the_schedule(schedule, steps):
    times = grids.default(schedule, steps)
    assert len(times) == steps + 1
    assert times[-1] == schedule.last
    if not isinstance(schedule, Discrete):
        assert times[0] == schedule.first


def test_default_uses_all_training_times():
    assert grids.default(THOUSAND, 1000).tolist() == list(range(999, -2, -1))
    assert grids.default(Flow(), 4).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_grids_leave_their_input_alone():
    times = np.array([2.0, 1.0])
    grids.check(times)[0] = 7
    grids.custom(OU(last=1.0), times)[0] = 7
    assert times.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grids.check([3.0, 2.0, 2.0]), "strictly decreasing times, found 2.0 then 2.0 at index 2"),
        (lambda: grids.check([1.0]), "at least 2 times, found shape (1,)"),
        (lambda: grids.check([[1.0, 0.0]]), "found shape (1, 2)"),
        (lambda: grids.check([1.0, float("nan")]), "expected finite times, found nan"),
        (lambda: grids.uniform(VP(), 0), "expected 1 or more steps, found 0"),
        (lambda: grids.uniform(VP(), 3, first=0.1, last=0.5), "strictly decreasing"),
        (lambda: grids.leading(THOUSAND, 1001), "expected 1 to 1000 steps, found 1001"),
        (lambda: grids.leading(THOUSAND, 1000, offset=1), "between 999.0 and -1.0, found 1000.0"),
        (lambda: grids.trailing(THOUSAND, 0), "expected 1 to 1000 steps, found 0"),
        (lambda: grids.custom(Flow(), [1.2, 0.5]), "between 1.0 and 0.0, found 1.2"),
        (lambda: grids.log_snr(Flow(), 10), "expected a finite log-SNR at both ends, found -inf"),
        (lambda: grids.shrinking(EDM(), 10), "stop early, for example with OU(last=1e-3)"),
        (lambda: grids.karras(EDM(), 1), "expected 2 or more steps, found 1"),
        (lambda: grids.karras(EDM(), 5, rho=0), "expected rho > 0, found 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SpecError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
