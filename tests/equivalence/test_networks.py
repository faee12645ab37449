"""Small networks: bitwise with one row per call, within the network's own batching noise otherwise; half precision."""

import dataclasses

import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DModel
from torch import nn

import paradrift as pd

SCHEDULE = pd.Discrete.linear(1000)


class Perceptron(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.out = nn.Linear(width, 8)

    def forward(self, x, t):
        time = t[:, None].to(x.dtype) / 1000
        return x + 0.3 * self.out(self.body(torch.cat([x, time, torch.cos(3 * time)], 1)))


def perceptron():
    return pd.denoiser(Perceptron(), predicts="noise", schedule=SCHEDULE), (8,)


def transformer():
    net = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=1,
        num_layers=2,
        sample_size=8,
        patch_size=4,
        num_embeds_ada_norm=1000,
        norm_num_groups=1,
        dropout=0.0,
    ).eval()
    for weight in net.parameters():  # the last layers of a fresh DiT are zero
        nn.init.normal_(weight, std=0.08) if weight.ndim > 1 else None
    labels = {"class_labels": torch.tensor([3, 1, 2])}
    return pd.diffusers_denoiser(net, predicts="noise", schedule=SCHEDULE, conditioning=labels), (1, 8, 8)


def convolutional():
    net = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    ).eval()
    return pd.diffusers_denoiser(net, predicts="noise", schedule=SCHEDULE), (1, 8, 8)


NETWORKS = [perceptron, transformer, convolutional]


def rms(difference):
    return difference.double().flatten(1).square().mean(1).sqrt()


def batching_noise(model, shape, rows):
    """Largest difference of an output evaluated alone and in a batch, over random rows, relative to their rms."""
    x, t = torch.randn(rows, *shape), torch.arange(0, 1000, 1000 // rows)[:rows].double()
    sample = torch.arange(rows) % 3
    with torch.inference_mode():
        together = model(x, t, sample)
        alone = torch.cat([model(x[i : i + 1], t[i : i + 1], sample[i : i + 1]) for i in range(rows)])
    return float(rms(together - alone).max() / together.square().mean().sqrt())


@pytest.mark.parametrize("build", NETWORKS)
def test_one_row_a_call_gives_the_sequential_answer_to_the_last_bit(build):
    model, shape = build()
    for sampler, window in ((pd.DDPM(), pd.Sliding(5)), (pd.DPMpp3M(short=0), pd.Blocks(3))):
        options = dict(sampler=sampler, steps=11, max_rows=1)
        theirs = pd.sample(model, (2, *shape), solver=pd.sequential(), **options)
        ours = pd.sample(model, (2, *shape), solver=pd.default(0.0, window, verify=0), **options)
        assert torch.equal(ours.samples, theirs.samples)


@pytest.mark.parametrize("build", NETWORKS)
def test_batched_calls_give_it_within_the_networks_own_batching_noise(build):
    """The noise is measured: the same rows alone and batched. Over a chain it may add up and be amplified:
    a hundred times it is allowed, and some roundings where batches happen to change nothing."""
    model, shape = build()
    noise = max(batching_noise(model, shape, rows) for rows in (3, 12, 18))
    assert noise < 1e-5
    options = dict(sampler=pd.DDPM(), steps=24)
    theirs = pd.sample(model, (3, *shape), solver=pd.sequential(), max_rows=1, **options)
    ours = pd.sample(model, (3, *shape), solver=pd.default(0.0, pd.Sliding(6)), **options)
    scale = float(theirs.samples.square().mean().sqrt())
    assert float(rms(ours.samples - theirs.samples).max()) <= 100 * max(noise, 2e-7) * scale
    assert ours.converged
    assert float(ours.error.max()) < 1e-3


@pytest.mark.parametrize("build", NETWORKS)
def test_with_a_tolerance_a_network_ends_within_three_times_it(build):
    model, shape = build()
    options = dict(sampler=pd.DDPM(), steps=60)
    theirs = pd.sample(model, (3, *shape), solver=pd.sequential(), **options)
    ours = pd.sample(model, (3, *shape), window=pd.Sliding(16), tol=1e-3, **options)
    unit = rms(theirs.samples)  # unknown to the model: v0 is the mean square of the sample's own data prediction
    assert bool((rms(ours.samples - theirs.samples) < 3e-3 * unit).all())
    assert ours.stats.rounds < 60


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_with_single_precision_states_beats_the_half_precision_loop(dtype):
    """Closer to the float32 answer than a sequential loop with half-precision states. All samples together need hardly
    more rounds at a tolerance that the model's own rounding leaves room for."""
    net = Perceptron()
    full = pd.denoiser(net, predicts="noise", schedule=SCHEDULE)
    options = dict(sampler=pd.DDIM(), steps=100, window=pd.Sliding(20))
    start = torch.randn(16, 8)
    exact = pd.sample(full, (16, 8), start=start, **(options | {"solver": pd.sequential(), "window": None}))
    every = {"solver": dataclasses.replace(pd.default(1e-1), nodes=pd.Every())}  # fewer nodes average less rounding
    whole = pd.sample(full, (16, 8), start=start, **options, **every)
    half = pd.denoiser(Perceptron().to(dtype), predicts="noise", schedule=SCHEDULE)
    half.net.load_state_dict(net.to(dtype).state_dict())
    wide = pd.sample(half, (16, 8), start=start, **options, **every)
    assert sum(wide.stats.sample_rounds) <= 1.5 * sum(whole.stats.sample_rounds)  # single samples may grow
    ours = pd.sample(half, (16, 8), start=start, tol=1e-2, **options)
    assert ours.samples.dtype == torch.float32

    state = start.to(dtype)
    times = list(range(990, -1, -10))
    with torch.inference_mode():
        for now, after in zip(times, [*times[1:], -1], strict=True):
            alpha, sigma = float(SCHEDULE.alpha(now)), float(SCHEDULE.sigma(now))
            noise = half.net(state, torch.full((16,), now))
            data = (state - sigma * noise) / alpha
            state = float(SCHEDULE.alpha(after)) * data + float(SCHEDULE.sigma(after)) * noise
    assert state.dtype == dtype
    error, loop = rms(ours.samples - exact.samples), rms(state.float() - exact.samples)
    assert float(error.mean()) < float(loop.mean())
    for width in (10, 80):
        other = pd.sample(half, (16, 8), start=start, tol=1e-2, **(options | {"window": pd.Sliding(width)}))
        assert float(rms(other.samples - exact.samples).mean()) < float(loop.mean())
