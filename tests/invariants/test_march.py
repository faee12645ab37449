"""Marching in stretches: the same distances as a plain loop, zeros that stay zeros, nothing from batch mates."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import paradrift as pd
from paradrift.solvers.march import _stretch, _stretches, _substitute


def looped(away: Tensor, gain: Tensor) -> Tensor:
    rows = list(away)
    for index, factor in enumerate(gain):
        rows[index + 1] = rows[index + 1] + factor * rows[index]
    return torch.stack(rows)


@given(rows=st.integers(1, 80), size=st.sampled_from([2, 4, 8, 16]), data=st.data())
def test_stretches_are_the_loop(rows: int, size: int, data: st.DataObject) -> None:
    skipped = data.draw(st.integers(0, size - 1))
    generator = torch.Generator().manual_seed(rows * size + skipped)
    away = torch.randn(rows + 1, 3, 5, dtype=torch.float64, generator=generator)
    gain = 2 * torch.rand(rows, 3, 1, dtype=torch.float64, generator=generator)
    # products of 80 gains up to 2 grow to about 1e10: compared relative to the largest
    expected = looped(away, gain)
    assert float((_stretches(away, gain, skipped, size) - expected).abs().max() / expected.abs().max()) < 1e-13


def test_distances_that_vanish_still_do_where_products_overflow() -> None:
    away, gain = torch.zeros(65, 1, 4), torch.full((64, 1, 1), 1e30)
    assert torch.equal(_stretches(away, gain, 0, 8), away)
    away[64] = 3.0
    assert torch.equal(_stretches(away, gain, 0, 8), away)


def test_rows_of_a_sample_are_the_same_bits_wherever_the_first_row_is() -> None:
    """Another sample's front decides where the march begins; rows before this sample's own are held, gain zero."""
    generator = torch.Generator().manual_seed(1)
    away, gain = torch.randn(65, 1, 4, generator=generator), torch.rand(64, 1, 1, generator=generator)
    late = 21
    whole, factor = away.clone(), gain.clone()
    factor[:late] = 0
    for first in (0, 3, 8, 15, late):
        found = _stretches(whole[first:], factor[first:], first % 8, 8)
        assert torch.equal(found[late - first :], _stretches(whole[late:], factor[late:], late % 8, 8))


@pytest.mark.parametrize("lags", [(1,), (1, 2), (1, 3), (1, 2, 3, 4), tuple(range(1, 12))], ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_few_numbers_are_rounded_as_many_are(lags: tuple[int, ...], shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Batches of few numbers are added up by numpy, larger ones by torch: a sample must not see which."""
    generator = torch.Generator().manual_seed(3)
    expected = torch.randn(20 + max(lags), *shape, generator=generator, dtype=dtype)
    gains = {lag: torch.randn(20, shape[0], 1, generator=generator, dtype=dtype) for lag in lags}
    found = expected.numpy().copy()
    _substitute(found, {lag: gain.numpy() for lag, gain in gains.items()}, max(lags), many=len(lags) > 2)
    _substitute(expected, gains, max(lags), many=len(lags) > 2)
    assert torch.equal(torch.from_numpy(found), expected)


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM()], ids=["DDIM", "DDPM"])
@pytest.mark.parametrize("window", [pd.Sliding(64), pd.Whole()], ids=["64", "whole"])
def test_wide_windows_at_tolerance_zero_are_the_sequential_sampler_to_the_last_bit(
    sampler: pd.DDIM | pd.DDPM, window: pd.Sliding | pd.Whole
) -> None:
    assert _stretch(64) > 1
    model = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.1, pd.Discrete.linear(1000))
    chain = {"sampler": sampler, "steps": 100, "seed": 3, "dtype": torch.float64}
    theirs = pd.sample(model, (2, 2), solver=pd.sequential(), **chain)
    ours = pd.sample(model, (2, 2), window=window, tol=0.0, **chain)
    assert torch.equal(ours.samples, theirs.samples)
    assert ours.stats.rounds < theirs.stats.rounds


@pytest.mark.parametrize("sampler", [pd.DDIM(), pd.DDPM()], ids=["DDIM", "DDPM"])
def test_batch_mates_change_no_bit_of_a_sample_in_a_wide_window(sampler: pd.DDIM | pd.DDPM) -> None:
    """Fronts move apart, so marches begin where the slowest sample wants it."""
    model = pd.GaussianMixture([0.4, 0.6], [[-1.0, 0.5], [0.8, 0.2]], 0.01, pd.Discrete.linear(1000))
    chain = {"sampler": sampler, "steps": 200, "window": pd.Sliding(48), "tol": 1e-2}
    together = pd.sample(model, (6, 2), seed=list(range(6)), **chain)
    assert len(set(together.stats.sample_rounds)) > 1
    for index in range(6):
        alone = pd.sample(model, (1, 2), seed=[index], **chain)
        assert torch.equal(alone.samples[0], together.samples[index])
