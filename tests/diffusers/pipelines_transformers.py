"""Tiny, randomly initialised pipelines of many families, each with a call that returns numbers.

Embeddings are given directly: no text encoders, no tokenizers. ``TRANSFORMERS`` maps a name to a builder of a pipeline
and its call; a call makes its own generator, so that calling twice does the same twice.
"""

from collections.abc import Callable
from typing import Any

import diffusers as d
import numpy as np
import torch

Call = Callable[[Any], np.ndarray]
Builder = Callable[[], tuple[Any, Call]]

TRANSFORMERS: dict[str, Builder] = {}


def _named(name: str) -> Callable[[Builder], Builder]:
    def keep(builder: Builder) -> Builder:
        def seeded() -> tuple[Any, Call]:
            torch.manual_seed(0)
            pipe, call = builder()
            pipe.set_progress_bar_config(disable=True)
            for part in pipe.components.values():
                if isinstance(part, torch.nn.Module):
                    part.eval()
            return pipe, call

        TRANSFORMERS[name] = seeded
        return builder

    return keep


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _normal(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _array(found: Any) -> np.ndarray:
    return found.detach().float().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)


def _call(result: str, **arguments: Any) -> Call:
    """A call with a generator of its own, whose result has a field of that name."""
    return lambda pipe: _array(getattr(pipe(generator=_generator(), **arguments), result))


def _vae(latent_channels: int = 4, blocks: int = 1) -> Any:
    return d.AutoencoderKL(
        block_out_channels=(8,) * blocks,
        norm_num_groups=4,
        latent_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _unet2d() -> Any:
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


@_named("ddpm")
def _ddpm():
    call = _call("images", batch_size=2, num_inference_steps=10, output_type="np")
    return d.DDPMPipeline(_unet2d(), d.DDPMScheduler(clip_sample=True)), call


@_named("ddim-eta1")
def _ddim():
    call = _call("images", batch_size=2, num_inference_steps=10, eta=1.0, output_type="np")
    return d.DDIMPipeline(_unet2d(), d.DDIMScheduler()), call


def _dit(scheduler: Any) -> tuple[Any, Call]:
    transformer = d.DiTTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    call = _call("images", class_labels=[1, 2], num_inference_steps=10, output_type="np")
    return d.DiTPipeline(transformer, _vae(), scheduler), call


@_named("dit-ddim")
def _dit_ddim():
    return _dit(d.DDIMScheduler(clip_sample=False))


@_named("dit-dpm")
def _dit_dpm():
    return _dit(d.DPMSolverMultistepScheduler())


def _flux(guidance: bool, **arguments: Any) -> tuple[Any, Call]:
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
        guidance_embeds=guidance,
    )
    pipe = d.FluxPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(1),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer,
    )
    call = _call(
        "images",
        prompt_embeds=_normal(1, 8, 32),
        pooled_prompt_embeds=_normal(1, 32, seed=3),
        height=8,
        width=8,
        num_inference_steps=8,
        output_type="np",
        **arguments,
    )
    return pipe, call


@_named("flux")
def _flux_guided():
    return _flux(True)


@_named("flux-true-cfg")
def _flux_true_cfg():
    return _flux(
        False,
        negative_prompt_embeds=_normal(1, 8, 32, seed=4),
        negative_pooled_prompt_embeds=_normal(1, 32, seed=5),
        true_cfg_scale=2.0,
    )


@_named("sd3")
def _sd3():
    transformer = d.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    pipe = d.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    call = _call(
        "images",
        prompt_embeds=_normal(2, 8, 32),
        negative_prompt_embeds=_normal(2, 8, 32, seed=3),
        pooled_prompt_embeds=_normal(2, 64, seed=4),
        negative_pooled_prompt_embeds=_normal(2, 64, seed=5),
        height=8,
        width=8,
        num_inference_steps=8,
        guidance_scale=5.0,
        output_type="np",
    )
    return pipe, call


@_named("pixart-sigma")
def _pixart_sigma():
    transformer = d.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=1,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        in_channels=4,
        cross_attention_dim=24,
        out_channels=8,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
    )
    pipe = d.PixArtSigmaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_vae(4),
        transformer=transformer,
        scheduler=d.DPMSolverMultistepScheduler(),
    )
    call = _call(
        "images",
        negative_prompt=None,
        prompt_embeds=_normal(1, 8, 32),
        prompt_attention_mask=torch.ones(1, 8, dtype=torch.long),
        negative_prompt_embeds=_normal(1, 8, 32, seed=3),
        negative_prompt_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]]),
        height=8,
        width=8,
        num_inference_steps=8,
        use_resolution_binning=False,
        output_type="np",
    )
    return pipe, call


@_named("sana")
def _sana():
    transformer = d.SanaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=32,
    )
    vae = d.AutoencoderDC(
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    scheduler = d.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
    )
    pipe = d.SanaPipeline(tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=scheduler)
    call = _call(
        "images",
        negative_prompt=None,
        prompt_embeds=_normal(1, 6, 8),
        prompt_attention_mask=torch.ones(1, 6, dtype=torch.long),
        negative_prompt_embeds=_normal(1, 6, 8, seed=3),
        negative_prompt_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0]]),
        height=32,
        width=32,
        num_inference_steps=8,
        use_resolution_binning=False,
        output_type="np",
    )
    return pipe, call


def _wan_transformer() -> Any:
    return d.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=32,
        freq_dim=64,
        ffn_dim=32,
        num_layers=1,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )


def _wan(scheduler: Any, **parts: Any) -> tuple[Any, Call]:
    vae = d.AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    pipe = d.WanPipeline(tokenizer=None, text_encoder=None, vae=vae, scheduler=scheduler, **parts)
    call = _call(
        "frames",
        prompt_embeds=_normal(1, 8, 32),
        negative_prompt_embeds=_normal(1, 8, 32, seed=3),
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("wan")
def _wan_one():
    scheduler = d.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return _wan(scheduler, transformer=_wan_transformer())


@_named("wan-two-transformers")
def _wan_two():
    return _wan(
        d.FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=_wan_transformer(),
        transformer_2=_wan_transformer(),
        boundary_ratio=0.875,
    )


def _cogvideox(scheduler: Any, size: int) -> tuple[Any, Call]:
    transformer = d.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=32,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )
    vae = d.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )
    pipe = d.CogVideoXPipeline(tokenizer=None, text_encoder=None, vae=vae, transformer=transformer, scheduler=scheduler)
    call = _call(
        "frames",
        prompt_embeds=_normal(1, 16, 32),
        negative_prompt_embeds=_normal(1, 16, 32, seed=3),
        height=size,
        width=size,
        num_frames=8,
        num_inference_steps=8,
        use_dynamic_cfg=True,
        output_type="np",
    )
    return pipe, call


_COGVIDEOX = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}


@_named("cogvideox-ddim")
def _cogvideox_ddim():
    return _cogvideox(d.CogVideoXDDIMScheduler(**_COGVIDEOX), 16)  # as many tokens as guidance halves


@_named("cogvideox-dpm")
def _cogvideox_dpm():
    return _cogvideox(d.CogVideoXDPMScheduler(**_COGVIDEOX), 32)


@_named("ltx")
def _ltx():
    transformer = d.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=32,
    )
    vae = d.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    pipe = d.LTXPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
    )
    call = _call(
        "frames",
        prompt_embeds=_normal(1, 8, 32),
        prompt_attention_mask=torch.ones(1, 8, dtype=torch.long),
        negative_prompt_embeds=_normal(1, 8, 32, seed=3),
        negative_prompt_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]]),
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("aura-flow")
def _aura_flow():
    transformer = d.AuraFlowTransformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        out_channels=4,
        pos_embed_max_size=256,
    )
    pipe = d.AuraFlowPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_vae(4),
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=1.73),
    )
    call = _call(
        "images",
        prompt_embeds=_normal(1, 8, 32),
        prompt_attention_mask=torch.ones(1, 8, dtype=torch.long),
        negative_prompt_embeds=_normal(1, 8, 32, seed=3),
        negative_prompt_attention_mask=torch.ones(1, 8, dtype=torch.long),
        height=8,
        width=8,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("lumina2")
def _lumina2():
    transformer = d.Lumina2Transformer2DModel(
        sample_size=4,
        patch_size=2,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(128, 64, 64),
        cap_feat_dim=8,
    )
    pipe = d.Lumina2Pipeline(
        transformer=transformer,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4),
        text_encoder=None,
        tokenizer=None,
    )
    call = _call(
        "images",
        prompt_embeds=_normal(1, 8, 8),
        prompt_attention_mask=torch.ones(1, 8, dtype=torch.bool),
        negative_prompt_embeds=_normal(1, 8, 8, seed=3),
        negative_prompt_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool),
        height=32,
        width=32,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("chroma")
def _chroma():
    transformer = d.ChromaTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=[4, 4, 8],
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    pipe = d.ChromaPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True),
        vae=_vae(1),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
    )
    call = _call(
        "images",
        prompt_embeds=_normal(1, 8, 32),
        prompt_attention_mask=torch.ones(1, 8, dtype=torch.bool),
        negative_prompt_embeds=_normal(1, 8, 32, seed=3),
        negative_prompt_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool),
        height=8,
        width=8,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("qwen-image")
def _qwen_image():
    transformer = d.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = d.AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    pipe = d.QwenImagePipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
    )
    call = _call(
        "images",
        prompt_embeds=_normal(1, 8, 16),
        prompt_embeds_mask=torch.ones(1, 8, dtype=torch.long),
        negative_prompt_embeds=_normal(1, 5, 16, seed=3),
        negative_prompt_embeds_mask=torch.ones(1, 5, dtype=torch.long),
        true_cfg_scale=2.0,
        height=32,
        width=32,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("hunyuan-video")
def _hunyuan_video():
    transformer = d.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    vae = d.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    pipe = d.HunyuanVideoPipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=None,
        tokenizer_2=None,
    )
    call = _call(
        "frames",
        prompt_embeds=_normal(1, 8, 16),
        pooled_prompt_embeds=_normal(1, 8, seed=3),
        prompt_attention_mask=torch.tensor([[1, 1, 1, 1, 1, 1, 0, 0]]),
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("mochi")
def _mochi():
    transformer = d.MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        qk_norm="rms_norm",
        text_embed_dim=32,
        time_embed_dim=4,
        max_sequence_length=16,
    )
    vae = d.AutoencoderKLMochi(
        latent_channels=12,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe = d.MochiPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
    )
    call = _call(
        "frames",
        prompt_embeds=_normal(1, 8, 32),
        prompt_attention_mask=torch.ones(1, 8, dtype=torch.bool),
        negative_prompt_embeds=_normal(1, 8, 32, seed=3),
        negative_prompt_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]], dtype=torch.bool),
        height=16,
        width=16,
        num_frames=7,
        num_inference_steps=8,
        output_type="latent",
    )
    return pipe, call


@_named("stable-audio")
def _stable_audio():
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    transformer = d.StableAudioDiTModel(
        sample_size=4,
        in_channels=3,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        out_channels=3,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    vae = d.AutoencoderOobleck(
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        decoder_channels=3,
        decoder_input_channels=3,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    )
    pipe = d.StableAudioPipeline(
        vae=vae,
        text_encoder=None,
        projection_model=StableAudioProjectionModel(text_encoder_dim=4, conditioning_dim=4, min_value=0, max_value=32),
        tokenizer=None,
        transformer=transformer,
        scheduler=d.CosineDPMSolverMultistepScheduler(
            solver_order=2, prediction_type="v_prediction", sigma_data=1.0, sigma_schedule="exponential"
        ),
    )
    call = _call(
        "audios",
        prompt_embeds=_normal(1, 6, 4),
        attention_mask=torch.ones(1, 6, dtype=torch.long),
        negative_prompt_embeds=_normal(1, 6, 4, seed=3),
        negative_attention_mask=torch.tensor([[1, 1, 1, 0, 0, 0]]),
        audio_end_in_s=1.5,
        num_inference_steps=8,
        output_type="pt",
    )
    return pipe, call


@_named("kandinsky22")
def _kandinsky22():
    unet = d.UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        norm_num_groups=8,
        layers_per_block=1,
        encoder_hid_dim=16,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=16,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )
    movq = d.VQModel(
        block_out_channels=[32, 64],
        down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        vq_embed_dim=4,
    )
    scheduler = d.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, variance_type="learned_range", clip_sample_range=2.0
    )
    call = _call(
        "images",
        image_embeds=_normal(1, 16),
        negative_image_embeds=_normal(1, 16, seed=3),
        height=32,
        width=32,
        num_inference_steps=8,
        output_type="np",
    )
    return d.KandinskyV22Pipeline(unet, scheduler, movq), call


@_named("deepfloyd-if")
def _deepfloyd_if():
    unet = d.UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=[32, 64],
        norm_num_groups=8,
        down_block_types=["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        in_channels=3,
        out_channels=6,
        cross_attention_dim=32,
        encoder_hid_dim=32,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    pipe = d.IFPipeline(
        tokenizer=None,
        text_encoder=None,
        unet=unet,
        scheduler=d.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            thresholding=True,
            dynamic_thresholding_ratio=0.95,
            sample_max_value=1.5,
            variance_type="learned_range",
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    call = _call(
        "images",
        prompt_embeds=_normal(1, 6, 32),
        negative_prompt_embeds=_normal(1, 6, 32, seed=3),
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call


@_named("consistency-model")
def _consistency_model():
    scheduler = d.CMStochasticIterativeScheduler(num_train_timesteps=40)
    call = _call("images", batch_size=2, num_inference_steps=8, output_type="np")
    return d.ConsistencyModelPipeline(_unet2d(), scheduler), call


@_named("z-image")
def _z_image():
    transformer = d.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(token, std=0.02)  # made without values
    pipe = d.ZImagePipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4, blocks=2),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
    )
    call = _call(
        "images",
        prompt_embeds=[_normal(7, 16)],
        negative_prompt_embeds=[_normal(5, 16, seed=3)],
        guidance_scale=3.0,
        height=16,
        width=16,
        num_inference_steps=8,
        output_type="np",
    )
    return pipe, call
