"""The parallel schedulers that diffusers has itself, and the pipeline that uses them: wrong where paradrift is right.

Each test first shows the fault of ``DDIMParallelScheduler``, ``DDPMParallelScheduler`` or
``StableDiffusionParadigmsPipeline``, with its size, and then that paradrift gives what the plain sequential run gives.
A first half that fails with FIXED is good news: delete that half.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    StableDiffusionParadigmsPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import nn

import paradrift as pd
from paradrift.forms import Form

_spec = importlib.util.spec_from_file_location("pipelines_stable", Path(__file__).with_name("pipelines_stable.py"))
_pipelines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pipelines)

pytestmark = pytest.mark.filterwarnings("ignore:__array", "ignore::FutureWarning")  # diffusers' own

FIXED = "fixed upstream: delete this half"
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
STRIDE_RIGHT = {("leading", 7), ("leading", 13), ("leading", 50), ("leading", 60), ("leading", 999), ("trailing", 50)}
STRIDE_ERROR = {  # largest relative error of one step
    ("trailing", 7): 9e-3,
    ("trailing", 13): 1e-2,
    ("trailing", 60): 2e-2,
    ("trailing", 999): 1e-2,
    ("linspace", 7): 2e-1,
    ("linspace", 13): 8e-2,
    ("linspace", 50): 2e-2,
    ("linspace", 60): 2e-2,
    ("linspace", 999): 1e-2,
    ("custom", 7): 9e-1,
    ("custom", 13): 8e-1,
    ("custom", 50): 5e-1,
    ("custom", 60): 5e-1,
    ("custom", 999): 1e-2,
}


class Net(nn.Module):
    """A small smooth network of a state and a time, which can say NaN in one row of one of its calls."""

    def __init__(self, outputs=6, spoiled=None):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(7, 16), nn.Linear(16, outputs)
        self.requires_grad_(False)
        self.spoiled, self.seen = spoiled, []

    def forward(self, x, timestep):
        time = (torch.as_tensor(timestep, dtype=x.dtype) / 1000).reshape(-1, 1).expand(len(x), 1)
        output = self.outer(torch.tanh(self.inner(torch.cat([x, time], 1))))
        if self.spoiled is not None and self.spoiled[0] == len(self.seen):
            output[self.spoiled[1]] = float("nan")
        self.seen.append(time[:, 0].tolist())
        return output


def error_of(call):
    """What a call raises, or None."""
    try:
        call()
    except Exception as error:
        return error
    return None


def relative(found, expected):
    return float((found - expected).double().norm() / expected.double().norm())


def normal(*shape, seed=3):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def loop(scheduler, net, generator, rows=2):
    """The plain sequential loop, as a program that can be run again."""

    def program():
        state = torch.randn(rows, 6, generator=generator.manual_seed(1))
        for t in scheduler.timesteps:
            options = {} if isinstance(scheduler, DDIMParallelScheduler) else {"generator": generator}
            state = scheduler.step(net(state, t), t, state, **options).prev_sample
        return state

    return program


def replayed(scheduler, net, rows=2, **options):
    generator = torch.Generator()
    program = loop(scheduler, net, generator, rows)
    return pd.replay(program, {"net": net}, objects=[scheduler], generators=[generator], strict=True, **options)


def assert_ours_is_the_loop(scheduler, window=8):
    """The table to 1e-5, and the replayed loop bit by bit."""
    net, generator = Net(), torch.Generator()
    plain = loop(scheduler, net, generator)()
    assert bool(plain.isfinite().all())
    form = {"epsilon": Form.NOISE, "sample": Form.DATA, "v_prediction": Form.V}[scheduler.config.prediction_type]
    model = pd.denoiser(net, predicts=form, schedule=pd.Discrete(scheduler.alphas_cumprod.tolist()))
    sampler = pd.Probed(scheduler, timesteps=scheduler.timesteps)
    options = {"generator": generator.manual_seed(1), "window": pd.Sliding(16), "tol": 1e-7}
    found = pd.sample(model, (2, 6), sampler=sampler, **options)
    assert found.converged
    assert relative(found.samples, plain) < 1e-5
    if window:
        found, stats = replayed(scheduler, net, tol=0.0, single=True, window=window)
        assert torch.equal(found, plain)
        assert stats.rounds <= stats.calls == len(scheduler.timesteps)


def noise_free(scheduler, t, output, state):
    """The mean of a scalar step, and the weight of its noise: from two calls with known noises."""
    steps = [
        scheduler.step(output, t, state, generator=torch.Generator().manual_seed(s)).prev_sample.double()
        for s in (1, 2)
    ]
    first, second = (normal(*state.shape, seed=s).double() for s in (1, 2))
    apart = first - second
    weight = float(((steps[0] - steps[1]) * apart).sum() / apart.square().sum())
    return steps[0] - weight * first, weight


def pipes_of(scheduler, channels=4):
    """A tiny Stable Diffusion pipeline and the parallel one of diffusers, around the same networks."""
    given = _pipelines.STABLE["sd-ddim"]()[0]
    torch.manual_seed(0)
    parts = {
        "vae": given.vae,
        "unet": UNet2DConditionModel.from_config(given.unet.config, out_channels=channels).eval(),
        "text_encoder": None,
        "tokenizer": None,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    found = []
    for kind in (StableDiffusionPipeline, StableDiffusionParadigmsPipeline):
        pipe = kind(scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), **parts)
        pipe.scheduler = scheduler  # late: constructors overrule clip_sample and steps_offset
        pipe.set_progress_bar_config(disable=True)
        found.append(pipe)
    return found


def draw(pipe, steps=10, rows=1, **options):
    prompts = {"prompt_embeds": normal(rows, 4, 8, seed=4)}
    if options.get("guidance_scale", 7.5) > 1:
        prompts["negative_prompt_embeds"] = normal(rows, 4, 8, seed=5)
    if "timesteps" not in options:
        prompts["num_inference_steps"] = steps
    settings = {"height": 8, "width": 8, "output_type": "latent", **prompts, **options}
    return pipe(generator=torch.Generator().manual_seed(1), **settings).images


def assert_ours_is_the_pipeline(pipe, plain, **options):
    """Bit by bit where every call is evaluated alone; in fewer rounds, to the noise of batching, where not."""
    assert bool(plain.isfinite().all())
    with pd.parallelize(pipe, tol=0.0, single=True, strict=True, window=8) as running:
        assert torch.equal(draw(pipe, **options), plain)
    assert running.stats.fallback is None
    with pd.parallelize(pipe, tol=1e-5, strict=True, window=8) as running:
        assert relative(draw(pipe, **options), plain) < 1e-4
    assert running.stats.rounds < running.stats.calls


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_1_the_last_step_goes_to_the_final_level(spacing, predicts):
    scheduler = DDIMParallelScheduler(
        1000, clip_sample=False, set_alpha_to_one=False, timestep_spacing=spacing, prediction_type=predicts
    )
    scheduler.set_timesteps(20)
    state, output = normal(1, 64), normal(1, 64, seed=4)
    scalar = torch.cat([scheduler.step(output, t, state).prev_sample for t in scheduler.timesteps])
    batched = scheduler.batch_step_no_noise(output.expand(20, -1), scheduler.timesteps, state.expand(20, -1))
    assert relative(batched[:-1], scalar[:-1]) < 1e-6
    assert relative(batched[-1], scalar[-1]) > 8e-3, FIXED  # it goes to 1 whatever is asked for
    assert_ours_is_the_loop(scheduler)


def test_1_the_last_step_of_a_whole_pipeline_goes_to_the_final_level():
    pipe, theirs = pipes_of(DDIMParallelScheduler(set_alpha_to_one=False, steps_offset=1, **LATENT))
    plain = draw(pipe)
    assert relative(draw(theirs, parallel=10, tolerance=1e-7), plain) > 5e-4, FIXED
    assert_ours_is_the_pipeline(pipe, plain)


def listed_ddpm(spacing, steps):
    """A scheduler whose next time is the next of its list: uneven for custom lists."""
    even = "leading" if spacing == "custom" else spacing
    scheduler = DDPMParallelScheduler(1000, clip_sample=False, timestep_spacing=even)
    if spacing != "custom":
        scheduler.set_timesteps(steps)
        return scheduler
    times = (
        np.round(1 + 990 * np.linspace(0, 1, steps) ** 1.5).astype(int) if steps < 999 else np.delete(range(1000), 500)
    )
    assert len(set(times.tolist())) == steps
    scheduler.set_timesteps(timesteps=times[::-1].tolist())
    return scheduler


@pytest.mark.parametrize("steps", [7, 13, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (50, 60, 999))])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "custom"])
def test_2_ddpm_steps_go_to_the_next_listed_time(spacing, steps):
    scheduler = listed_ddpm(spacing, steps)
    state, output = normal(1, 64), normal(1, 64, seed=4)
    expected = torch.cat([noise_free(scheduler, t, output, state)[0] for t in scheduler.timesteps])
    theirs = scheduler.batch_step_no_noise(output.expand(steps, -1), scheduler.timesteps, state.expand(steps, -1))
    worst = max(relative(one, other) for one, other in zip(theirs, expected, strict=True))
    if (spacing, steps) in STRIDE_RIGHT:
        assert worst < 1e-5  # the stride is that of the list
    else:
        assert worst > 0.5 * STRIDE_ERROR[spacing, steps], FIXED
    assert_ours_is_the_loop(scheduler, window=8 if steps < 999 else 0)


def test_2_a_custom_list_is_read_off_the_scheduler():
    table = pd.Probed(listed_ddpm("custom", 7)).table()
    assert table.nodes == 7


@pytest.mark.parametrize(
    ("spacing", "steps", "error"),
    [
        ("linspace", 13, 1e-1),
        pytest.param("linspace", 50, 2e-2, marks=pytest.mark.slow),
        pytest.param("trailing", 60, 5e-2, marks=pytest.mark.slow),
    ],
)
def test_2_ddpm_pipelines_go_to_the_next_listed_time(spacing, steps, error):
    pipe, theirs = pipes_of(DDPMParallelScheduler(timestep_spacing=spacing, **LATENT))
    plain = draw(pipe, steps)
    assert relative(draw(theirs, steps, parallel=steps, tolerance=1e-7), plain) > error, FIXED
    assert_ours_is_the_pipeline(pipe, plain, steps=steps)


def test_2_a_pipeline_goes_through_a_custom_list_of_times():
    """Their pipeline cannot be given one."""
    pipe, theirs = pipes_of(DDPMParallelScheduler(**LATENT))
    times = [999, 970, 700, 650, 400, 100, 30, 3]
    assert isinstance(error_of(lambda: draw(theirs, timesteps=times)), TypeError), FIXED
    assert_ours_is_the_pipeline(pipe, draw(pipe, timesteps=times), timesteps=times)


@pytest.mark.parametrize("steps", [7, 13, 50, 60, pytest.param(999, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_2_ddim_steps_go_to_the_next_listed_time(spacing, steps):
    """Here the scalar step of diffusers has the fault too: who replays or probes it keeps it; ``pd.DDIM`` is right."""
    schedulers = [
        kind(1000, clip_sample=False, timestep_spacing=spacing) for kind in (DDIMScheduler, DDIMParallelScheduler)
    ]
    for scheduler in schedulers:
        scheduler.set_timesteps(steps)
    state, output = normal(1, 64).double(), normal(1, 64, seed=4).double()
    times = [*scheduler.timesteps.tolist(), -1]
    levels = [*scheduler.alphas_cumprod.double()[times[:-1]].tolist(), 1.0]

    def exact(step, output, state):
        now, after = levels[step], levels[step + 1]
        data = (state - (1 - now) ** 0.5 * output) / now**0.5
        return after**0.5 * data + (1 - after) ** 0.5 * output

    expected = torch.cat([exact(step, output, state) for step in range(steps)])
    batched = scheduler.batch_step_no_noise(output.expand(steps, -1), scheduler.timesteps, state.expand(steps, -1))
    scalar = torch.cat([schedulers[0].step(output, t, state).prev_sample for t in scheduler.timesteps])
    for theirs in (batched, scalar):
        worst = max(relative(one, other) for one, other in zip(theirs, expected, strict=True))
        if (spacing, steps) in STRIDE_RIGHT:
            assert worst < 1e-5
        else:
            assert worst > 1e-3, FIXED

    net = Net().double()
    plain = start = normal(2, 6).double()
    for step in range(steps):
        plain = exact(step, net(plain, times[step]), plain)
    schedule = pd.Discrete(scheduler.alphas_cumprod.double().tolist())
    model = pd.denoiser(net, predicts="noise", schedule=schedule)
    found = pd.sample(
        model, (2, 6), sampler=pd.DDIM(), times=times, start=start, dtype=torch.float64, window=pd.Sliding(16), tol=0.0
    )
    assert found.converged
    assert relative(found.samples, plain) < 1e-9


@pytest.mark.parametrize(
    ("variance", "error"),
    [pytest.param("fixed_small", 0.0, marks=pytest.mark.slow), ("fixed_small_log", 4e-2), ("fixed_large", 1e-3)],
)
def test_3_the_noise_of_every_variance_type_has_its_own_size(variance, error):
    """Two square roots for ``fixed_small_log``; noise in the last step, where there is none, for ``fixed_large``."""
    pipe, theirs = pipes_of(DDPMParallelScheduler(variance_type=variance, **LATENT))
    plain = draw(pipe)
    found = relative(draw(theirs, parallel=10, tolerance=1e-7), plain)
    if error:
        assert found > error, FIXED
    else:
        assert found < 1e-5
    assert_ours_is_the_pipeline(pipe, plain)
    scheduler = DDPMParallelScheduler(1000, clip_sample=False, variance_type=variance)
    scheduler.set_timesteps(10)
    assert_ours_is_the_loop(scheduler)
    table = pd.Probed(scheduler).table()
    for row, t in enumerate(scheduler.timesteps, start=1):
        _, weight = noise_free(scheduler, t, normal(1, 64), normal(1, 64, seed=4))
        assert float(table.c[row].sum()) == pytest.approx(weight, rel=1e-4, abs=1e-6)
    assert not table.c[-1].any()


def test_3_a_generator_made_inside_the_program_gives_its_noise_too():
    """Nobody can name it in ``generators``: its noise must be right, or the program refused."""
    scheduler, net = listed_ddpm("leading", 10), Net()

    def program():
        return loop(scheduler, net, torch.Generator())()

    try:
        found, _ = pd.replay(program, {"net": net}, objects=[scheduler], tol=0.0, single=True, strict=True, window=4)
    except pd.Refused:
        return
    assert torch.equal(found, program())


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_4_learned_variances_are_replayed_exactly_or_refused_by_name(variance):
    pipe, theirs = pipes_of(DDPMParallelScheduler(variance_type=variance, **LATENT), channels=8)
    with torch.no_grad():  # "learned" takes the root of these channels: positive in the plain run
        pipe.unet.conv_out.weight[4:] *= 0.1
        pipe.unet.conv_out.bias[4:] = 0.5
    plain = draw(pipe)
    assert "unsupported operand" in str(error_of(lambda: draw(theirs))), FIXED
    with pytest.raises(pd.NotAffineError, match=rf"found DDPMParallelScheduler with variance_type='{variance}'"):
        pd.Probed(pipe.scheduler).table()
    assert_ours_is_the_pipeline(pipe, plain)


_PAIRS = [(1, 1), (1, 4), (5, 2), (5, 16)]
_SLOW_PAIRS = [(steps, window) for steps in (2, 10, 11) for window in (1, 2, 3, 4, 10, 16)]


@pytest.mark.parametrize(
    ("steps", "window"), [*_PAIRS, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in _SLOW_PAIRS)]
)
def test_5_callbacks_come_once_a_step_in_order_for_every_pair_of_steps_and_window(steps, window):
    pipe, theirs = pipes_of(DDIMParallelScheduler(steps_offset=1, **LATENT))
    if steps > 1:  # the window is indexed by the position in the whole chain
        found = error_of(lambda: draw(theirs, steps, parallel=window, tolerance=1e-3, callback=lambda *_: None))
        assert isinstance(found, IndexError), FIXED
    seen = []

    def callback(_own, step, timestep, values):
        seen.append((step, int(timestep), values["latents"].clone()))
        return values

    plain_result = draw(pipe, steps, callback_on_step_end=callback)
    plain, seen = seen, []
    with pd.parallelize(pipe, tol=0.0, single=True, strict=True, window=window):
        assert torch.equal(draw(pipe, steps, callback_on_step_end=callback), plain_result)
    assert [each[:2] for each in seen] == list(enumerate(pipe.scheduler.timesteps.tolist()))
    assert all(torch.equal(mine[2], theirs[2]) for mine, theirs in zip(seen, plain, strict=True))


def test_5_the_deprecated_callback_comes_once_a_step_too():
    pipe, _ = pipes_of(DDIMParallelScheduler(steps_offset=1, **LATENT))
    seen = []
    with pd.parallelize(pipe, tol=0.0, single=True, strict=True, window=3):
        draw(pipe, 6, callback=lambda step, *_: seen.append(step), callback_steps=1)
    assert seen == list(range(6))


class Spoiled(nn.Module):
    """A network that says NaN in one entry of its batch, in one round."""

    def __init__(self, unet, round_, entry):
        super().__init__()
        self.unet, self.round, self.entry, self.calls = unet, round_, entry, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        output = self.unet(*args, **kwargs)[0].clone()
        if self.calls == self.round:
            output[self.entry] = float("nan")
        return (output,)


@pytest.mark.parametrize("round_", [1, 2, 3])
@pytest.mark.parametrize("entry", [1, 7])
def test_6_a_bad_number_in_a_future_entry_passes_their_stop(round_, entry):
    pipe, theirs = pipes_of(DDIMParallelScheduler(steps_offset=1, **LATENT))
    assert bool(draw(pipe, 20, guidance_scale=1.0).isfinite().all())
    theirs.wrapped_unet = Spoiled(pipe.unet, round_, entry)  # one row is one step without guidance
    found = draw(theirs, 20, guidance_scale=1.0, parallel=8, tolerance=1e-3)
    assert theirs.wrapped_unet.calls >= round_
    assert not bool(found.isfinite().all()), FIXED


@pytest.mark.parametrize(("sampler", "tol"), [(pd.DDIM(), 1e-3), (pd.DDPM(), 0.0)], ids=["DDIM", "DDPM"])
def test_6_sampling_survives_a_bad_number_in_any_future_entry_or_says_so(tol, sampler):
    def solve(net, **options):
        model = pd.denoiser(net, predicts="noise", schedule=pd.Discrete.linear(1000))
        return pd.sample(model, (1, 6), sampler=sampler, steps=9, seed=1, **options)

    plain = solve(Net(), solver=pd.sequential()).samples
    clean = Net()
    solve(clean, tol=tol, window=pd.Sliding(5))
    assert max(map(len, clean.seen)) >= 5
    for call, times in enumerate(clean.seen):
        for entry in range(len(times)):
            found = solve(Net(spoiled=(call, entry)), tol=tol, window=pd.Sliding(5))
            right = relative(found.samples, plain) < 1e-5 + tol
            assert right or pd.Status.NON_FINITE in found.status, f"call {call}, entry {entry}"
            assert right or entry == 0, "only the front, which has exact arguments, may break"


def evaluations_of(**options):
    """Rows that a replayed loop asks for: those asked for again later, those that were right early; a spoiled run."""
    scheduler = DDIMParallelScheduler(1000, clip_sample=False)
    scheduler.set_timesteps(12)
    plain, clean = loop(scheduler, Net(), torch.Generator(), rows=1)(), Net()
    replayed(scheduler, clean, rows=1, **options)

    def right_or_said(call, entry):
        try:
            found, _ = replayed(scheduler, Net(spoiled=(call, entry)), rows=1, **options)
        except pd.Refused:
            return True
        return relative(found, plain) <= 10 * options["tol"]

    rows = [(call, entry, time) for call, times in enumerate(clean.seen) for entry, time in enumerate(times)]
    last = {time: number for number, (_, _, time) in enumerate(rows)}
    again = [(call, entry) for number, (call, entry, time) in enumerate(rows) if last[time] > number]
    # evaluated for the last time behind another call of a batch: its arguments were right before its turn came
    early = [(call, entry) for number, (call, entry, time) in enumerate(rows) if last[time] == number and entry > 0]
    return again, early, right_or_said


@pytest.mark.parametrize(
    "options",
    [{"tol": 0.0, "single": True, "window": 4}, {"tol": 1e-3, "window": 4}, {"tol": 1e-3, "window": 64}],
    ids=["bits", "window", "whole"],
)
def test_6_a_replayed_loop_survives_a_bad_number_in_an_entry_that_moves_on(options):
    again, _, right_or_said = evaluations_of(**options)
    assert len(again) >= 8
    assert [place for place in again if not right_or_said(*place)] == []


@pytest.mark.parametrize("window", [4, 64])
def test_6_a_replayed_loop_survives_a_bad_number_in_an_entry_that_is_there_already(window):
    _, early, right_or_said = evaluations_of(tol=1e-3, window=window)
    if len(early) < 4:
        pytest.fail("expected entries that are there before their turn")
    assert [place for place in early if not right_or_said(*place)] == []


class Bounded(Net):
    """A network that breaks where the plain run never goes: half precision does that."""

    limit = float("inf")
    largest = 0.0

    def forward(self, x, timestep):
        size = x.abs().amax(1, keepdim=True)
        self.largest = max(self.largest, float(size.nan_to_num().max()))
        return torch.where(size > self.limit, torch.nan, super().forward(x, timestep))


@pytest.mark.parametrize("options", [{"tol": 0.0, "single": True}, {"tol": 1e-3}], ids=["bits", "tolerance"])
def test_6_a_network_that_breaks_off_the_path_does_not_break_the_answer(options):
    scheduler = DDIMParallelScheduler(1000, clip_sample=False)
    scheduler.set_timesteps(12)
    net = Bounded()
    plain = loop(scheduler, net, torch.Generator())()
    net.limit, net.largest = net.largest * 1.01, 0.0
    found, _ = replayed(scheduler, net, window=64, **options)
    assert net.largest > net.limit, "expected speculation beyond the limit"
    assert relative(found, plain) <= 10 * options["tol"]


def test_6_a_pipeline_survives_a_bad_number_in_a_future_entry_that_moves_on():
    pipe, _ = pipes_of(DDIMParallelScheduler(steps_offset=1, **LATENT))
    plain, forward, spoiled = draw(pipe, 6), pipe.unet.forward, None
    asked = []  # round and time of each evaluation
    running = None

    def watched(sample, timestep, **options):
        output = forward(sample, timestep, **options)
        asked.append((running.stats.rounds, int(timestep)))
        return (output[0] * float("nan"),) if len(asked) - 1 == spoiled else output

    pipe.unet.forward = watched

    def run():
        nonlocal running
        asked.clear()
        with pd.parallelize(pipe, tol=0.0, single=True, strict=True, window=4) as running:
            return draw(pipe, 6)

    assert torch.equal(run(), plain)
    clean = list(asked)
    last = {time: number for number, (_, time) in enumerate(clean)}
    places = [
        number
        for number, (round_, time) in enumerate(clean)
        if number and clean[number - 1][0] == round_ and last[time] > number
    ]
    assert len(places) >= 4
    for spoiled in places[:: len(places) // 4]:
        assert torch.equal(run(), plain), f"evaluation {spoiled}"


class OneByOne(nn.Module):
    """A UNet that evaluates its rows one after the other: no rounding of a batch."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=True):
        rows = zip(sample[:, None], timestep[:, None], encoder_hidden_states[:, None], strict=True)
        return (torch.cat([self.unet(x, t, encoder_hidden_states=e).sample for x, t, e in rows]),)


@pytest.mark.parametrize("batched", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_7_a_sample_does_not_depend_on_its_batch_mates(batched):
    tol = 0.3
    scheduler = DDIMParallelScheduler(steps_offset=1, **LATENT)
    pipe, theirs = pipes_of(scheduler)
    latents = normal(3, 4, 8, 8, seed=6) * torch.tensor([1.0, 0.3, 3.0])[:, None, None, None]
    prompts = normal(3, 4, 8, seed=2)
    everybody = [0, 1, 2]

    def draw_of(pipe, chosen, **options):
        rows = {"latents": latents[chosen].clone(), "prompt_embeds": prompts[chosen]}
        return draw(pipe, 30, guidance_scale=1.0, **rows, **options)

    plain = draw_of(pipe, everybody)
    floor = max(relative(draw_of(pipe, [i])[0], plain[i]) for i in everybody)
    assert floor < 1e-6
    together = draw_of(theirs, everybody, parallel=8, tolerance=tol)
    alone = [draw_of(theirs, [i], parallel=8, tolerance=tol)[0] for i in everybody]
    assert max(relative(one, other) for one, other in zip(together, alone, strict=True)) > tol / 20, FIXED

    def solve(unet, chosen):
        model = pd.diffusers_denoiser(
            unet,
            predicts="noise",
            schedule=pd.Discrete(scheduler.alphas_cumprod.tolist()),
            variance=1.0,
            conditioning={"encoder_hidden_states": prompts[chosen]},
        )
        options = {"sampler": pd.Probed(scheduler), "window": pd.Sliding(8), "tol": tol}
        return pd.sample(model, (len(chosen), 4, 8, 8), start=latents[chosen], **options)

    unet, limit = (pipe.unet, 10 * floor) if batched else (OneByOne(pipe.unet), 0.0)
    together = solve(unet, everybody)
    assert together.converged
    assert len(set(together.stats.sample_rounds)) > 1, "expected fronts of their own"
    for i in everybody:
        assert relative(together.samples[i], plain[i]) < tol
        assert relative(solve(unet, [i]).samples[0], together.samples[i]) <= limit
