"""DDIM and DDPM against diffusers' own steps, in float64, and where the two mean different things."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from paradrift import grids
from paradrift.samplers import DDIM, DDPM
from paradrift.schedules import Discrete

SPACINGS = {"leading": grids.leading, "trailing": grids.trailing, "linspace": grids.linspace}
COUNTS = [7, 13, 50, 60, 999]


class Stride:
    """Stands in for ``num_inference_steps``: ``n // Stride(k)`` is k, so diffusers steps to t - k by its own rule."""

    def __init__(self, length):
        self.length = length

    def __rfloordiv__(self, _):
        return self.length


def scheduler_of(kind, **options):
    # clip_sample is True by default in both; it belongs to the denoiser here
    scheduler = kind(beta_schedule="scaled_linear", clip_sample=False, prediction_type="sample", **options)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()  # float32 tables would hide a wrong digit
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    return scheduler


def schedule_of(scheduler, final=1.0):
    return Discrete(scheduler.alphas_cumprod.tolist(), final)


def replay(scheduler, schedule, denoised, start, noises, monkeypatch, listed=False, **options):
    """Diffusers' loop on the toy; with ``listed``, DDIM is told to step to the next listed time."""
    drawn = iter(noises)
    counted = []

    def fake(shape, **_):
        counted.append(1)
        return torch.from_numpy(next(drawn)).expand(shape)

    monkeypatch.setattr(f"{type(scheduler).__module__}.randn_tensor", fake)
    x = torch.from_numpy(start)[None]
    times = scheduler.timesteps
    strides = -np.diff([*times.tolist(), -1])
    for t, stride, alpha, sigma in zip(times, strides, schedule.alpha(times), schedule.sigma(times), strict=True):
        if listed:
            scheduler.num_inference_steps = Stride(int(stride))
        data = denoised(x.numpy(), alpha, sigma)
        x = scheduler.step(torch.from_numpy(data), t, x, **options).prev_sample
    return x[0].numpy(), len(counted)


@pytest.mark.parametrize("eta", [0.0, 0.5])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spacing", list(SPACINGS))
def test_ddim(spacing, count, eta, walk, denoised, start, noises, monkeypatch):
    scheduler = scheduler_of(DDIMScheduler, timestep_spacing=spacing)
    schedule = schedule_of(scheduler)
    times = SPACINGS[spacing](schedule, count)
    scheduler.set_timesteps(count)
    assert scheduler.timesteps.tolist() == times[:-1].tolist()

    table = DDIM(eta=eta).tableau(schedule, times)
    ours = walk(table, start, noises, denoised)[-1]
    listed, drawn = replay(scheduler, schedule, denoised, start, noises, monkeypatch, listed=True, eta=eta)
    np.testing.assert_allclose(ours, listed, rtol=1e-10, atol=1e-11)
    assert drawn == table.draws.sum() == (count if eta > 0 else 0)

    # The oracle's trap: it steps to t - n // steps, whatever the grid, except for "leading" the wrong place.
    scheduler.set_timesteps(count)
    own, _ = replay(scheduler, schedule, denoised, start, noises, monkeypatch, eta=eta)
    strided = np.all(np.diff(times[:-1]) == -(1000 // count)) and times[-2] - 1000 // count < 0
    assert strided == (spacing == "leading" or (spacing, count) == ("trailing", 50))
    assert np.allclose(ours, own, rtol=1e-10, atol=1e-11) == strided


@pytest.mark.parametrize(("count", "agree"), [(50, True), (999, False)])
def test_ddim_offset_and_final_product(count, agree, walk, denoised, start, noises, monkeypatch):
    scheduler = scheduler_of(DDIMScheduler, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False)
    schedule = schedule_of(scheduler, final=float(scheduler.alphas_cumprod[0]))
    times = grids.leading(schedule, count, offset=1)
    scheduler.set_timesteps(count)
    assert scheduler.timesteps.tolist() == times[:-1].tolist()
    table = DDIM().tableau(schedule, times)
    assert table.sigma[-1] == schedule.sigma(0) > 0
    ours = walk(table, start, noises, denoised)[-1]
    own, _ = replay(scheduler, schedule, denoised, start, noises, monkeypatch)
    # with 999 steps the stride is 1: from time 1 it goes to time 0, which has the level that we call -1 here
    np.testing.assert_allclose(ours, own, rtol=1e-10, atol=1e-11)

    one = scheduler_of(DDIMScheduler, timestep_spacing="leading", steps_offset=1)
    one.set_timesteps(count)
    clean = schedule_of(one)
    ours = walk(DDIM().tableau(clean, times), start, noises, denoised)[-1]
    own, _ = replay(one, clean, denoised, start, noises, monkeypatch)
    assert np.allclose(ours, own, rtol=1e-10, atol=1e-11) == agree


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spacing", list(SPACINGS))
def test_ddpm(spacing, count, variance, walk, denoised, start, noises, monkeypatch):
    scheduler = scheduler_of(DDPMScheduler, timestep_spacing=spacing, variance_type=f"fixed_{variance}")
    schedule = schedule_of(scheduler)
    times = SPACINGS[spacing](schedule, count)
    scheduler.set_timesteps(count)
    assert scheduler.timesteps.tolist() == times[:-1].tolist()

    table = DDPM(variance=variance).tableau(schedule, times)
    ours = walk(table, start, noises, denoised)[-1]
    own, drawn = replay(scheduler, schedule, denoised, start, noises, monkeypatch)
    assert table.draws.sum() == count - 1
    if times[-2] == 0:
        assert drawn == count - 1
        np.testing.assert_allclose(ours, own, rtol=1e-10, atol=1e-11)
        return
    # The oracle's trap: it skips the last noise only if the last listed time is 0. Its small variance is clamped to
    # 1e-20 there; its large one leaves the whole forward step's noise in the answer.
    assert drawn == count
    last = 1e-10 if variance == "small" else schedule.sigma(times[-2])
    np.testing.assert_allclose(ours + last * noises[count - 1], own, rtol=1e-10, atol=1e-11)
    assert np.allclose(ours, own, atol=1e-8) == (variance == "small")
