"""ParaSolver's start: the first rows one by one, then the window of ParaDiGMS."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paradrift as pd

SCHEDULE = pd.Discrete.linear(1000)


def mixture(dim=2, count=3):
    generator = torch.Generator().manual_seed(0)
    return pd.GaussianMixture([1 / count] * count, torch.randn(count, dim, generator=generator), 0.05, SCHEDULE)


def solve(solver, samples=3, dim=2, **request):
    request = dict(sampler=pd.DDPM(), steps=20, seed=4, dtype=torch.float64, trajectory=True) | request
    return pd.sample(mixture(dim), (samples, dim), solver=solver, **request)


@settings(max_examples=30)
@given(
    sampler=st.sampled_from([pd.DDPM(), pd.DDIM(), pd.DDIM(eta=0.5), pd.Euler()]),
    count=st.integers(1, 20),
    steps=st.integers(0, 25),
    width=st.integers(1, 25),
    seed=st.integers(0, 99),
)
def test_without_tolerance_the_answer_is_the_sequential_one_to_the_last_bit(sampler, count, steps, width, seed):
    request = dict(sampler=sampler, steps=count, seed=seed)
    found = solve(pd.parasolver(window=width, steps=steps, tol=0.0), **request)
    assert found.converged
    assert found.certifiable
    assert torch.equal(found.trajectory, solve(pd.sequential(), **request).trajectory)


@pytest.mark.parametrize(
    "solver",
    [
        pd.parasolver(window=8, steps=5, tol=100.0),
        dataclasses.replace(pd.default(1.0), window=pd.Preconditioned(5, pd.Whole())),
        pd.FixedPoint(window=pd.Preconditioned(5, pd.Sliding(8)), stop=pd.Residual(1.0, 0.0)),
        pd.Newton(window=pd.Preconditioned(5, pd.Blocks(2)), stop=pd.Residual(1.0, 0.0)),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_the_first_rows_are_exact_after_as_many_rounds_of_one_node(solver):
    seen = []
    found = solve(solver, callback=seen.append)
    theirs = solve(pd.sequential()).trajectory
    assert torch.equal(found.trajectory[:, :6], theirs[:, :6])
    assert not torch.equal(found.trajectory[:, 6:-1], theirs[:, 6:-1])
    cost = 2 if isinstance(solver, pd.Newton) else 1
    for rounds, one in enumerate(seen[:5], start=1):
        assert one.settled.tolist() == [rounds] * 3
        assert one.evaluations == rounds * 3 * cost
    assert seen[5].evaluations > seen[4].evaluations + 3 * cost


def test_the_window_after_it_is_any_other():
    fronts = torch.arange(20)
    for then in (pd.Whole(), pd.Sliding(4), pd.Blocks(3)):
        ends = pd.Preconditioned(7, then).limit(fronts, 20)
        assert torch.equal(ends[:7], fronts[:7] + 1)
        assert torch.equal(ends[7:], then.limit(fronts, 20)[7:])
    assert solve(pd.parasolver(steps=30)).stats.rounds == 20


def rounds_and_error(solver, **request):
    found, theirs = (solve(one, 8, 64, trajectory=False, **request) for one in (solver, pd.sequential()))
    away = (found.samples - theirs.samples).square().mean(1).sqrt() / mixture(64).variance ** 0.5
    return float(np.mean(found.stats.sample_rounds)), float(away.median())


@pytest.mark.parametrize("steps", [pytest.param(250, id="250"), pytest.param(1000, id="1000", marks=pytest.mark.slow)])
def test_long_noisy_chains_take_fewer_rounds_than_paradigms_at_no_larger_error(steps):
    request = dict(sampler=pd.DDPM(), steps=steps)
    theirs, ours = (rounds_and_error(solver, **request) for solver in (pd.paradigms(16), pd.parasolver(16)))
    assert ours[0] <= (0.92 if steps == 250 else 0.8) * theirs[0]
    assert ours[1] <= 1.2 * theirs[1]


def test_short_chains_in_one_window_pay_for_the_steps():
    request = dict(sampler=pd.DDIM(), steps=50)
    theirs, ours = (rounds_and_error(solver, **request) for solver in (pd.paradigms(64), pd.parasolver(64)))
    assert ours[0] >= theirs[0] + 3


def test_presets_are_the_published_choices():
    assert pd.parasolver() == dataclasses.replace(
        pd.paradigms(), window=pd.Preconditioned(5, pd.Sliding(64)), guess=pd.Coast()
    )


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(pd.SpecError, match="at least 0 preconditioning steps, found -1"):
        pd.parasolver(steps=-1)
    with pytest.raises(pd.SpecError, match="concrete window"):
        solve(pd.FixedPoint(window=pd.Preconditioned(2, pd.Auto())))
