"""Euler, ancestral, DPM-Solver++ and flow samplers against diffusers' own steps, which run in float32."""

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)

from paradrift import grids
from paradrift.samplers import Ancestral, DPMpp2M, DPMpp3M, DPMppSDE, Euler, FlowEuler, FlowHeun
from paradrift.schedules import Discrete, Flow

# inside diffusers: NumPy 2 asks torch tensors for a keyword that they do not have
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SPACINGS = {"leading": grids.leading, "trailing": grids.trailing, "linspace": grids.linspace}
COUNTS = [7, 13, 50, 60, 999]
CLOSE = dict(rtol=1e-5, atol=1e-5)  # float32 levels and states on their side; answers are of size 1


def replay(scheduler, levels, model, start, noises, monkeypatch):
    """Diffusers' loop: levels (alpha, sigma) of the model input by step, model(x, alpha, sigma) its output."""
    drawn = iter(noises)
    counted = []

    def fake(shape, dtype, **_):
        counted.append(1)
        return torch.from_numpy(next(drawn)).to(dtype).expand(shape)

    if hasattr(__import__(type(scheduler).__module__, fromlist=["x"]), "randn_tensor"):
        monkeypatch.setattr(f"{type(scheduler).__module__}.randn_tensor", fake)
    x = torch.from_numpy(start)[None]
    for t, alpha, sigma in zip(scheduler.timesteps, *levels, strict=True):
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(torch.from_numpy(model(seen.numpy(), alpha, sigma)), t, x).prev_sample.double()
    return x[0].numpy(), len(counted)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spacing", list(SPACINGS))
@pytest.mark.parametrize(
    ("kind", "sampler"), [(EulerDiscreteScheduler, Euler()), (EulerAncestralDiscreteScheduler, Ancestral())]
)
def test_euler(kind, sampler, spacing, count, walk, denoised, start, noises, monkeypatch):
    scheduler = kind(beta_schedule="scaled_linear", timestep_spacing=spacing)  # final_sigmas_type is "zero"
    schedule = Discrete(scheduler.alphas_cumprod.double().tolist())
    scheduler.set_timesteps(count)
    times = SPACINGS[spacing](schedule, count)
    if spacing == "linspace":
        # The oracle's trap: its Euler does not round linspace, and interpolates sigma where we interpolate log sigma.
        # Meet it at its own noise levels, whose times differ from its times by less than 0.1.
        whole = times[:-1]
        assert np.abs(scheduler.timesteps.numpy() - whole).max() <= 0.5
        times = grids.custom(schedule, schedule.time(-np.log(scheduler.sigmas[:-1].double().numpy())))
        assert 0 < np.abs(times[:-1] - scheduler.timesteps.double().numpy()).max() < 0.1
    else:
        assert scheduler.timesteps.tolist() == times[:-1].tolist()

    # its states are x / alpha, its model sees x: start from the same x
    levels = schedule.alpha(times[:-1]), schedule.sigma(times[:-1])

    def noise(x, alpha, sigma):
        return (x - alpha * denoised(x, alpha, sigma)) / sigma

    table = sampler.tableau(schedule, times)
    ours = walk(table, start, noises, denoised)[-1]
    theirs, drawn = replay(scheduler, levels, noise, start / levels[0][0], noises, monkeypatch)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=3e-5)
    assert drawn == table.draws.sum()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("spacing", list(SPACINGS))
@pytest.mark.parametrize(
    ("options", "sampler"),
    [
        (dict(algorithm_type="dpmsolver++", solver_order=2), DPMpp2M()),
        (dict(algorithm_type="dpmsolver++", solver_order=3), DPMpp3M()),
        (dict(algorithm_type="sde-dpmsolver++", solver_order=2), DPMppSDE()),
    ],
    ids=["2M", "3M", "SDE"],
)
def test_dpm_solver(options, sampler, spacing, count, walk, denoised, start, noises, monkeypatch):
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        timestep_spacing=spacing,
        prediction_type="sample",
        final_sigmas_type="zero",
        lower_order_final=True,  # below 15 steps: the default of `short`
        solver_type="midpoint",
        **options,
    )
    schedule = Discrete(scheduler.alphas_cumprod.double().tolist())
    scheduler.set_timesteps(count)
    # The oracle's trap: its "leading" and "linspace" divide by steps + 1 and drop the last time, so take its times.
    times = grids.custom(schedule, scheduler.timesteps.numpy())
    table = sampler.tableau(schedule, times)
    ours = walk(table, start, noises, denoised)[-1]
    levels = schedule.alpha(times[:-1]), schedule.sigma(times[:-1])
    theirs, drawn = replay(scheduler, levels, denoised, start, noises, monkeypatch)
    np.testing.assert_allclose(ours, theirs, **CLOSE)
    assert drawn == table.draws.sum()


@pytest.mark.parametrize("count", [7, 20])
@pytest.mark.parametrize(("order", "sampler"), [(2, DPMpp2M()), (3, DPMpp3M())], ids=["2M", "3M"])
def test_dpm_solver_with_noise_left(order, sampler, count, walk, denoised, start, noises, monkeypatch):
    """To the level of time 0 instead of a clean end: only grids under 15 steps finish at low order."""
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        prediction_type="sample",
        solver_order=order,
        final_sigmas_type="sigma_min",
    )
    products = scheduler.alphas_cumprod.double().tolist()
    schedule = Discrete(products, final=products[0])
    scheduler.set_timesteps(count)
    times = grids.trailing(schedule, count)
    assert scheduler.timesteps.tolist() == times[:-1].tolist()
    ours = walk(sampler.tableau(schedule, times), start, noises, denoised)[-1]
    levels = schedule.alpha(times[:-1]), schedule.sigma(times[:-1])
    theirs, _ = replay(scheduler, levels, denoised, start, noises, monkeypatch)
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.parametrize(("count", "shift"), [(7, 1.0), (13, 3.0), (50, 3.0), (60, 1.0), (999, 3.0)])
@pytest.mark.parametrize(
    ("kind", "sampler"), [(FlowMatchEulerDiscreteScheduler, FlowEuler()), (FlowMatchHeunDiscreteScheduler, FlowHeun())]
)
def test_flow(kind, sampler, count, shift, walk, denoised, start, noises, monkeypatch):
    scheduler = kind(shift=shift)
    scheduler.set_timesteps(count)
    sigmas = scheduler.sigmas.double().numpy()
    times = grids.custom(Flow(), np.unique(sigmas)[:0:-1])  # Heun lists every inner level twice
    table = sampler.tableau(Flow(), times)

    def velocity(x, alpha, sigma):
        return (x - (alpha + sigma) * denoised(x, alpha, sigma)) / sigma

    levels = 1 - sigmas[:-1], sigmas[:-1]
    if kind is FlowMatchHeunDiscreteScheduler:
        seen = np.flatnonzero(table.evaluated)
        levels = table.alpha[seen], table.sigma[seen]
    theirs, _ = replay(scheduler, levels, velocity, start, noises, monkeypatch)
    np.testing.assert_allclose(walk(table, start, noises, denoised)[-1], theirs, **CLOSE)
