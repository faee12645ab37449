"""Pipelines of diffusers with tiny random networks, for ``--tiny``: nothing is downloaded, pictures are noise.

Everything that a real pipeline has is there, tokenizers and text encoders too, so that it is called the same way.
"""

from __future__ import annotations

import string

import diffusers as d
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

SIZE = 64  # pixels a side
_LATENTS = 8  # the same in latents
_WIDTH = 32  # of the text encoders
_TOKENS = 77  # the longest prompt of CLIP
_CHARACTERS = string.ascii_lowercase + string.digits + ".,!?'-"
_DOWN, _UP = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # those of Stable Diffusion
_UNET = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "cross_attention_dim": _WIDTH,
}


def text_to_image(kind: str) -> d.DiffusionPipeline:
    """A pipeline that takes a prompt.

    Args:
        kind: ``"sd"``, ``"sdxl"`` or ``"flux"``.

    Returns:
        The pipeline; its pictures have 64 pixels a side.
    """
    torch.manual_seed(0)
    return {"sd": _stable, "sdxl": _stable_xl, "flux": _flux}[kind]()


def class_conditional() -> d.DiTPipeline:
    """A pipeline that takes class labels."""
    torch.manual_seed(0)
    transformer = d.DiTTransformer2DModel(
        sample_size=_LATENTS,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=2,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
    )
    return d.DiTPipeline(transformer.eval(), _autoencoder(), d.DDIMScheduler(clip_sample=False))


def controlnet() -> d.ControlNetModel:
    """A ControlNet for the tiny Stable Diffusion."""
    torch.manual_seed(1)
    network = d.ControlNetModel(
        down_block_types=_DOWN, conditioning_embedding_out_channels=(8, 8, 8, 8), only_cross_attention=False, **_UNET
    )
    for part in network.controlnet_cond_embedding.modules():  # as they are, hardly anything of the picture gets through
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    for layer in [network.controlnet_mid_block, *network.controlnet_down_blocks]:  # zero before training: no effect
        torch.nn.init.normal_(layer.weight, std=0.3)
    return network.eval()


def video() -> d.WanPipeline:
    """A pipeline that takes a prompt and returns frames; height and width are multiples of 16."""
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=64, d_model=_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformer = d.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=_WIDTH,
        freq_dim=64,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    vae = d.AutoencoderKLWan(base_dim=8, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    scheduler = d.UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return d.WanPipeline(_words(), UMT5EncoderModel(config).eval(), vae.eval(), scheduler, transformer.eval())


def unet() -> d.UNet2DModel:
    """A network without any text, for pictures of 16 pixels a side."""
    torch.manual_seed(0)
    return d.UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()


def _stable() -> d.StableDiffusionPipeline:
    return d.StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(_clip()).eval(),
        tokenizer=_letters(),
        unet=d.UNet2DConditionModel(sample_size=_LATENTS, down_block_types=_DOWN, up_block_types=_UP, **_UNET).eval(),
        scheduler=d.DDIMScheduler(clip_sample=False, steps_offset=1, **_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _stable_xl() -> d.StableDiffusionXLPipeline:
    unet = d.UNet2DConditionModel(
        sample_size=_LATENTS,
        down_block_types=_DOWN,
        up_block_types=_UP,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
        **_UNET | {"cross_attention_dim": 2 * _WIDTH},
    )
    return d.StableDiffusionXLPipeline(
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(_clip()).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_clip()).eval(),
        tokenizer=_letters(),
        tokenizer_2=_letters(),
        unet=unet.eval(),
        scheduler=d.EulerDiscreteScheduler(**_BETAS),
        add_watermarker=False,
    )


def _flux() -> d.FluxPipeline:
    transformer = d.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_WIDTH,
        pooled_projection_dim=_WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    config = T5Config(vocab_size=64, d_model=_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return d.FluxPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_autoencoder(shift_factor=0.1),
        text_encoder=CLIPTextModel(_clip()).eval(),
        tokenizer=_letters(),
        text_encoder_2=T5EncoderModel(config).eval(),
        tokenizer_2=_words(),
        transformer=transformer.eval(),
    )


def _autoencoder(shift_factor: float | None = None) -> d.AutoencoderKL:
    return d.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        shift_factor=shift_factor,
        force_upcast=False,
    ).eval()


def _clip() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=128,
        hidden_size=_WIDTH,
        projection_dim=_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _letters() -> CLIPTokenizer:
    """A tokenizer of CLIP that knows letters only."""
    ends = [character + "</w>" for character in _CHARACTERS]
    entries = ["<|startoftext|>", "<|endoftext|>", *_CHARACTERS, *ends]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=_TOKENS)


def _words() -> T5TokenizerFast:
    """A tokenizer of T5 that knows letters only."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *_CHARACTERS]
    return T5TokenizerFast(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0, model_max_length=512)
