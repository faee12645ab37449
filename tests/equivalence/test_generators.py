"""A user's torch.Generator is consumed as the sequential loop of diffusers does it; a Brownian path is shared."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

import paradrift as pd
from paradrift.noise import Brownian, Drawn

STEPS = 30
CENTRES = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(2))


def generators(count, seed=21):
    made = [torch.Generator().manual_seed(seed + index) for index in range(max(count, 1))]
    return made if count else made[0]


def states(given):
    return [one.get_state() for one in (given if isinstance(given, list) else [given])]


def schedule_of(scheduler):
    return pd.Discrete(scheduler.alphas_cumprod.double().tolist())


def draw(given, samples):
    if isinstance(given, list):
        return torch.cat([torch.randn(1, 1, 3, 3, generator=one) for one in given])
    return torch.randn(samples, 1, 3, 3, generator=given)


def loop(scheduler, model, samples, given):
    """The sequential loop of a diffusers pipeline, written by hand."""
    scheduler.set_timesteps(STEPS)
    state = draw(given, samples)
    for t in scheduler.timesteps:
        output = model(state, torch.full((samples,), float(t)))
        state = scheduler.step(output, t, state, generator=given).prev_sample
    return state


@pytest.mark.parametrize("solver", [pd.sequential(), pd.default(1e-6, pd.Sliding(9)), pd.default(0.0, pd.Whole())])
@pytest.mark.parametrize("count", [0, 3])
def test_a_generator_gives_the_samples_of_the_diffusers_loop(solver, count):
    scheduler = DDPMScheduler(60, clip_sample=False)
    model = pd.GaussianMixture([0.25] * 4, CENTRES, 0.1, schedule_of(scheduler), form=pd.Form.NOISE)
    theirs, ours = generators(count), generators(count)
    expected = loop(scheduler, model, 3, theirs)
    found = pd.sample(model, (3, 1, 3, 3), sampler=pd.DDPM(), steps=STEPS, solver=solver, generator=ours)
    torch.testing.assert_close(found.samples, expected, rtol=2e-5, atol=2e-5)
    assert all(map(torch.equal, states(ours), states(theirs)))


@pytest.mark.parametrize("count", [0, 4])
def test_samples_of_different_speed_leave_the_generator_in_the_same_state(count, monkeypatch):
    """One mode is much tighter than the others, so fronts drift apart; the noises held stay within what is allowed."""
    scheduler = DDPMScheduler(60, clip_sample=False)
    schedule = schedule_of(scheduler)
    model = pd.GaussianMixture([0.25] * 4, 2 * CENTRES, [1e-4, 1e-2, 0.5, 2.0], schedule, form=pd.Form.NOISE)
    held, spread = [], []
    original = Drawn.draw

    def watched(self, samples, columns):
        drawn = original(self, samples, columns)
        held.append(len(self._held))
        return drawn

    monkeypatch.setattr(Drawn, "draw", watched)
    width = 4
    theirs, ours = generators(count), generators(count)
    expected = pd.sample(model, (4, 1, 3, 3), steps=60, solver=pd.sequential(), generator=theirs)
    held.clear()
    found = pd.sample(
        model,
        (4, 1, 3, 3),
        steps=60,
        window=pd.Sliding(width),
        tol=1e-3,
        generator=ours,
        callback=lambda seen: spread.append(int(seen.settled.max() - seen.settled.min())),
    )
    assert all(map(torch.equal, states(ours), states(theirs)))
    assert float((found.samples - expected.samples).square().flatten(1).mean(1).sqrt().max()) < 3e-3 * 3
    assert max(spread) > 1  # they did advance at different speeds
    assert max(held) <= 4 * width + 1  # two windows of lead, one that was settled at once, one being worked on


def test_the_lead_is_capped_even_when_one_sample_hardly_moves():
    """Sample 0 has a rough model, whose rows settle one by one; the others wait for it instead of piling up noises."""

    class Uneven:
        form, schedule, variance = pd.Form.DATA, pd.Discrete.linear(120), 1.0

        def __call__(self, x, t, sample):
            return torch.where((sample == 0)[:, None], torch.sin(40 * x), 0.3 * torch.ones_like(x))

    options = dict(steps=120, window=pd.Sliding(6), tol=1e-3)
    free, capped = [], []
    pd.sample(Uneven(), (3, 4), callback=lambda seen: free.append(seen.settled), **options)
    found = pd.sample(
        Uneven(), (3, 4), callback=lambda seen: capped.append(seen.settled), generator=generators(0), **options
    )
    exact = pd.sample(Uneven(), (3, 4), steps=120, solver=pd.sequential(), generator=generators(0))

    def spread(seen):
        unfinished = [settled for settled in seen if int(settled.min()) < 120]
        return max(int(settled.max() - settled.min()) for settled in unfinished)

    assert spread(free) > 30
    assert spread(capped) <= 3 * 6 + 1
    assert float((found.samples[1:] - exact.samples[1:]).abs().max()) < 3e-3
    assert found.converged


def test_a_given_start_is_not_drawn_from_the_generator():
    model = pd.GaussianMixture([0.25] * 4, CENTRES, 0.1, pd.Discrete.linear(60))
    start = torch.randn(2, 1, 3, 3)
    ours, theirs = generators(0), generators(0)
    pd.sample(model, (2, 1, 3, 3), steps=20, window=pd.Sliding(5), generator=ours, start=start)
    for _ in range(19):
        torch.randn(2, 1, 3, 3, generator=theirs)
    assert all(map(torch.equal, states(ours), states(theirs)))


def test_coarse_and_fine_grids_share_a_brownian_path():
    """The answers of 40 and 80 steps on one path are nearer to each other than those on two; so are parallel ones."""
    torchsde = pytest.importorskip("torchsde")
    schedule = pd.VP()
    model = pd.GaussianMixture([0.25] * 4, CENTRES, 0.3, schedule)
    start = torch.randn(4, 1, 3, 3, dtype=torch.float64)

    def run(path, times, solver):
        clock = (schedule.sigma(times) / schedule.alpha(times)) ** 2
        noise = Brownian(path, clock, start)
        options = dict(sampler=pd.Exponential(form=pd.Form.DATA, stochasticity=1.0), times=times, dtype=torch.float64)
        return pd.sample(model, (4, 1, 3, 3), noise=noise, start=start, solver=solver, **options).samples

    fine = np.linspace(1, 1e-3, 81)
    top = float((schedule.sigma(1.0) / schedule.alpha(1.0)) ** 2) + 1

    def path(entropy):
        return torchsde.BrownianInterval(0.0, top, size=(4, 1, 3, 3), entropy=entropy, dtype=torch.float64)

    exact = run(path(3), fine, pd.sequential())
    shared = path(3)
    first = run(shared, fine, pd.default(0.0, pd.Sliding(16)))
    second = run(shared, fine[::2], pd.default(1e-3, pd.Sliding(16)))
    apart = run(path(4), fine, pd.default(1e-3, pd.Sliding(16)))
    assert torch.equal(first, exact)
    assert float((first - second).abs().mean()) < 0.5 * float((first - apart).abs().mean())
