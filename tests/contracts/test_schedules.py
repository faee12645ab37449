"""Schedules: levels, their inverse, their ends, equality, and the sentences that refuse nonsense."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from paradrift.errors import SpecError
from paradrift.schedules import EDM, OU, VE, VP, Cosine, Discrete, Flow, log_snr

SCHEDULES = [VP(), Cosine(), OU(), VE(), EDM(), Flow(), Discrete.linear(), Discrete.scaled_linear(), Discrete.cosine()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@given(part=st.floats(0, 1))
def test_time_inverts_log_snr(schedule, part):
    low = {"EDM": 0.002, "Flow": 1e-4, "Discrete": 0.0}.get(type(schedule).__name__, schedule.last)
    high = 1 - 1e-4 if isinstance(schedule, Flow) else schedule.first
    t = np.array([low + part * (high - low)])
    np.testing.assert_allclose(schedule.time(log_snr(schedule, t)), t, rtol=1e-9, atol=1e-9 * high)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_levels_move_from_noise_to_data(schedule):
    t = np.linspace(schedule.first, schedule.last, 1001)
    if isinstance(schedule, Discrete):
        t = np.unique(t.round())[::-1]
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    assert alpha.dtype == sigma.dtype == np.float64
    assert np.all(np.diff(alpha) >= 0)
    assert np.all(np.diff(sigma) < 0)
    if isinstance(schedule, VP | Cosine | OU | Discrete):
        np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=0, atol=1e-14)
    assert schedule.alpha(t[:4].reshape(2, 2)).shape == (2, 2)
    assert float(schedule.alpha(t[3])) == alpha[3]


def test_ends():
    t = np.array([1.0])
    np.testing.assert_allclose(VP().alpha(t), np.exp(-(0.1 + 19.9 / 2) / 2), rtol=1e-14)
    np.testing.assert_allclose(VP().sigma(np.array([1e-12])), np.sqrt(0.1e-12), rtol=1e-9)  # no 1 - exp cancellation
    np.testing.assert_allclose(Cosine().sigma(np.array([0.0])), 0, atol=0)
    np.testing.assert_allclose(Cosine().alpha(t), 0, atol=1e-15)
    np.testing.assert_allclose(OU(horizon=3.0).alpha(np.array([3.0])), np.exp(-1.5), rtol=1e-15)
    np.testing.assert_allclose(VE(0.1, 10.0).sigma(np.array([0.0, 0.5, 1.0])), [0.1, 1, 10], rtol=1e-13)
    assert (Flow().first, Flow().last, EDM().first, EDM().last) == (1, 0, 80, 0)
    assert Discrete.linear().last == -1
    assert log_snr(Flow(), [1.0, 0.0]).tolist() == [-np.inf, np.inf]


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (Discrete.linear(), "linear"),
        (Discrete.scaled_linear(beta_first=1e-4, beta_last=0.02), "scaled_linear"),
        (Discrete.cosine(), "squaredcos_cap_v2"),
    ],
)
def test_discrete_tables_are_those_of_diffusers(ours, name):
    theirs = DDPMScheduler(beta_schedule=name).alphas_cumprod
    np.testing.assert_allclose(list(ours.alphas_cumprod), theirs.numpy(), rtol=2e-4, atol=1e-9)  # theirs is float32
    exact = Discrete(theirs)
    assert exact.alpha(np.array([500.0]))[0] == np.sqrt(float(theirs[500]))
    assert exact == Discrete(theirs.tolist()) == Discrete(theirs.numpy())
    assert hash(exact) == hash(Discrete(theirs.tolist()))
    assert exact != ours
    assert exact != Discrete(theirs, final=float(theirs[0]))


def test_discrete_between_times_and_at_the_ends():
    schedule = Discrete.linear(10)
    half = log_snr(schedule, np.array([3.0, 3.5, 4.0]))
    np.testing.assert_allclose(half[1], (half[0] + half[2]) / 2, rtol=1e-13)
    assert schedule.alpha(-1) == 1
    assert schedule.sigma(-1) == 0
    kept = Discrete.linear(10, final=0.9999)
    assert kept.sigma(-1) == kept.sigma(0)
    assert schedule.time(np.array([np.inf]))[0] == -1
    zero = Discrete([0.9, 0.5, 0.0])  # no signal at the noise end
    assert zero.alpha(2) == 0
    assert zero.time(np.array([-np.inf]))[0] == 2
    assert float(schedule.alpha(3.5)) == schedule.alpha(np.array([3.5]))[0]


def test_equality_and_repr():
    assert VP() == VP()
    assert VP() != VP(beta_max=10.0)
    assert len({VP(), VP(), OU(), OU(horizon=2.0), EDM(), Flow(), Flow()}) == 5
    for schedule in (VP(), Cosine(), OU(), VE(), EDM(), Flow(), Discrete([0.9, 0.5])):
        assert eval(repr(schedule)) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(beta_min=20.0, beta_max=0.1), "expected 0 < beta_min < beta_max, both finite, found beta_min=20.0"),
        (lambda: VP(last=1.0), "expected 0.0 <= last < 1.0, found last=1.0"),
        (lambda: VP(last=float("nan")), "found last=nan"),
        (lambda: OU(horizon=0.0), "found last=0.001"),
        (lambda: VE(sigma_min=0.0), "expected 0 < sigma_min < sigma_max"),
        (lambda: EDM(sigma_max=float("inf")), "sigma_max=inf"),
        (lambda: Cosine(first=1.5), "expected 0 < first"),
        (lambda: Discrete([0.5]), "expected at least 2 entries in alphas_cumprod, found 1"),
        (lambda: Discrete([1.0, 0.5]), "pass cumulative products of 1 - beta, not betas"),
        (lambda: Discrete([1e-4, 0.02]), "order them from least to most noise"),
        (lambda: Discrete([0.9, float("nan")]), "expected alphas_cumprod in"),
        (lambda: Discrete([0.9, 0.5], final=0.8), "expected final in [alphas_cumprod[0], 1] = [0.9, 1], found 0.8"),
        (lambda: Discrete([0.9, 0.5]).alpha(2), "expected times in [-1, 1], found 2.0 to 2.0"),
        (lambda: Discrete([0.9, 0.5]).sigma(float("nan")), "expected times in [-1, 1]"),
        (lambda: Discrete([0.9, 0.5]).sigma(-0.5), "move it to the nearest integer"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SpecError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_schedules_take_cpu_tensors_of_times():
    assert Discrete.linear().alpha(torch.tensor([3, 2])).shape == (2,)
