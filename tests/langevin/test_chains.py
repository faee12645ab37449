"""Chains solved parallel in time are the sequential chains."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paradrift as pd
from paradrift.errors import SpecError
from paradrift.langevin import langevin
from paradrift.noise import Philox

WINDOWS = [pd.Sliding(1), pd.Sliding(5), pd.Sliding(64), pd.Blocks(3), pd.Whole()]
SLOPES = [pd.Secant(), pd.Zero(), pd.Constant(-1.0)]


def wavy(x):
    other = x.flip(-1)  # sums, products and quotients only: a row's last bit must not depend on the rows beside it
    return -x + 3 * other / (1 + other * other)


def plain(score, x, steps, h, friction=None, seed=0):
    """The chain as textbooks write it, the noise of a step from the covariance of its two parts."""
    noise = Philox(seed=seed, shape=x.shape[1:], dtype=x.dtype)
    ids = torch.arange(len(x))
    states = [x]
    if friction is None:
        for m in range(steps):
            xi = noise.draw(ids, torch.full((len(x), 1), m + 1))[:, 0]
            x = x + h * score(x) + math.sqrt(2 * h) * xi
            states.append(x)
        return torch.stack(states, 1)
    e = math.exp(-friction * h)
    cross = (1 - e) ** 2 / friction
    spread = 2 / friction * (h - 2 * (1 - e) / friction + (1 - e**2) / (2 * friction))
    root = np.linalg.cholesky([[1 - e**2, cross], [cross, spread]])
    v = noise.draw(ids, torch.ones(len(x), 1, dtype=torch.int64))[:, 0]
    for m in range(steps):
        first, second = noise.draw(ids, torch.tensor([2 * m + 3, 2 * m + 4]).expand(len(x), 2)).unbind(1)
        s = score(x)
        x, v = (
            x + (1 - e) / friction * v + (h - (1 - e) / friction) / friction * s + root[1, 0] * first
            + root[1, 1] * second,
            e * v + (1 - e) / friction * s + root[0, 0] * first,
        )  # fmt: skip
        states.append(x)
    return torch.stack(states, 1)


@pytest.mark.parametrize("friction", [None, 0.5, 3.0])
def test_a_plain_loop_gives_the_same_chain(friction):
    x = torch.randn(3, 2, dtype=torch.float64)
    chain = langevin(wavy, x, 150, 0.2, friction, tol=0, segment=40, seed=5)
    torch.testing.assert_close(chain.states, plain(wavy, x, 150, 0.2, friction, seed=5), rtol=0, atol=1e-11)


@settings(max_examples=12)
@given(
    friction=st.sampled_from([None, 0.3, 2.0]),
    window=st.sampled_from(WINDOWS),
    slopes=st.sampled_from(SLOPES),
    chains=st.integers(1, 3),
    elements=st.integers(1, 3),
    segment=st.integers(4, 30),
    seed=st.integers(0, 2**40),
)
def test_without_a_tolerance_every_method_is_the_sequential_chain(
    friction, window, slopes, chains, elements, segment, seed
):
    x = torch.randn(chains, elements, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = langevin(wavy, x, 24, 0.1, friction, solver=pd.sequential(), seed=seed)
    after = langevin(
        wavy, x, 24, 0.1, friction, window=window, slopes=slopes, tol=0, seed=seed, segment=segment, max_rows=7
    )
    assert torch.equal(after.states, before.states)
    assert torch.equal(after.last, before.last)
    if friction is not None:
        assert torch.equal(after.velocities, before.velocities)


@pytest.mark.parametrize("friction", [None, 0.7])
def test_the_segments_of_a_sequential_chain_leave_no_trace(friction):
    x = torch.randn(2, 3)
    chains = [langevin(wavy, x, 40, 0.1, friction, solver=pd.sequential(), segment=each) for each in (1, 7, 40)]
    assert torch.equal(chains[0].states, chains[2].states)
    assert torch.equal(chains[1].states, chains[2].states)


@settings(max_examples=8)
@given(
    friction=st.sampled_from([None, 0.5, 2.0]),
    window=st.sampled_from(WINDOWS),
    slopes=st.sampled_from(SLOPES),
    tol=st.sampled_from([1e-1, 1e-2, 1e-4]),
    segment=st.sampled_from([30, 100]),
    seed=st.integers(0, 2**40),
)
def test_with_a_tolerance_every_state_is_within_it(friction, window, slopes, tol, segment, seed):
    x = torch.zeros(4, 3, dtype=torch.float64)
    before = langevin(wavy, x, 100, 0.1, friction, solver=pd.sequential(), seed=seed)
    after = langevin(
        wavy, x, 100, 0.1, friction, window=window, slopes=slopes, tol=tol, scale=1.0, seed=seed, segment=segment
    )
    gaps = (after.states - before.states).square().mean(2).sqrt()
    assert after.converged
    assert float(gaps.max()) <= tol


def test_fewer_rounds_than_steps():
    chain = langevin(lambda x: -x, torch.zeros(4, 8), 1000, 0.05, 1.0, window=pd.Sliding(64))
    assert chain.stats.nodes == 1000
    assert chain.stats.rounds < 100
    assert chain.stats.rounds >= max(chain.stats.sample_rounds)


def test_a_chain_does_not_depend_on_its_companions():
    x = torch.randn(3, 2)
    together = langevin(wavy, x, 50, 0.1, tol=0, seed=[4, 5, 6])
    alone = langevin(wavy, x[1:2], 50, 0.1, tol=0, seed=[5])
    assert torch.equal(together.states[1:2], alone.states)


def test_thinning_keeps_the_states_at_its_multiples():
    x = torch.randn(2, 3)
    every = langevin(wavy, x, 47, 0.1, 1.0, solver=pd.sequential())
    for segment in (1, 5, 7, 100):
        some = langevin(wavy, x, 47, 0.1, 1.0, solver=pd.sequential(), thin=5, segment=segment)
        assert torch.equal(some.states, every.states[:, ::5])
        assert torch.equal(some.velocities, every.velocities[:, ::5])
        assert torch.equal(some.last, every.states[:, -1])
        assert torch.equal(some.last_velocity, every.velocities[:, -1])


def test_a_given_velocity_starts_the_chain():
    x, v = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 3.0, dtype=torch.float64)
    chain = langevin(torch.zeros_like, x, 1, 0.5, 2.0, velocity=v)
    other = langevin(torch.zeros_like, x, 1, 0.5, 2.0, velocity=-v)
    assert float(chain.velocities[0, 0]) == 3.0
    lost = 1 - math.exp(-1.0)  # the noise cancels in the difference, and no force acts
    assert float(chain.last - other.last) == pytest.approx(6 * lost / 2, rel=1e-12)
    assert float(chain.last_velocity - other.last_velocity) == pytest.approx(6 * (1 - lost), rel=1e-12)


def test_the_score_may_know_its_chain():
    centres = torch.tensor([[-5.0], [5.0]])
    one = langevin(lambda x, chain: centres[chain] - x, torch.zeros(2, 1), 60, 0.1, indexed=True, tol=0)
    for index in range(2):
        alone = langevin(
            lambda x, index=index: centres[index] - x, torch.zeros(2, 1), 60, 0.1, tol=0, solver=pd.sequential()
        )
        assert torch.equal(one.states[index], alone.states[index])


def test_a_step_that_is_too_large_ends_as_non_finite_and_the_other_chains_go_on():
    # x -> x - h k x with h k = 30 for the second chain: overflow after some 26 steps of a factor 29
    stiff = torch.tensor([[1.0], [300.0]])
    chain = langevin(
        lambda x, c: -stiff[c] * x, torch.ones(2, 1), 200, 0.1, indexed=True, segment=50, window=pd.Sliding(8)
    )
    assert [status.value for status in chain.status] == ["converged", "non-finite"]
    broken = torch.isnan(chain.states[1, :, 0])
    settled = int((~broken).sum())
    assert 10 < settled < 60
    assert bool((~broken[:settled]).all())
    assert torch.equal(chain.last[1], chain.states[1, settled - 1])
    assert bool(torch.isfinite(chain.states[0]).all())
    assert math.isinf(float(chain.error[1]))
    alone = langevin(lambda x: -x, torch.ones(2, 1), 200, 0.1, tol=0)
    assert float((chain.states[0] - alone.states[0]).abs().max()) < 1e-2


def test_an_overflow_in_the_last_state_is_seen():
    chain = langevin(lambda x: torch.full_like(x, 1e38), torch.zeros(1, 1), 1, 10.0)
    assert chain.status[0] is pd.Status.NON_FINITE
    assert torch.equal(chain.last, torch.zeros(1, 1))


def test_a_budget_of_rounds_keeps_what_was_settled():
    chain = langevin(wavy, torch.zeros(2, 2), 200, 0.1, window=pd.Sliding(4), max_rounds=30, segment=50)
    assert all(status is pd.Status.BUDGET_EXHAUSTED for status in chain.status)
    assert chain.stats.rounds <= 30
    settled = int(torch.isfinite(chain.states[0, :, 0]).sum())
    assert 30 <= settled < 200
    assert torch.equal(chain.last[0], chain.states[0, settled - 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3)}, r"expected x of shape \(chains, \*shape\) in float32 or float64, found \(3,\)"),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, "found .* of torch.int64"),
        ({"x": torch.full((3, 2), math.nan)}, "expected finite starts"),
        ({"steps": 0}, "expected a whole number of steps of at least 1, found 0"),
        ({"steps": 2.5}, "expected a whole number of steps of at least 1, found 2.5"),
        ({"step_size": 0.0}, "expected a positive step_size, found 0.0"),
        ({"step_size": -1.0}, "expected a positive step_size, found -1.0"),
        ({"friction": 0.0}, "expected a positive friction, found 0.0"),
        ({"friction": math.inf}, "expected a positive friction, found inf"),
        ({"thin": 0}, "expected a whole thin of at least 1, found 0"),
        ({"thin": 50}, "expected thin of at most 9"),
        ({"segment": 0}, "expected a whole segment of at least 1, found 0"),
        ({"scale": 0.0}, "expected a positive scale, found 0.0"),
        ({"velocity": torch.zeros(3, 2)}, "expected no velocity without friction="),
        ({"velocity": torch.zeros(2, 2), "friction": 1.0}, r"expected a finite velocity of shape \(3, 2\)"),
        ({"score": lambda x: x.sum(1)}, "expected the score to return one row for each row, of shape .*, found shape"),
        ({"score": lambda x: 0.0}, "expected the score to return one row for each row, .* found float"),
        ({"seed": [1, 2]}, "expected one seed"),
        ({"tol": 0.1, "stop": pd.Sweeps(2)}, "expected either stop= or tol="),
    ],
)
def test_what_cannot_be_carried_out_is_refused_in_one_sentence(change, message):
    request = {"score": wavy, "x": torch.zeros(3, 2), "steps": 9, "step_size": 0.1}
    with pytest.raises(SpecError, match=message) as caught:
        langevin(**(request | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("friction", [None, 2.0])
def test_clamped_secants_follow_a_double_well_where_free_ones_fly_off(friction):
    def well(x):
        return 4 * x * (1 - x * x)

    x, step = torch.tensor([[-1.5], [0.2], [2.0]], dtype=torch.float64), 0.01 if friction is None else 0.1
    free = langevin(well, x, 300, step, friction, slopes=pd.Secant(), tol=1e-2, scale=1.0)
    held = langevin(well, x, 300, step, friction, tol=1e-2, scale=1.0)
    plain = langevin(well, x, 300, step, friction, solver=pd.sequential())
    assert 2 * held.stats.rounds < 200 < free.stats.rounds
    assert float((held.last - plain.last).abs().max()) < 1e-2


def test_chains_keep_their_noises_and_bounds_are_in_order():
    with pytest.raises(pd.SpecError, match="found Exact: use tol= or stop=KL"):
        langevin(wavy, torch.zeros(1, 1), 5, 0.1, stop=pd.Exact())
    with pytest.raises(pd.SpecError, match="expected bounds .* in order"):
        pd.Secant(bounds=(0.0, -1.0))
