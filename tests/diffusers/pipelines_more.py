"""More tiny pipelines with random weights: modular ones, old ones, sound beside pictures, and unusual ways to run one.

``MORE`` maps a name to a builder of a pipeline and its call; a call makes its own generator. ``REFUSED`` does so for
pipelines that cannot be replayed, with what the refusal says.
"""

import functools
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers as d
import numpy as np
import torch
from torch import Tensor, nn

Call = Callable[[Any], np.ndarray]
Build = Callable[[], tuple[Any, Call]]

_spec = importlib.util.spec_from_file_location("stable_for_more", Path(__file__).with_name("pipelines_stable.py"))
_stable = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_stable)
STABLE: dict[str, Build] = _stable.STABLE

STEPS = 8


def _generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(shape, generator=_generator(seed))


def _array(*found: Any) -> np.ndarray:
    """All results of a run, as one row of numbers."""
    parts = [each.detach().float().numpy() if isinstance(each, Tensor) else np.asarray(each) for each in found]
    return np.concatenate([np.ravel(part) for part in parts])


def _finished(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval()
    return pipe


def _vae() -> d.AutoencoderKL:
    return d.AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        shift_factor=0.1,
    )


def _sdxl_unet() -> d.UNet2DConditionModel:
    return d.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        cross_attention_dim=8,
        layers_per_block=1,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 8,
    )


def _modular(guider: Callable[[], Any]) -> tuple[Any, Call]:
    """The denoising blocks of modular SDXL, without its text encoders and its decoder."""
    from diffusers.modular_pipelines.stable_diffusion_xl import modular_blocks_stable_diffusion_xl as blocks

    torch.manual_seed(0)
    pipe = blocks.StableDiffusionXLCoreDenoiseStep().init_pipeline()
    pipe.update_components(unet=_sdxl_unet(), scheduler=d.EulerDiscreteScheduler(), guider=guider())

    def call(pipe: Any) -> np.ndarray:
        latents = pipe(
            prompt_embeds=_normal(1, 4, 8),
            negative_prompt_embeds=_normal(1, 4, 8, seed=3),
            pooled_prompt_embeds=_normal(1, 8, seed=5),
            negative_pooled_prompt_embeds=_normal(1, 8, seed=6),
            height=64,
            width=64,
            num_inference_steps=STEPS,
            generator=_generator(),
            output="latents",
        )
        return _array(latents)

    return _finished(pipe), call


def _cascade() -> tuple[Any, Call]:
    from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel

    torch.manual_seed(0)
    decoder = d.StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        timestep_ratio_embedding_dim=8,
        patch_size=2,
        conditioning_dim=16,
        block_out_channels=(16, 32),
        num_attention_heads=(-1, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1),
        up_blocks_repeat_mappers=(2, 2),
        block_types_per_layer=(
            ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
            ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
        ),
        clip_text_pooled_in_channels=16,
        effnet_in_channels=4,
        switch_level=None,
    )
    vqgan = PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=2, embed_dim=16)
    pipe = d.StableCascadeDecoderPipeline(
        decoder=decoder,
        tokenizer=None,
        text_encoder=None,
        scheduler=d.DDPMWuerstchenScheduler(),
        vqgan=vqgan,
        latent_dim_scale=4.0,
    )

    def call(pipe: Any) -> np.ndarray:
        found = pipe(
            image_embeddings=_normal(1, 4, 4, 4),
            prompt_embeds=_normal(1, 4, 16),
            prompt_embeds_pooled=_normal(1, 1, 16, seed=3),
            negative_prompt_embeds=_normal(1, 4, 16, seed=4),
            negative_prompt_embeds_pooled=_normal(1, 1, 16, seed=5),
            guidance_scale=2.0,
            num_inference_steps=STEPS,
            generator=_generator(),
            output_type="latent",
        )
        return _array(found.images)

    return _finished(pipe), call


def _unet2d() -> d.UNet2DModel:
    return d.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )


def _repaint() -> tuple[Any, Call]:
    """Which jumps back to more noise again and again, with a method of its scheduler that is no step."""
    torch.manual_seed(0)
    pipe = d.RePaintPipeline(_unet2d(), d.RePaintScheduler())

    def call(pipe: Any) -> np.ndarray:
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., :4] = 1.0
        image = torch.rand((1, 3, 8, 8), generator=_generator(4))
        settings = {"num_inference_steps": 6, "jump_length": 2, "jump_n_sample": 2, "eta": 1.0, "output_type": "np"}
        return _array(pipe(image=image, mask_image=mask, generator=_generator(), **settings).images)

    return _finished(pipe), call


def _score_sde() -> tuple[Any, Call]:
    """A predictor and a corrector, neither of which is called step."""
    torch.manual_seed(0)
    scheduler = d.ScoreSdeVeScheduler(sigma_max=10.0)
    pipe = d.ScoreSdeVePipeline(_unet2d(), scheduler)

    def call(pipe: Any) -> np.ndarray:
        return _array(pipe(batch_size=2, num_inference_steps=STEPS, generator=_generator(), output_type="np").images)

    return _finished(pipe), call


def _skip_layer() -> tuple[Any, Call]:
    """A third call in some of the steps, with other arguments, where a layer is left out."""
    torch.manual_seed(0)
    transformer = d.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    texts = {f"{kind}{number}": None for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3")}
    pipe = d.StableDiffusion3Pipeline(
        transformer=transformer, scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_vae(), **texts
    )

    def call(pipe: Any) -> np.ndarray:
        found = pipe(
            prompt_embeds=_normal(1, 8, 32),
            negative_prompt_embeds=_normal(1, 8, 32, seed=3),
            pooled_prompt_embeds=_normal(1, 64, seed=4),
            negative_pooled_prompt_embeds=_normal(1, 64, seed=5),
            height=8,
            width=8,
            num_inference_steps=STEPS,
            guidance_scale=5.0,
            skip_guidance_layers=[0],
            skip_layer_guidance_scale=2.8,
            skip_layer_guidance_start=0.1,
            skip_layer_guidance_stop=0.7,
            generator=_generator(),
            output_type="np",
        )
        return _array(found.images)

    return _finished(pipe), call


def _ltx2() -> tuple[Any, Call]:
    """Pictures and sound together: two schedulers, one of them unknown to the pipeline, three calls in each step."""
    from diffusers.pipelines.ltx2 import LTX2TextConnectors
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    torch.manual_seed(0)
    transformer = d.LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=16,
        rope_double_precision=False,
        rope_type="split",
    )
    connectors = LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=2,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=None,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None,
        connector_rope_base_seq_len=32,
        rope_theta=10000.0,
        rope_double_precision=False,
        causal_temporal_positioning=False,
        rope_type="split",
    )
    vae = d.AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        layers_per_block=(1,),
        decoder_layers_per_block=(1, 1),
        spatio_temporal_scaling=(True,),
        decoder_spatio_temporal_scaling=(True,),
        decoder_inject_noise=(False, False),
        downsample_type=("spatial",),
        upsample_residual=(False,),
        upsample_factor=(1,),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    audio_vae = d.AutoencoderKLLTX2Audio(
        base_channels=4,
        output_channels=2,
        ch_mult=(1,),
        num_res_blocks=1,
        attn_resolutions=None,
        in_channels=2,
        resolution=32,
        latent_channels=2,
        norm_type="pixel",
        causality_axis="height",
        dropout=0.0,
        mid_block_add_attention=False,
        sample_rate=16000,
        mel_hop_length=160,
        is_causal=True,
        mel_bins=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=8,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16000,
    )
    pipe = d.LTX2Pipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        audio_vae=audio_vae,
        text_encoder=None,
        tokenizer=None,
        connectors=connectors,
        transformer=transformer,
        vocoder=vocoder,
    )

    def call(pipe: Any) -> np.ndarray:
        found = pipe(
            prompt_embeds=_normal(1, 6, 32),
            prompt_attention_mask=torch.ones(1, 6, dtype=torch.long),
            negative_prompt_embeds=_normal(1, 6, 32, seed=3),
            negative_prompt_attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1]]),
            height=32,
            width=32,
            num_frames=5,
            frame_rate=25.0,
            num_inference_steps=6,
            guidance_scale=3.0,
            stg_scale=1.0,
            modality_scale=2.0,
            spatio_temporal_guidance_blocks=[1],
            generator=_generator(),
            output_type="np",
        )
        return _array(found.frames, found.audio)

    return _finished(pipe), call


def _helios() -> tuple[Any, Call]:
    """Chunk after chunk, each conditioned on those before, with a decoder in between."""
    torch.manual_seed(0)
    transformer = d.HeliosTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_dim=(4, 4, 4),
    )
    vae = d.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    scheduler = d.HeliosScheduler(stage_range=[0, 1], stages=1, use_dynamic_shifting=True)
    pipe = d.HeliosPipeline(None, None, vae, scheduler, transformer)

    def call(pipe: Any) -> np.ndarray:
        found = pipe(
            prompt_embeds=_normal(1, 8, 32),
            negative_prompt_embeds=_normal(1, 8, 32, seed=3),
            height=16,
            width=16,
            num_frames=10,
            num_latent_frames_per_chunk=3,
            num_inference_steps=5,
            guidance_scale=3.0,
            generator=_generator(),
            output_type="np",
        )
        return _array(found.frames)

    return _finished(pipe), call


def _stable_like(name: str, change: Callable[[Any], None]) -> tuple[Any, Call]:
    """A pipeline of the Stable Diffusion family, changed in some way."""
    pipe, call = STABLE[name]()
    change(pipe)
    return pipe, call


def _wrap_compiled(pipe: Any) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")


def _compile_in_place(pipe: Any) -> None:
    pipe.unet.compile(backend="eager")


def _hooked_by_accelerate(pipe: Any) -> None:
    from accelerate.hooks import ModelHook, add_hook_to_module

    add_hook_to_module(pipe.unet, ModelHook())


def _put_on_again(module: nn.Module) -> None:
    """Takes a hook off a network and puts another one on, by the attributes that accelerate uses."""
    if hasattr(module, "_old_forward"):
        module.forward = module._old_forward
    old = module._old_forward = module.forward
    module._hf_hook = object()
    module.forward = functools.wraps(old)(lambda *args, **kwargs: module._old_forward(*args, **kwargs))


def _offloaded_at_the_end(pipe: Any) -> None:
    """As with ``enable_model_cpu_offload``, the hooks of the networks are renewed at the end of each run."""
    _put_on_again(pipe.unet)
    pipe.maybe_free_model_hooks = lambda: _put_on_again(pipe.unet)


def _half() -> tuple[Any, Call]:
    """SDXL in bfloat16, where a batch differs from its rows by far more."""
    pipe, _ = STABLE["sdxl"]()
    pipe.to(torch.bfloat16)

    def half(*shape: int, seed: int) -> Tensor:
        return _normal(*shape, seed=seed).bfloat16()

    def call(pipe: Any) -> np.ndarray:
        found = pipe(
            prompt_embeds=half(1, 4, 8, seed=2),
            negative_prompt_embeds=half(1, 4, 8, seed=3),
            pooled_prompt_embeds=half(1, 8, seed=5),
            negative_pooled_prompt_embeds=half(1, 8, seed=6),
            height=8,
            width=8,
            num_inference_steps=STEPS,
            generator=_generator(),
            output_type="latent",
        )
        return _array(found.images)

    return pipe, call


def _inference_mode() -> tuple[Any, Call]:
    """Tensors made in inference mode do not count their changes."""
    pipe, call = STABLE["sd-ddim"]()
    return pipe, torch.inference_mode()(call)


def _weakened_guidance() -> tuple[Any, Call]:
    """Guidance is cut off half-way by a callback of diffusers: the batch gets smaller."""
    from diffusers.callbacks import SDXLCFGCutoffCallback

    pipe, call = STABLE["sdxl"]()
    cutoff = SDXLCFGCutoffCallback(cutoff_step_ratio=0.5)
    return pipe, lambda pipe: call(lambda **settings: pipe(**settings, callback_on_step_end=cutoff))


class Words:
    """A tokenizer of four tokens."""

    model_max_length = 4
    added_tokens_encoder: dict[str, int] = {}  # noqa: RUF012 - as transformers have it

    def __call__(self, texts: list[str] | str, **_settings: Any) -> Any:
        rows = [texts] if isinstance(texts, str) else texts
        found = torch.tensor([[1, len(row) % 7 + 2, 3, 0] for row in rows])
        return SimpleNamespace(input_ids=found, attention_mask=torch.ones_like(found))

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def with_words() -> tuple[Any, Call]:
    """Stable Diffusion with a text encoder, and a scheduler with a memory."""
    from transformers import CLIPTextConfig, CLIPTextModel

    pipe, _ = STABLE["sd-unipc"]()
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(1)
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=16, bos_token_id=0, eos_token_id=2, **shape)).eval()
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = d.StableDiffusionPipeline(
        vae=pipe.vae, unet=pipe.unet, scheduler=pipe.scheduler, text_encoder=encoder, tokenizer=Words(), **nothing
    )

    def call(pipe: Any, **more: Any) -> np.ndarray:
        settings = {"num_inference_steps": STEPS, "height": 8, "width": 8, "output_type": "np"}
        return _array(pipe("some words", **settings | {"generator": _generator()} | more).images)

    return _finished(pipe), call


class Scaled(nn.Module):
    """A layer with a strength, like an adapter's."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.strength = base, 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.strength


MORE: dict[str, Build] = {
    "modular-sdxl": partial(_modular, partial(d.ClassifierFreeGuidance, guidance_scale=5.0)),
    "modular-sdxl-momentum": partial(
        _modular, partial(d.AdaptiveProjectedGuidance, guidance_scale=5.0, adaptive_projected_guidance_momentum=-0.5)
    ),
    "stable-cascade": _cascade,
    "repaint": _repaint,
    "score-sde-ve": _score_sde,
    "sd3-skip-layer": _skip_layer,
    "ltx2": _ltx2,
    "helios": _helios,
    "sd-words": with_words,
    "compiled-wrapper": partial(_stable_like, "sd-ddim", _wrap_compiled),
    "compiled-in-place": partial(_stable_like, "sd-ddim", _compile_in_place),
    "accelerate-hook": partial(_stable_like, "sd-ddim", _hooked_by_accelerate),
    "offload-renewed": partial(_stable_like, "sd-euler", _offloaded_at_the_end),
    "sdxl-bfloat16": _half,
    "inference-mode": _inference_mode,
    "sdxl-cutoff": _weakened_guidance,
}


def _guided(kind: str, parts: dict[str, Any], **arguments: Any) -> tuple[Any, Call]:
    """A pipeline that looks into its network, or through it, while it runs."""
    torch.manual_seed(0)
    plain, _ = STABLE["sd-ddim"]()
    nothing = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    pipe = getattr(d, kind)(
        vae=plain.vae, unet=plain.unet, scheduler=plain.scheduler, requires_safety_checker=False, **nothing, **parts
    )
    settings = {"num_inference_steps": 4, "height": 8, "width": 8, "guidance_scale": 5.0, "output_type": "np"}
    embeddings = {"prompt_embeds": _normal(1, 4, 8), "negative_prompt_embeds": _normal(1, 4, 8, seed=3)}

    def call(pipe: Any) -> np.ndarray:
        return _array(pipe(**settings, **embeddings, **arguments, generator=_generator()).images)

    return _finished(pipe), call


def _skipping_guider() -> tuple[Any, Call]:
    """A guider that puts a hook on the network for every third call, and takes it off again."""
    layers = d.LayerSkipConfig(indices=[0], fqn="mid_block.attentions.0.transformer_blocks")
    settings = {"skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0, "skip_layer_config": layers}
    return _modular(partial(d.SkipLayerGuidance, guidance_scale=5.0, **settings))


def _perturbing_guider() -> tuple[Any, Call]:
    """The same with a hook that leaves out the scores of one attention."""
    layers = d.LayerSkipConfig(
        indices=[0],
        fqn="mid_block.attentions.0.transformer_blocks",
        skip_attention=False,
        skip_attention_scores=True,
        skip_ff=False,
    )
    settings = {"perturbed_guidance_start": 0.0, "perturbed_guidance_stop": 1.0, "perturbed_guidance_config": layers}
    return _modular(partial(d.PerturbedAttentionGuidance, guidance_scale=5.0, **settings))


def _keys_and_values() -> tuple[Any, Call]:
    """The first call hands out an object with keys and values, which all others are given and the program empties."""
    from PIL import Image

    torch.manual_seed(0)
    transformer = d.Flux2Transformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = d.AutoencoderKLFlux2(
        block_out_channels=(8,),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1,
        mid_block_add_attention=False,
    )
    scheduler = d.FlowMatchEulerDiscreteScheduler()
    pipe = d.Flux2KleinKVPipeline(
        scheduler=scheduler, vae=vae, text_encoder=None, tokenizer=None, transformer=transformer
    )
    picture = Image.fromarray((np.random.default_rng(0).random((64, 64, 3)) * 255).astype(np.uint8))

    def call(pipe: Any) -> np.ndarray:
        settings = {"num_inference_steps": 6, "height": 16, "width": 16, "output_type": "latent"}
        return _array(pipe([picture], prompt_embeds=_normal(1, 4, 16), generator=_generator(), **settings).images)

    return _finished(pipe), call


def _step_cache() -> tuple[Any, Call]:
    """A network that skips most of itself where its first block changes little from step to step."""
    torch.manual_seed(0)
    transformer = d.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
    )
    texts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = d.FluxPipeline(scheduler=d.FlowMatchEulerDiscreteScheduler(), vae=None, transformer=transformer, **texts)
    pipe.transformer.enable_cache(d.FirstBlockCacheConfig(threshold=0.1))

    def call(pipe: Any) -> np.ndarray:
        settings = {"num_inference_steps": 6, "height": 16, "width": 16, "output_type": "latent"}
        embeddings = {"prompt_embeds": _normal(1, 8, 32), "pooled_prompt_embeds": _normal(1, 32, seed=3)}
        return _array(pipe(**settings, **embeddings, generator=_generator()).images)

    return _finished(pipe), call


REFUSED: dict[str, tuple[Build, str]] = {
    "self-attention-guidance": (
        partial(_guided, "StableDiffusionSAGPipeline", {"image_encoder": None}, sag_scale=0.75),
        "expected no hooks to be set on the networks while the program runs.*run the program plainly",
    ),
    "attend-and-excite": (
        partial(
            _guided,
            "StableDiffusionAttendAndExcitePipeline",
            {},
            prompt=None,
            token_indices=[1, 2],
            attn_res=(8, 8),
            max_iter_to_alter=2,
            thresholds={},
        ),
        "expected (attention processors of diffusers.models|no gradients through unet)",
    ),
    "pix2pix-zero": (
        partial(
            _guided,
            "StableDiffusionPix2PixZeroPipeline",
            {"inverse_scheduler": None, "caption_generator": None, "caption_processor": None},
            source_embeds=_normal(1, 4, 8, seed=7),
            target_embeds=_normal(1, 4, 8, seed=8),
        ),
        "expected (attention processors of diffusers.models|no gradients through unet)",
    ),
    "skip-layer-guider": (
        _skipping_guider,
        "expected no hooks to be set on the networks while the program runs.*run the program plainly",
    ),
    "perturbed-attention-guider": (
        _perturbing_guider,
        "expected no hooks to be set on the networks while the program runs.*run the program plainly",
    ),
    "keys-and-values": (_keys_and_values, "expected call 2 of transformer to be answered by itself"),
    "first-block-cache": (_step_cache, r"without a step cache, found one: call disable_cache\(\)"),
}
