"""Few numbers are held by numpy, many by torch: a solve must not see which."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

import paradrift as pd
from paradrift.forms import Form
from paradrift.solvers import arrays

MODES = torch.randn(4, 6, generator=torch.Generator().manual_seed(4))
GROUPS = torch.tensor([0, 0, 1, 1, 1, 2])
METHODS = {
    "thinned": pd.default(0.1, pd.Sliding(16)),
    "every node": pd.default(1e-3, pd.Sliding(12)),
    "exact": pd.default(0.0, pd.Whole()),
    "groups": pd.Solver(
        window=pd.Sliding(16), slopes=pd.Secant(groups=GROUPS), guess=pd.Coast(), stop=pd.Tolerance(1e-2)
    ),
    "blocks": pd.default(1e-3, pd.Blocks(4)),
    "unverified": pd.default(1e-2, pd.Whole(), verify=0),
    "picard": pd.Solver(
        window=pd.Sliding(20), slopes=pd.Zero(Form.NOISE), guess=pd.Repeat(), stop=pd.Tolerance(1e-2), verify=0
    ),
    "paradigms": pd.paradigms(16, 0.1),
    "piadm": pd.presets.piadm_sde(4, 5),
    "parasolver": pd.parasolver(16),
    "budget": dataclasses.replace(pd.default(1e-3, pd.Sliding(8)), max_rounds=5),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM(), pd.DPMpp2M()], ids=["DDIM", "DDPM", "DPM++"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_solve_is_the_same_to_the_bit(method, sampler, dtype, monkeypatch):
    if method in ("paradigms", "parasolver") and isinstance(sampler, pd.DPMpp2M):
        pytest.skip("written for one step from row to row")
    model = pd.GaussianMixture([0.4, 0.3, 0.2, 0.1], MODES, 0.05, pd.Discrete.linear(1000))
    variance = model.variance if method != "picard" else None  # the unit is measured, then
    asked = {"sampler": sampler, "steps": 120, "solver": METHODS[method], "seed": [3, 8, 1], "dtype": dtype}

    def solve():
        rounds = []
        other = pd.denoiser(model_of(model), predicts=model.form, schedule=model.schedule, variance=variance)
        found = pd.sample(other, (3, 6), callback=rounds.append, **asked)
        return found, rounds

    few, seen = solve()
    monkeypatch.setattr(arrays, "SMALL", 0)
    many, expected = solve()
    assert torch.equal(few.samples, many.samples)
    assert few.status == many.status
    assert few.stats.sample_rounds == many.stats.sample_rounds
    assert few.stats.evaluations == many.stats.evaluations
    assert torch.allclose(few.error, many.error, rtol=1e-6, atol=0)  # contributions may be added in another order
    for one, other in zip(seen, expected, strict=True):
        assert torch.equal(one.settled, other.settled)
        assert torch.equal(one.preview, other.preview)
        assert torch.equal(one.answer.isnan(), other.answer.isnan())


def model_of(mixture):
    def net(x, t):
        return mixture(x, t, torch.zeros(len(x), dtype=torch.int64))

    return net


def test_a_verdict_judges_tensors():
    model = pd.GaussianMixture([0.4, 0.6], MODES[:2], 0.05, pd.Discrete.linear(100))
    solution = pd.sample(model, (2, 6), sampler=pd.DDPM(), steps=30, solver=pd.autospeculative(8))
    assert solution.converged


def test_a_broken_model_ends_the_same_way(monkeypatch):
    model = pd.GaussianMixture([0.4, 0.6], MODES[:2], 0.05, pd.Discrete.linear(100))

    def net(x, t):
        out = model(x, t, torch.zeros(len(x), dtype=torch.int64))
        return torch.where((t < 10)[:, None] & (x[:, 1:2] > MODES[:2, 1].mean()), torch.nan, out)

    broken = pd.denoiser(net, predicts=model.form, schedule=model.schedule, variance=1.0)
    asked = {"sampler": pd.DDPM(), "steps": 50, "solver": pd.default(1e-3, pd.Sliding(16)), "seed": 2, "throw": False}
    few = pd.sample(broken, (6, 6), **asked)
    monkeypatch.setattr(arrays, "SMALL", 0)
    many = pd.sample(broken, (6, 6), **asked)
    assert len(set(few.status)) == 2  # some break, some do not
    assert few.status == many.status
    assert torch.equal(few.samples, many.samples)


FLOATS = st.floats(-100, 100, width=32) | st.sampled_from([np.inf, -np.inf, np.nan])


@given(
    arrays_of.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=FLOATS),
    st.integers(0, 9),
)
def test_functions_of_two_names_do_the_same(values, count):
    other = torch.from_numpy(values.copy())
    count = min(count, len(values))
    with np.errstate(all="ignore"):
        pairs = [
            (arrays.clip(values, -1.0, 2.0), arrays.clip(other, -1.0, 2.0)),
            (arrays.clip(values, high=2.0), arrays.clip(other, high=2.0)),
            (arrays.running_max(values), arrays.running_max(other)),
            (arrays.roll(values, count), arrays.roll(other, count)),
            (arrays.norm(values), arrays.norm(other)),
            (arrays.total(values), arrays.total(other)),
            (arrays.log2(abs(values)), arrays.log2(abs(other))),
            (arrays.root(abs(values)), arrays.root(abs(other))),
            (arrays.steps(2, 7, values), arrays.steps(2, 7, other)),
            (arrays.copy(values), arrays.copy(other)),
            (arrays.cast(values > 0, values), arrays.cast(other > 0, other)),
            *zip(arrays.places(values > 0), arrays.places(other > 0), strict=True),
            *zip(arrays.at(values), arrays.at(other), strict=True),
        ]
    for few, many in pairs:
        assert isinstance(few, np.ndarray)
        assert isinstance(many, torch.Tensor)
        assert few.dtype == many.numpy().dtype
        assert np.array_equal(few, many.numpy(), equal_nan=few.dtype.kind == "f")


@pytest.mark.parametrize("function", [arrays.norm, arrays.total, arrays.root, arrays.log2])
def test_many_elements_are_added_up_and_rooted_in_one_way(function):
    """Each library adds a thousand elements up in an order of its own, and has its own roots: here is only torch's."""
    many = torch.rand(50, 1000, generator=torch.Generator().manual_seed(2))
    for other in (many, many.double()):
        assert np.array_equal(function(other.numpy()), function(other).numpy())


def test_entries_are_added_to_as_often_as_they_are_named():
    index, more = np.array([0, 2, 0, 1, 0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    few, many = np.zeros(3), torch.zeros(3, dtype=torch.float64)
    arrays.add_at(few, index, more)
    arrays.add_at(many, torch.from_numpy(index), torch.from_numpy(more))
    assert few.tolist() == many.tolist() == [9.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("row", "held"),
    [
        (torch.zeros(4, 16), True),
        (torch.zeros(4, 16, dtype=torch.float64), True),
        (torch.zeros(2, arrays.SMALL), False),
        (torch.zeros(4, 16, dtype=torch.bfloat16), False),
        (torch.zeros(4, 16, device="meta"), False),
    ],
    ids=["few", "double", "many", "half", "elsewhere"],
)
def test_numpy_holds_few_numbers_on_the_host_alone(row, held):
    assert arrays.few(row) is held


def test_a_callback_sees_overflow_without_a_warning():
    """Warnings are errors here: what is not finite is told by statuses, whoever looks on."""
    schedule = pd.Discrete.linear(1000)
    wild = pd.denoiser(lambda x, t: 3e37 * torch.sign(x), predicts="noise", schedule=schedule, variance=1.0)
    seen = []
    for sampler in (pd.DDIM(), pd.DDPM()):
        solver = pd.default(1e-2, pd.Sliding(8))
        pd.sample(wild, (3, 6), sampler=sampler, steps=40, solver=solver, seed=1, callback=seen.append, throw=False)
    assert seen
