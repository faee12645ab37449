"""Sums over rows: no bit of a sample's sum comes from its batch mates, and so none of its answer, error and audit."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import paradrift as pd
from paradrift.summing import over_rows

SETTLED = pd.Residual(1e-3, 0.0)
METHODS = {
    "Anderson": pd.FixedPoint(update=pd.Anderson(3), stop=SETTLED),
    "triangular": pd.FixedPoint(update=pd.TriangularAnderson(3), stop=SETTLED),
    "probes": pd.newton(pd.Diagonal(probes=3)),
    "fading": pd.Newton(damping=0.1, fading=True),
}


@given(
    rows=st.integers(1, 40),
    samples=st.integers(1, 80),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    data=st.data(),
)
def test_a_sum_has_the_same_bits_alone_and_among_others(rows, samples, dtype, data):
    values = torch.randn(rows, samples, generator=torch.Generator().manual_seed(100 * rows + samples), dtype=dtype)
    together = over_rows(values)
    one = data.draw(st.integers(0, samples - 1))
    assert torch.equal(over_rows(values[:, one : one + 1]), together[one : one + 1])
    exact = math.fsum(values[:, one].tolist())
    rounding = rows * torch.finfo(dtype).eps * float(values[:, one].abs().sum())
    assert abs(float(together[one]) - exact) <= rounding


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_answers_errors_and_audits_are_the_same_in_batches_of_any_size(method):
    model = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, pd.OU(horizon=4.0, last=0.05))

    def solve(samples):
        found = pd.sample(
            model, (samples, 2), sampler=pd.DDPM(), steps=14, solver=method, seed=range(samples), trajectory=True
        )
        assert found.converged
        return found, pd.audit(found, model)

    most, audited = solve(40)
    for samples in (1, 3, 7, 33):
        some, certified = solve(samples)
        assert torch.equal(some.trajectory, most.trajectory[:samples])
        assert torch.equal(some.error, most.error[:samples])
        assert torch.equal(certified.error.error, audited.error.error[:samples])
