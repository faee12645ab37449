"""Replay of programs: exact where it should be, once where it should be once, refused where it cannot work."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel, EulerAncestralDiscreteScheduler
from torch import nn

import paradrift as pd

pytestmark = pytest.mark.filterwarnings("ignore:__array", "ignore::FutureWarning")


class Net(nn.Module):
    """A small smooth network of a state and a time."""

    def __init__(self, elements=6):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(elements + 1, 16), nn.Linear(16, elements)
        self.requires_grad_(False)
        self.calls, self.rows = 0, 0

    def forward(self, x, timestep):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, 1).expand(len(x), 1)
        return self.outer(torch.tanh(self.inner(torch.cat([x, t], 1))))


def loop(net, steps=20, rows=2, seed=1, noise=0.1):
    def program():
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, 6, generator=generator)
        for step in range(steps):
            x = x - 0.3 * net(x, torch.tensor(step / steps)) + noise * torch.randn(rows, 6, generator=generator)
        return x

    return program


@pytest.mark.parametrize("window", [1, 3, 64])
def test_at_tolerance_zero_a_loop_keeps_its_bits(window):
    net = Net()
    plain = loop(net)()
    found, stats = pd.replay(loop(net), {"net": net}, tol=0.0, single=True, window=window, strict=True)
    assert torch.equal(found, plain)
    assert stats.calls == 20
    assert stats.rounds <= stats.calls
    if window == 1:
        assert (stats.rounds, stats.evaluations, stats.executions) == (20, 20, 1)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_a_tolerance_saves_rounds(tol):
    net = Net()
    plain = loop(net)()
    found, stats = pd.replay(loop(net), {"net": net}, tol=tol, window=64, strict=True)
    assert stats.rounds <= (8 if tol == 1e-2 else 10)
    assert float((found - plain).abs().max()) < 10 * tol
    assert stats.unbatchable == ()


def test_secants_need_fewer_rounds_than_lookups():
    net = Net()
    rounds = [
        pd.replay(loop(net, 40), {"net": net}, tol=1e-4, window=64, secant=secant)[1].rounds for secant in (True, False)
    ]
    assert rounds[0] < rounds[1]


class ReadsOneTime(Net):
    """A network that reads the time of row 0 for all rows: concatenation is wrong, and must be found out."""

    def forward(self, x, timestep):
        return super().forward(x, torch.as_tensor(timestep).reshape(-1)[:1])


class MixesRows(Net):
    """A network whose rows depend on each other."""

    def forward(self, x, timestep):
        return super().forward(x - x.mean(0, keepdim=True), timestep)


@pytest.mark.parametrize("kind", [ReadsOneTime, MixesRows])
def test_a_wrong_way_of_batching_is_found_out(kind):
    net = kind()
    plain = loop(net)()
    found, stats = pd.replay(loop(net), {"net": net}, tol=1e-6, window=64, strict=True)
    assert float((found - plain).abs().max()) < 1e-4
    assert stats.unbatchable == ()  # vmap knows nothing of batches, and is right


class Tuples(Net):
    """Outputs in a structure, times as plain numbers."""

    def forward(self, x, timestep):
        return {"out": (super().forward(x, timestep), x.sum())}


def test_structures_and_numbers_go_through():
    net = Tuples()

    def program():
        x = torch.ones(2, 6)
        for step in range(12):
            x = x - 0.3 * net(x, timestep=step / 12)["out"][0]
        return x

    plain = program()
    found, stats = pd.replay(program, {"net": net}, tol=1e-6, window=64, strict=True)
    assert float((found - plain).abs().max()) < 1e-4
    exact, _ = pd.replay(program, {"net": net}, tol=0.0, single=True, window=16, strict=True)
    assert torch.equal(exact, plain)
    assert stats.calls == 12


class Remembers(Net):
    """A network with a state: two answers to one call."""

    def forward(self, x, timestep):
        return super().forward(x, timestep) + 0.1 * self.calls


def unseeded():
    source = np.random.default_rng(0)  # nobody can put this one back
    net = Net()

    def program():
        x = torch.ones(2, 6)
        for step in range(10):
            x = x - 0.3 * net(x, torch.tensor(step / 10)) + torch.from_numpy(source.normal(size=(2, 6))).float()
        return x

    return net, program


def hooked():
    net = Net()

    def program():
        x = torch.ones(2, 6)
        for step in range(10):
            handle = net.inner.register_forward_hook(lambda *_: None)
            x = x - 0.3 * net(x, torch.tensor(step / 10))
            handle.remove()
        return x

    return net, program


def with_gradients():
    net = Net()

    def program():
        x = torch.ones(2, 6, requires_grad=True)
        with torch.enable_grad():
            for step in range(5):
                x = x - 0.3 * net(x, torch.tensor(step / 5))
        return x.detach()

    return net, program


def test_an_error_from_a_speculative_value_is_not_the_programs():
    """The program checks its states; a first guess may break the check where the true values do not."""
    net = Net()
    plain, states = loop(net, noise=0.0)(), []

    def checked():
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 6, generator=generator)
        for step in range(20):
            x = x - 0.3 * net(x, torch.tensor(step / 20))
            states.append(x)
            if len(states) == 12:  # the first execution is speculating here
                raise ValueError("a state that should not be")
        return x

    found, stats = pd.replay(checked, {"net": net}, tol=0.0, single=True, window=64, strict=True)
    assert torch.equal(found, plain)
    assert stats.fallback is None


def test_an_error_of_the_programs_own_comes_out():
    net = Net()

    def failing():
        loop(net)()
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        pd.replay(failing, {"net": net}, window=64, strict=True)
    assert "forward" not in vars(net)


def test_lost_numbers_come_out_as_from_the_plain_run():
    net = Net()

    def program():
        x = torch.ones(2, 6)
        for step in range(8):
            x = x - 0.3 * net(x, torch.tensor(step / 8))
            x = x * float("nan") if step == 3 else x
        return x

    found, stats = pd.replay(program, {"net": net}, tol=1e-3, strict=True)
    assert bool(found.isnan().all())
    assert stats.rounds <= stats.calls


def stateful():
    net = Remembers()
    return net, loop(net)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (stateful, "expected net to be a function of its arguments, found two answers to one call"),
        (unseeded, "found others: the program draws from a source that is not put back"),
        (hooked, "expected no hooks to be set on the networks while the program runs"),
        (with_gradients, "found an argument that requires one: use no_grad"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_its_reason(make, sentence):
    net, program = make()
    with pytest.raises(pd.Refused, match=sentence):
        pd.replay(program, {"net": net}, strict=True)
    assert "forward" not in vars(net)
    net, program = make()
    with pytest.warns(UserWarning, match="paradrift runs this plainly"):
        _, stats = pd.replay(program, {"net": net})
    assert stats.fallback is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tol": -1.0}, "expected a tolerance of at least 0"),
        ({"window": 0}, "expected a window of at least 1 call"),
        ({"modules": {}}, "expected at least one network to replay"),
    ],
)
def test_bad_requests_get_one_sentence(options, sentence):
    net = Net()
    with pytest.raises(pd.SpecError, match=sentence):
        pd.replay(loop(net), **({"modules": {"net": net}} | options))


def dit(scheduler=None):
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    ).eval()
    vae = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    ).eval()
    pipe = DiTPipeline(model, vae, scheduler or DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, seed=1, **options):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    settings = {"class_labels": [1, 2], "num_inference_steps": 10, "output_type": "np"} | options
    return pipe(generator=generator, **settings).images


def test_the_decoder_runs_once(monkeypatch):
    pipe, seen = dit(), []
    decode = type(pipe.vae).decode
    monkeypatch.setattr(type(pipe.vae), "decode", lambda self, *a, **k: seen.append(1) or decode(self, *a, **k))
    with pd.parallelize(pipe, tol=1e-6, strict=True) as running:
        draw(pipe)
    assert running.stats.executions > 1
    assert len(seen) == 1


def test_global_randomness_ends_where_the_plain_run_leaves_it():
    pipe = dit(EulerAncestralDiscreteScheduler())
    torch.manual_seed(9)
    plain = draw(pipe, seed=None)
    expected = torch.get_rng_state()
    torch.manual_seed(9)
    with pd.parallelize(pipe, tol=0.0, single=True, window=16, strict=True):
        found = draw(pipe, seed=None)
    assert np.array_equal(found, plain)
    assert torch.equal(torch.get_rng_state(), expected)


def test_the_pipeline_is_as_before_also_after_an_exception():
    pipe = dit()
    draw(pipe)
    kind, before = type(pipe), {name: repr(value) for name, value in vars(pipe.scheduler).items()}
    config = dict(pipe._progress_bar_config)

    class Broken(Exception):
        pass

    def broken(*_args, **_kwargs):
        raise Broken

    decode, pipe.vae.decode = pipe.vae.decode, broken
    with pytest.raises(Broken), pd.parallelize(pipe, strict=True):
        draw(pipe, num_inference_steps=7)
    pipe.vae.decode = decode
    assert type(pipe) is kind
    assert {name: repr(value) for name, value in vars(pipe.scheduler).items()} == before
    assert pipe._progress_bar_config == config
    assert "forward" not in vars(pipe.transformer)
    assert "step" not in vars(pipe.scheduler)


def test_an_interrupt_leaves_the_pipeline_as_it_was(monkeypatch):
    pipe = dit()
    monkeypatch.setattr(pipe.vae, "decode", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), pd.parallelize(pipe, strict=True):
        draw(pipe)
    assert "forward" not in vars(pipe.transformer)
    assert type(pipe) is DiTPipeline


def test_a_step_cache_is_refused():
    pipe = dit()
    pipe.transformer.is_cache_enabled = True
    with pytest.raises(pd.Refused, match=r"without a step cache, found one: call disable_cache\(\)"):
        with pd.parallelize(pipe, strict=True):
            draw(pipe)
    with pytest.warns(UserWarning, match="runs this plainly"), pd.parallelize(pipe) as running:
        found = draw(pipe)
    pipe.transformer.is_cache_enabled = False
    assert np.array_equal(found, draw(pipe))
    assert "step cache" in running.stats.fallback


def test_a_pipeline_without_denoisers_is_named():
    pipe = dit()
    with pytest.raises(pd.SpecError, match=r"name the networks with only=\[\.\.\.\]"):
        with pd.parallelize(pipe, only=["missing"]):
            pass


def test_a_network_that_does_not_exist_is_named_beside_one_that_does():
    pipe = dit()
    with pytest.raises(pd.SpecError, match=r"found missing among transformer, vae: name the networks"):
        with pd.parallelize(pipe, only=["transformer", "missing"]):
            pass


def test_a_given_generator_ends_where_the_plain_run_leaves_it():
    pipe = dit(EulerAncestralDiscreteScheduler())
    settings = {"class_labels": [1, 2], "num_inference_steps": 10, "output_type": "np"}
    plain, replayed = (torch.Generator().manual_seed(5) for _ in range(2))
    torch.manual_seed(9)  # this pipeline draws its start from the generator, and the steps' noise from the global one
    expected = pipe(generator=plain, **settings).images
    torch.manual_seed(9)
    with pd.parallelize(pipe, tol=0.0, single=True, window=16, strict=True) as running:
        found = pipe(generator=replayed, **settings).images
    assert running.stats.executions > 1
    assert np.array_equal(found, expected)
    assert torch.equal(replayed.get_state(), plain.get_state())
