"""Ten bugs found in other parallel samplers, by number; each test fails where its bug is put back."""

import time

import numpy as np
import pytest
import scipy.stats
import torch
from diffusers import DDIMScheduler, DDPMScheduler

import paradrift as pd
from paradrift import grids
from paradrift.forms import Form

CENTRES = torch.randn(4, 6, generator=torch.Generator().manual_seed(8))


def mixture(schedule=None, form=Form.NOISE, spread=0.1):
    return pd.GaussianMixture([0.25] * 4, CENTRES, spread, schedule or pd.Discrete.linear(1000), form=form)


def loop(scheduler, model, state, generator=None):
    for t in scheduler.timesteps:
        output = model(state, torch.full((len(state),), float(t)))
        state = scheduler.step(output, t, state, generator=generator).prev_sample
    return state


def listed(scheduler):
    return [*scheduler.timesteps.tolist(), -1]


def rms(difference):
    return difference.double().flatten(1).square().mean(1).sqrt()


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("to_one", [True, False])
def test_1_the_last_step_goes_to_the_final_level_of_the_schedule(to_one, spacing):
    """A batched DDIM step used 1 as last level whatever ``set_alpha_to_one`` said."""
    scheduler = DDIMScheduler(1000, clip_sample=False, set_alpha_to_one=to_one, timestep_spacing=spacing)
    scheduler.set_timesteps(20)
    schedule = pd.Discrete(scheduler.alphas_cumprod.double().tolist(), float(scheduler.final_alpha_cumprod))
    start = torch.randn(3, 6)
    expected = loop(scheduler, mixture(schedule), start)
    for solver in (pd.sequential(), pd.default(1e-6, pd.Sliding(7))):
        found = pd.sample(
            mixture(schedule), (3, 6), sampler=pd.DDIM(), times=listed(scheduler), solver=solver, start=start
        )
        torch.testing.assert_close(found.samples, expected, rtol=1e-4, atol=1e-4)
    other = pd.Discrete(scheduler.alphas_cumprod.double().tolist(), 1.0 if not to_one else 0.9999)
    wrong = pd.sample(
        mixture(other), (3, 6), sampler=pd.DDIM(), times=listed(scheduler), window=pd.Whole(), start=start
    )
    assert float((wrong.samples - expected).abs().max()) > 1e-4


@pytest.mark.parametrize("steps", [7, 13, 50, 60])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_2_every_step_goes_to_the_next_listed_time(spacing, steps):
    """A stride of n // N instead: wrong for linspace, and for trailing when N does not divide n."""
    scheduler = DDPMScheduler(1000, clip_sample=False, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    schedule = pd.Discrete(scheduler.alphas_cumprod.double().tolist())
    make = {"leading": grids.leading, "trailing": grids.trailing, "linspace": grids.linspace}[spacing]
    times = make(schedule, steps)
    assert times.tolist() == listed(scheduler)
    model = mixture(schedule, form=Form.DATA)
    found = pd.sample(model, (2, 6), times=times, window=pd.Sliding(9), tol=0.0, trajectory=True, dtype=torch.float64)
    z, f = found.trajectory, pd.DDPM().tableau(schedule, times)
    for step in range(steps):  # each row is the posterior of its own pair of listed times
        now, after = times[step], times[step + 1]
        ratio = schedule.alpha(now) / schedule.alpha(after)
        beta = 1 - ratio**2
        variance = schedule.sigma(now) ** 2
        data = model(z[:, step], torch.full((2,), float(now)))
        mean = schedule.alpha(after) * beta / variance * data
        mean = mean + ratio * schedule.sigma(after) ** 2 / variance * z[:, step]
        noise = (z[:, step + 1] - mean) / max(float(f.c[step + 1, step + 1]), 1e-9)
        limit = 6 if step < steps - 1 else 1e-2
        assert float(noise.abs().max()) < limit  # twelve normals; nothing at all in the last step
        std = beta**0.5 * schedule.sigma(after) / schedule.sigma(now)
        assert float(f.c[step + 1, step + 1]) == pytest.approx(float(std), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_3_variances_are_variances_and_the_last_step_is_free_of_noise(variance):
    """A square root taken twice; noise at t = 0. The noise term is recovered from two calls of the scalar step."""
    scheduler = DDPMScheduler(1000, clip_sample=False, variance_type=variance)
    scheduler.set_timesteps(25)
    schedule = pd.Discrete(scheduler.alphas_cumprod.double().tolist())
    table = pd.DDPM(variance="small" if variance == "fixed_small" else "large").tableau(
        schedule, np.array(listed(scheduler), float)
    )
    state, output = torch.randn(1, 4000), torch.randn(1, 4000)
    for row, t in enumerate(scheduler.timesteps, start=1):
        pair = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        steps = [scheduler.step(output, t, state, generator=one).prev_sample for one in pair]
        drawn = [torch.randn(1, 4000, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
        apart = drawn[0] - drawn[1]
        std = float(((steps[0] - steps[1]) * apart).sum() / apart.square().sum())
        assert float(table.c[row, row]) == pytest.approx(std, rel=1e-4, abs=1e-6)
    assert table.c[-1, -1] == 0
    with pytest.raises(pd.SpecError, match="learned variances are not of this form"):
        pd.DDPM(variance="learned_range")


@pytest.mark.parametrize("window", [1, 3, 10, 25])
@pytest.mark.parametrize("steps", [1, 2, 10, 11])
def test_4_callbacks_come_in_order_for_every_pair_of_steps_and_window(steps, window, capsys):
    """A window array indexed by the global position raised an IndexError; also with windows longer than the chain."""
    seen = []
    found = pd.sample(mixture(), (2, 6), steps=steps, window=pd.Sliding(window), callback=seen.append, progress=True)
    fronts = [entry.settled.tolist() for entry in seen]
    assert fronts == sorted(fronts)
    assert fronts[-1] == [steps, steps]
    assert all(entry.change.shape == (2, steps + 1) for entry in seen)
    assert found.converged
    assert f"{2 * steps}/{2 * steps}" in capsys.readouterr().err


@pytest.mark.parametrize("round_", [1, 2, 3])
def test_5_a_bad_number_in_any_future_entry_is_never_returned(round_):
    """``err > tol`` is False for NaN: the last of eight entries, at one round only, used to destroy the sample."""
    good = mixture(form=Form.DATA)

    class Once:
        form, schedule, variance, calls = Form.DATA, good.schedule, good.variance, 0

        def __call__(self, x, t, sample):
            self.calls += 1
            output = good(x, t).clone()
            if self.calls == round_:
                output[t == t.min()] = float("nan")
            return output

    model = Once()
    found = pd.sample(model, (1, 6), steps=30, window=pd.Sliding(8), tol=0.0)
    exact = pd.sample(good, (1, 6), steps=30, solver=pd.sequential())
    assert found.converged
    assert torch.equal(found.samples, exact.samples)


@pytest.mark.parametrize("guess", [pd.Coast(), pd.Repeat()])
@pytest.mark.parametrize("stop", [pd.Tolerance(0.3), pd.Tolerance(1e-2), pd.LocalChange(0.3)])
@pytest.mark.parametrize("window", [pd.Sliding(8), pd.Blocks(7), pd.Whole()])
def test_6_a_sample_does_not_depend_on_its_batch_mates(window, stop, guess):
    """The slowest of the batch decided where windows went, and so what everybody's guesses were."""
    options = dict(steps=60, window=window, stop=stop, guess=guess)
    model = pd.GaussianMixture([0.25] * 4, CENTRES, [1e-3, 0.1, 0.5, 2.0], pd.Discrete.linear(1000))
    together = pd.sample(model, (6, 6), seed=list(range(6)), **options)
    for sample in (0, 3, 5):
        alone = pd.sample(model, (1, 6), seed=[sample], **options)
        assert torch.equal(alone.samples[0], together.samples[sample])
        assert alone.error[0] == together.error[sample]
    backwards = pd.sample(model, (6, 6), seed=list(range(6))[::-1], **options)
    assert torch.equal(backwards.samples.flip(0), together.samples)


def test_7_states_keep_their_dtype_whatever_the_model_returns():
    """A step cast back to half precision, or promoted by accident, decided how exact the answer was."""
    good = mixture(form=Form.DATA)

    class Cast:
        form, schedule, variance = Form.DATA, good.schedule, good.variance

        def __init__(self, dtype):
            self.dtype, self.seen = dtype, set()

        def __call__(self, x, t, sample):
            self.seen.add((x.dtype, t.dtype))
            return good(x, t).to(self.dtype)

    for state in (torch.float32, torch.float64):
        for output in (torch.bfloat16, torch.float64):
            model = Cast(output)
            found = pd.sample(model, (2, 6), steps=60, window=pd.Sliding(16), tol=1e-2, dtype=state, trajectory=True)
            assert found.samples.dtype == found.trajectory.dtype == state
            assert {dtype for dtype, _ in model.seen} == {state}
            exact = pd.sample(model, (2, 6), steps=60, solver=pd.sequential(), dtype=state)
            assert float(rms(found.samples - exact.samples).max()) < 3e-2
    answers = [pd.sample(mixture(), (2, 6), steps=60, window=pd.Sliding(w), tol=0.0).samples for w in (1, 10, 60)]
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize("sampler", [pd.DPMpp2M(), pd.DPMpp3M(), pd.DPMppSDE()], ids=["2M", "3M", "SDE-2M"])
def test_8_multistep_memory_survives_the_edges_of_windows_and_blocks(sampler):
    """The first entry of each window used to be of first order, and clamped."""
    model = mixture(form=Form.DATA)
    exact = pd.sample(model, (2, 6), sampler=sampler, steps=24, solver=pd.sequential())
    windows = [pd.Sliding(width) for width in range(1, 9)] + [pd.Blocks(count) for count in (2, 3, 5, 24)]
    for window in windows:
        found = pd.sample(model, (2, 6), sampler=sampler, steps=24, window=window, tol=0.0)
        assert torch.equal(found.samples, exact.samples)


def test_9_noise_follows_the_users_seed_alone():
    """Noise seeded by the step, the global generator consumed, the caller's mutated. The two correlations and the two
    Kolmogorov distances would be beyond their limits in less than one of 1e6 correct programs; the seeds are fixed."""
    schedule = pd.Discrete.linear(100)
    wide = pd.Gaussian(torch.zeros(2000), 1.0, schedule)
    options = dict(steps=20, window=pd.Sliding(6))
    before = torch.random.get_rng_state()
    first, again, other = (pd.sample(wide, (2, 2000), seed=seed, **options) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.samples, again.samples)
    limit = 5 / 2000**0.5
    assert abs(float(torch.corrcoef(torch.stack([first.samples[0], other.samples[0]]))[0, 1])) < limit
    assert abs(float(torch.corrcoef(first.samples)[0, 1])) < limit  # two samples of one seed
    for samples in (first.samples, pd.sample(wide, (2, 2000), seed=1, steps=20, solver=pd.sequential()).samples):
        values = samples.flatten().double()
        assert scipy.stats.kstest((values / values.std()).numpy(), "norm").pvalue > 1e-6
    table = pd.DDPM().tableau(schedule, grids.default(schedule, 20))
    variance = 1.0
    for row in range(1, table.rows):  # the law of the sequential sampler, in closed form
        spread = table.alpha[row - 1] ** 2 + table.sigma[row - 1] ** 2
        slope = table.alpha[row - 1] / spread
        variance = (table.a[row, row - 1] + table.b[row, row - 1] * slope) ** 2 * variance + table.c[row, row] ** 2
    assert float(first.samples.double().var()) == pytest.approx(variance, rel=5 * (2 / 4000) ** 0.5)


def test_10_the_worst_sample_keeps_the_tolerance_no_mode_flips_and_the_clock_runs_for_everything():
    """Stopping by the number of rounds left one sample in twenty in another mode; time for noise was subtracted."""
    centres = torch.randn(8, 16, generator=torch.Generator().manual_seed(1)) * 2
    for scale in (1, 4):  # the residual must not be compared with a threshold that grows with the size
        size = 16 * scale
        modes = centres.repeat(1, scale)
        model = pd.GaussianMixture([1 / 8] * 8, modes, 0.05, pd.EDM())
        times = grids.karras(pd.EDM(), 40)
        options = dict(sampler=pd.Euler(), times=times, seed=3)
        begin = time.perf_counter()
        ours = pd.sample(model, (256, size), window=pd.Sliding(8), **options)
        elapsed = time.perf_counter() - begin
        theirs = pd.sample(model, (256, size), solver=pd.sequential(), **options)
        error = rms(ours.samples - theirs.samples) / model.variance**0.5
        assert ours.converged
        assert float(error.max()) < 3e-2  # the worst of 256, not the mean
        mode = [torch.cdist(found.samples, modes.float()).argmin(1) for found in (ours, theirs)]
        assert int((mode[0] != mode[1]).sum()) == 0
        assert len(set(mode[1].tolist())) == 8
        assert 0.8 * elapsed < ours.stats.seconds <= elapsed
        parts = ours.stats.model_seconds + ours.stats.noise_seconds + ours.stats.planning_seconds
        assert 0 < parts < ours.stats.seconds
