"""Networks through the adapters equal the networks called by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor, nn

from paradrift.adapters import denoiser, diffusers_denoiser, edm_denoiser, edm_network, from_scheduler
from paradrift.denoisers import Clipped, Guided, Reform
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.pretrained import pretrained
from paradrift.schedules import EDM, VP, Discrete, Flow

SAMPLE = torch.tensor([1, 0, 1])


class Net(nn.Module):
    """A network of state, time and label."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.labels = nn.Embedding(4, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor, shift: Tensor) -> Tensor:
        self.seen += [x, t, shift]
        return self.linear(x + self.labels(y) + shift) * torch.cos(t.float()).to(x.dtype)[:, None]


ENTRIES = {"y": torch.tensor([3, 1]), "shift": torch.tensor([[0.5, -0.5, 0.0]])}


def test_a_module_is_called_with_its_rows() -> None:
    net, x, t = Net(), torch.randn(3, 3), torch.rand(3, dtype=torch.float64)
    model = denoiser(net, predicts="noise", schedule=VP(), conditioning=ENTRIES, variance=2.0)
    expected = net(x, t.float(), torch.tensor([1, 3, 1]), ENTRIES["shift"].expand(3, 3))
    assert torch.equal(model(x, t, SAMPLE), expected)
    assert (model.form, model.schedule, model.variance, model.modules) == (Form.NOISE, VP(), 2.0, (net,))
    assert net.training
    assert expected.requires_grad


@pytest.mark.parametrize("form", list(Form))
def test_forms_are_named_by_their_value(form: Form) -> None:
    assert denoiser(Net(), predicts=form.value, schedule=VP()).form is form
    assert denoiser(Net(), predicts=form, schedule=VP()).form is form


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_module_sees_half_states_and_exact_times(dtype: torch.dtype) -> None:
    net, x, t = Net().to(dtype), torch.randn(3, 3), torch.tensor([0.9987, 0.9985, 0.1])
    found = denoiser(net, predicts="noise", schedule=VP(), conditioning=ENTRIES)(x, t, SAMPLE)
    assert found.dtype == torch.float32
    assert net.seen[0].dtype == net.seen[2].dtype == dtype
    assert torch.equal(net.seen[1], t)
    by_hand = net(x.to(dtype), t, torch.tensor([1, 3, 1]), ENTRIES["shift"].expand(3, 3).to(dtype))
    assert torch.equal(found, by_hand.float())


def test_discrete_times_are_whole() -> None:
    net, t = Net(), torch.tensor([998.9999, 0.0, 500.0001])
    denoiser(net, predicts="noise", schedule=Discrete.linear(), conditioning=ENTRIES)(torch.randn(3, 3), t, SAMPLE)
    assert torch.equal(net.seen[1], torch.tensor([999, 0, 500]))


def test_double_precision_goes_through() -> None:
    net, t = Net().double(), torch.rand(3, dtype=torch.float64)
    denoiser(net, predicts="v", schedule=VP(), conditioning=ENTRIES)(torch.randn(3, 3).double(), t, SAMPLE)
    assert torch.equal(net.seen[1], t)


# --- EDM


def test_edm_preconditioning_is_the_formula() -> None:
    net = nn.Linear(4, 4)

    def raw(x: Tensor, c_noise: Tensor) -> Tensor:
        return net(x) + c_noise[:, None]

    x, sigma = torch.randn(3, 4), torch.tensor([0.01, 1.5, 70.0], dtype=torch.float64)
    model = edm_network(raw, sigma_data=0.5)
    s = sigma.float()[:, None]
    norm = (s**2 + 0.25).sqrt()
    expected = 0.25 / norm**2 * x + s * 0.5 / norm * (net(x / norm) + s.log() / 4)
    torch.testing.assert_close(model(x, sigma, SAMPLE), expected)
    assert (model.form, model.schedule, model.variance) == (Form.DATA, EDM(), 0.25)


def test_the_perfect_raw_network_gives_the_perfect_denoiser() -> None:
    """For N(0, 1/4) data the best F is zero: c_skip alone is the posterior mean."""
    from paradrift.analytic import Gaussian

    model, exact = edm_network(lambda x, t: 0 * x, sigma_data=0.5), Gaussian([0.0, 0.0], 0.25, EDM())
    x, sigma = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0.01, 1.5, 70.0], dtype=torch.float64)
    torch.testing.assert_close(model(x, sigma, SAMPLE), exact(x, sigma))


def test_half_precision_stays_inside_the_preconditioning() -> None:
    net = nn.Linear(4, 4).half()
    nn.init.zeros_(net.weight)
    nn.init.zeros_(net.bias)
    model = edm_network(lambda x, t: net(x.half()), sigma_data=0.5)
    x, sigma = torch.randn(3, 4), torch.full((3,), 1e-3, dtype=torch.float64)
    torch.testing.assert_close(model(x, sigma, SAMPLE), x / (1 + 4e-6), rtol=1e-6, atol=0)


def test_a_k_diffusion_denoiser_predicts_the_data() -> None:
    model = edm_denoiser(lambda x, sigma, y: x / (1 + sigma[:, None]) + y, conditioning={"y": torch.ones(1, 4)})
    x, sigma = torch.randn(3, 4), torch.tensor([0.1, 1.0, 10.0])
    assert torch.equal(model(x, sigma, SAMPLE), x / (1 + sigma[:, None]) + 1)
    torch.testing.assert_close(
        Reform(model, Form.NOISE)(x, sigma, SAMPLE), (x - model(x, sigma, SAMPLE)) / sigma[:, None]
    )


# --- diffusers


def _unet(**options: object) -> UNet2DModel:
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    return UNet2DModel(8, 1, 1, layers_per_block=1, norm_num_groups=4, **blocks, **options).eval()  # pyright: ignore[reportArgumentType]


def _dit(channels: int = 1) -> DiTTransformer2DModel:
    torch.manual_seed(1)
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=channels, num_layers=1, sample_size=8,
        patch_size=4, num_embeds_ada_norm=10, norm_type="ada_norm_zero",
    )  # fmt: skip
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    return model.eval()


X, T = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([999, 3, 500])


def test_an_unconditional_unet_equals_its_own_call() -> None:
    net = _unet()
    model = diffusers_denoiser(net, predicts="noise", schedule=Discrete.linear())
    with torch.no_grad():
        assert torch.equal(model(X, T.double(), SAMPLE), net(X, T).sample)
    assert model.modules == (net,)


def test_a_class_conditional_unet_equals_its_own_call() -> None:
    net = _unet(num_class_embeds=5)
    entries = {"class_labels": torch.tensor([4, 2])}
    model = diffusers_denoiser(net, predicts="noise", schedule=Discrete.linear(), conditioning=entries)
    with torch.no_grad():
        expected = net(X, T, class_labels=torch.tensor([2, 4, 2])).sample
        assert torch.equal(model(X, T.double(), SAMPLE), expected)


def test_a_text_conditional_unet_equals_its_own_call() -> None:
    net = UNet2DConditionModel(
        8, 1, 1, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None, block_out_channels=(8,), layers_per_block=1, norm_num_groups=4, cross_attention_dim=6,
        attention_head_dim=4, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=4 * 2 + 5,
    ).eval()  # fmt: skip
    text, null = torch.randn(2, 7, 6), torch.randn(1, 7, 6)
    added = {"text_embeds": torch.randn(2, 5), "time_ids": torch.tensor([[8.0, 8.0]])}
    model = diffusers_denoiser(
        net,
        predicts="noise",
        schedule=Discrete.linear(),
        conditioning={"encoder_hidden_states": text, "added_cond_kwargs": added},
        unconditional={"encoder_hidden_states": null},
    )
    rows = {"text_embeds": added["text_embeds"][SAMPLE], "time_ids": added["time_ids"].expand(3, 2)}
    with torch.no_grad():
        conditional = net(X, T, encoder_hidden_states=text[SAMPLE], added_cond_kwargs=rows).sample
        unconditional = net(X, T, encoder_hidden_states=null.expand(3, 7, 6), added_cond_kwargs=rows).sample
        assert torch.equal(model(X, T.double(), SAMPLE), conditional)
        guided = Guided(model, 3.0)(X, T.double(), SAMPLE)
    torch.testing.assert_close(guided, unconditional + 3 * (conditional - unconditional), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_dit_equals_its_own_call_and_drops_learned_variances(channels: int) -> None:
    net = _dit(channels)
    entries = {"class_labels": torch.tensor([4, 2])}
    model = diffusers_denoiser(net, predicts="v", schedule=Discrete.linear(), conditioning=entries)
    with torch.no_grad():
        expected = net(X, T, class_labels=torch.tensor([2, 4, 2])).sample
        found = model(X, T.double(), SAMPLE)
    assert expected.shape[1] == channels
    assert torch.equal(found, expected[:, :1])


def test_a_scheduler_tells_its_schedule_form_and_clipping() -> None:
    plain = from_scheduler(_unet(), DDPMScheduler(clip_sample=False, prediction_type="v_prediction"))
    assert plain.form is Form.V
    assert isinstance(plain.schedule, Discrete)
    assert plain.schedule.final == 1.0
    np.testing.assert_allclose(plain.schedule.alpha([0, 999]) ** 2, [0.9999, 4.0358e-5], rtol=1e-4)
    clipped = from_scheduler(_unet(), DDPMScheduler(clip_sample_range=2.0))
    assert isinstance(clipped, Clipped)
    assert (clipped.bound, clipped.quantile, clipped.denoiser.form) == (2.0, None, Form.NOISE)
    dynamic = from_scheduler(_unet(), DDPMScheduler(thresholding=True, sample_max_value=3.0))
    assert isinstance(dynamic, Clipped)
    assert (dynamic.bound, dynamic.quantile, dynamic.ceiling) == (1.0, 0.995, 3.0)
    kept = from_scheduler(_unet(), DDIMScheduler(clip_sample=False, set_alpha_to_one=False))
    assert isinstance(kept.schedule, Discrete)
    assert kept.schedule.final == next(iter(kept.schedule.alphas_cumprod)) < 1


def test_a_scheduler_clips_outside_guidance() -> None:
    entries = {
        "conditioning": {"class_labels": torch.tensor([1])},
        "unconditional": {"class_labels": torch.tensor([10])},
    }
    model = from_scheduler(_dit(), DDPMScheduler(prediction_type="sample"), guidance=2.0, **entries)
    bare = from_scheduler(_dit(), DDPMScheduler(prediction_type="sample", clip_sample=False), guidance=2.0, **entries)
    with torch.no_grad():
        expected = bare(X, T.double(), SAMPLE)
        assert float(expected.abs().max()) > 1
        assert torch.equal(model(X, T.double(), SAMPLE), expected.clamp(-1, 1))


# --- refusals


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: denoiser(Net(), predicts="epsilon", schedule=VP()),
            "expected predicts to be one of data, noise, v, flow, score, residual, value, found 'epsilon'",
        ),
        (lambda: denoiser(Net(), predicts="v", schedule=None), "expected a schedule for a network that predicts v"),
        (
            lambda: denoiser(
                Net(), predicts="v", schedule=VP(), conditioning={"y": torch.ones(3), "shift": torch.ones(2, 3)}
            ),
            "expected conditioning 'shift' with 1 entry or 3, one for each sample, found 2",
        ),
        (
            lambda: denoiser(Net(), predicts="v", schedule=VP(), conditioning={"y": 3}),
            "expected conditioning 'y' to be a tensor with one entry a sample, found int",
        ),
        (
            lambda: denoiser(
                Net(), predicts="v", schedule=VP(), conditioning=ENTRIES, unconditional={"z": torch.ones(1)}
            ),
            r"expected unconditional keywords among \['shift', 'y'\], found \['z'\]",
        ),
        (
            lambda: denoiser(
                Net(), predicts="v", schedule=VP(), conditioning=ENTRIES, unconditional={"shift": torch.ones(1, 2)}
            ),
            r"expected unconditional 'shift' entries of shape \(3,\), found \(2,\)",
        ),
        (
            lambda: denoiser(Net(), predicts="v", schedule=VP(), conditioning=ENTRIES)(X[:, 0, 0], T, SAMPLE + 3),
            "expected conditioning for sample 4, found 2 entries",
        ),
        (
            lambda: Guided(denoiser(Net(), predicts="v", schedule=VP(), conditioning=ENTRIES), 2.0)(
                torch.ones(3, 3), T, SAMPLE
            ),
            "expected unconditional entries for guidance, found none",
        ),
        (
            lambda: denoiser(lambda x, t: x[:, :1], predicts="v", schedule=VP())(torch.ones(3, 3), T, SAMPLE),
            r"expected an output of shape \(3, 3\), found \(3, 1\)",
        ),
        (
            lambda: denoiser(_unet(), predicts="v", schedule=VP())(X, T, SAMPLE),
            "expected the network to return a tensor, found UNet2DOutput: unwrap it in a function, or use diffusers_",
        ),
        (lambda: edm_network(Net(), sigma_data=0.0), "expected sigma_data > 0, found 0.0"),
        (
            lambda: diffusers_denoiser(Net(), predicts="v", schedule=VP()),
            r"expected a diffusers model whose forward takes .*, found Net\(x, t, y, shift\)",
        ),
        (
            lambda: diffusers_denoiser(_unet(), predicts="v", schedule=VP(), conditioning={"labels": torch.ones(1)}),
            r"expected conditioning among the arguments of UNet2DModel, found \['labels'\]",
        ),
        (
            lambda: from_scheduler(_unet(), FlowMatchEulerDiscreteScheduler()),
            "expected a scheduler with alphas_cumprod, found FlowMatchEulerDiscreteScheduler",
        ),
        (lambda: from_scheduler(_unet(), DDPMScheduler(), guidance=2.0), "expected unconditional entries for guidance"),
        (lambda: pretrained("letters"), "expected a model among digits, found 'letters'"),
        (lambda: pretrained(labels=[3, 12]), r"expected digits 0 to 9 as labels, one for each sample, found \[3, 12\]"),
    ],
)
def test_wrong_models_are_refused_in_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        make()  # pyright: ignore[reportCallIssue]


# --- the embedded model


def _folder(tmp_path: Path) -> Path:
    """A randomly initialised model of the embedded kind, in the embedded format."""
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=1, num_layers=1, sample_size=28,
        patch_size=7, num_embeds_ada_norm=10, norm_type="ada_norm_zero",
    )  # fmt: skip
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    model.half().save_pretrained(tmp_path)
    DDPMScheduler(prediction_type="v_prediction", clip_sample=False).save_pretrained(tmp_path / "scheduler")
    return tmp_path


def _check_digits(guidance: float) -> None:
    model = pretrained("digits", labels=[7, 2], guidance=guidance)
    assert isinstance(model, Guided)
    assert (model.form, model.variance) == (Form.V, 0.3797)
    net = model.modules[0]
    assert not net.training
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        conditional = net(x, T, class_labels=torch.tensor([2, 7, 2])).sample
        unconditional = net(x, T, class_labels=torch.full((3,), 10)).sample
        found = model(x, T.double(), SAMPLE)
    torch.testing.assert_close(found, unconditional + guidance * (conditional - unconditional), rtol=1e-4, atol=1e-4)


def test_a_folder_of_the_embedded_kind_becomes_a_guided_denoiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["paradrift.pretrained"].MODELS, "digits", _folder(tmp_path))
    _check_digits(3.0)
    bare = pretrained(guidance=None, dtype=torch.bfloat16)
    assert not isinstance(bare, Guided)
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert bare(x, T[:2].double(), torch.tensor([0, 999])).dtype == torch.float32


def test_the_embedded_model_loads_from_the_package() -> None:
    _check_digits(2.0)


def test_importing_the_package_imports_neither_diffusers_nor_matplotlib() -> None:
    script = "import sys, paradrift; assert not {'diffusers', 'matplotlib', 'typer', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_flow_models_are_models_like_others() -> None:
    net = denoiser(lambda x, t: x / t[:, None], predicts="flow", schedule=Flow())
    x, t = torch.randn(3, 2), torch.tensor([0.2, 0.5, 0.9])
    torch.testing.assert_close(Reform(net, Form.DATA)(x, t, SAMPLE), x - t[:, None] * net(x, t, SAMPLE))
