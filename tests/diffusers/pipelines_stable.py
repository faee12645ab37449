"""Tiny Stable Diffusion pipelines and their kin, with random weights, and one call of each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers as d
import numpy as np
import torch
from torch import Tensor

Call = Callable[[Any], np.ndarray]
Build = Callable[[], tuple[Any, Call]]

SIZE = 8  # pixels, and latents too: the autoencoder has one block
WIDTH = 8  # of the prompt embeddings
TOKENS = 4
STEPS = 8

_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_NO_TEXT = {"text_encoder": None, "tokenizer": None}
_NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
_SHAPE = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "cross_attention_dim": WIDTH,
    "layers_per_block": 1,
    "attention_head_dim": 4,
}
_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("UpBlock2D", "CrossAttnUpBlock2D")


def _unet(**changes: Any) -> d.UNet2DConditionModel:
    kind = {"sample_size": SIZE, "down_block_types": _DOWN, "up_block_types": _UP, **_SHAPE}
    return d.UNet2DConditionModel(**kind | changes).eval()


def _vae(blocks: int = 1) -> d.AutoencoderKL:
    return d.AutoencoderKL(
        block_out_channels=(8,) * blocks,
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
    ).eval()


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _prompts(rows: int = 1, negative: bool = True) -> dict[str, Tensor]:
    found = {"prompt_embeds": _normal(rows, TOKENS, WIDTH, seed=2)}
    return found | ({"negative_prompt_embeds": _normal(rows, TOKENS, WIDTH, seed=3)} if negative else {})


def _image(rows: int = 1, size: int = SIZE) -> Tensor:
    return torch.rand((rows, 3, size, size), generator=torch.Generator().manual_seed(4))


def _mask() -> Tensor:
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1.0
    return mask


def _generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _array(found: Any) -> np.ndarray:
    return found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)


def _calling(**kwargs: Any) -> Call:
    """A call with these arguments and a new generator; to latents unless told otherwise."""
    defaults = {"num_inference_steps": STEPS, "height": SIZE, "width": SIZE, "output_type": "latent"}
    arguments = {name: value for name, value in (defaults | kwargs).items() if value is not None}

    def call(pipe: Any) -> np.ndarray:
        generator = arguments.get("generator")
        found = pipe(**arguments | {"generator": generator() if generator else _generator()})
        return _array(found.images if "images" in found else found.frames)

    return call


def _finished(pipe: Any, scheduler: Any) -> Any:
    betas = _BETAS if "beta_start" in scheduler.config else {}
    # Set late: constructors of pipelines overrule clip_sample and steps_offset.
    pipe.scheduler = type(scheduler).from_config(scheduler.config, **betas)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _sd(scheduler: Callable[[], Any], **call: Any) -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.StableDiffusionPipeline(vae=_vae(), unet=_unet(), scheduler=d.DDIMScheduler(), **_NO_TEXT, **_NO_CHECKER)
    return _finished(pipe, scheduler()), _calling(**{"guidance_scale": 7.5} | _prompts() | call)


def _two_generators() -> list[torch.Generator]:
    return [_generator(1), _generator(2)]


def _ddim() -> Any:
    return d.DDIMScheduler(clip_sample=False, steps_offset=1)


def _img2img() -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.StableDiffusionImg2ImgPipeline(
        vae=_vae(), unet=_unet(), scheduler=d.DDIMScheduler(), **_NO_TEXT, **_NO_CHECKER
    )
    kind = {"num_inference_steps": 10, "height": None, "width": None, "output_type": "np"}
    return _finished(pipe, _ddim()), _calling(image=_image(), strength=0.8, **kind, **_prompts())


def _inpaint(channels: int) -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.StableDiffusionInpaintPipeline(
        vae=_vae(), unet=_unet(in_channels=channels), scheduler=d.DDIMScheduler(), **_NO_TEXT, **_NO_CHECKER
    )
    return _finished(pipe, _ddim()), _calling(image=_image(), mask_image=_mask(), output_type="np", **_prompts())


def _controlnet() -> tuple[Any, Call]:
    torch.manual_seed(0)
    control = d.ControlNetModel(
        down_block_types=_DOWN, conditioning_embedding_out_channels=(8,), only_cross_attention=False, **_SHAPE
    ).eval()
    for part in control.controlnet_down_blocks:  # zero as constructed, and then without any effect
        torch.nn.init.normal_(part.weight, std=0.3)
    torch.nn.init.normal_(control.controlnet_mid_block.weight, std=0.3)
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, std=0.3)
    pipe = d.StableDiffusionControlNetPipeline(
        vae=_vae(), unet=_unet(), controlnet=control, scheduler=d.DDIMScheduler(), **_NO_TEXT, **_NO_CHECKER
    )
    return _finished(pipe, _ddim()), _calling(image=_image(), output_type="np", **_prompts())


def _pag() -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.StableDiffusionPAGPipeline(
        vae=_vae(),
        unet=_unet(),
        scheduler=d.DDIMScheduler(),
        pag_applied_layers=["mid"],
        **_NO_TEXT,
        **_NO_CHECKER,
    )
    return _finished(pipe, _ddim()), _calling(pag_scale=3.0, **_prompts())


def _sdxl(rows: int, images: int, output_type: str) -> tuple[Any, Call]:
    torch.manual_seed(0)
    unet = _unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + WIDTH
    )
    pipe = d.StableDiffusionXLPipeline(
        vae=_vae(),
        unet=unet,
        scheduler=d.EulerDiscreteScheduler(),
        text_encoder_2=None,
        tokenizer_2=None,
        add_watermarker=False,
        **_NO_TEXT,
    )
    pooled = {
        "pooled_prompt_embeds": _normal(rows, WIDTH, seed=5),
        "negative_pooled_prompt_embeds": _normal(rows, WIDTH, seed=6),
    }
    call = _calling(num_images_per_prompt=images, output_type=output_type, **_prompts(rows), **pooled)
    return _finished(pipe, d.EulerDiscreteScheduler()), call


def _pix2pix() -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.StableDiffusionInstructPix2PixPipeline(
        vae=_vae(), unet=_unet(in_channels=8), scheduler=d.DDIMScheduler(), **_NO_TEXT, **_NO_CHECKER
    )
    call = _calling(image=_image(), image_guidance_scale=1.5, height=None, width=None, **_prompts())
    return _finished(pipe, d.EulerAncestralDiscreteScheduler()), call


def _consistency() -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.LatentConsistencyModelPipeline(
        vae=_vae(), unet=_unet(time_cond_proj_dim=8), scheduler=d.LCMScheduler(), **_NO_TEXT, **_NO_CHECKER
    )
    return _finished(pipe, d.LCMScheduler()), _calling(guidance_scale=8.5, **_prompts(negative=False))


def _panorama() -> tuple[Any, Call]:
    torch.manual_seed(0)
    pipe = d.StableDiffusionPanoramaPipeline(
        vae=_vae(4), unet=_unet(), scheduler=d.DDIMScheduler(), **_NO_TEXT, **_NO_CHECKER
    )
    # Views are 64 latents wide, 8 apart, and latents are an eighth of the pixels: two views here.
    return _finished(pipe, _ddim()), _calling(height=8 * SIZE, width=8 * 72, **_prompts())


def _animatediff() -> tuple[Any, Call]:
    torch.manual_seed(0)
    adapter = d.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2
    ).eval()
    pipe = d.AnimateDiffPipeline(
        vae=_vae(), unet=_unet(), motion_adapter=adapter, scheduler=d.DDIMScheduler(), **_NO_TEXT
    )
    pipe.unet.eval()
    return _finished(pipe, _ddim()), _calling(num_frames=3, **_prompts())


def _video() -> tuple[Any, Call]:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=8,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=32,
            intermediate_size=8,
            patch_size=16,
        )
    ).eval()
    unet = d.UNetSpatioTemporalConditionModel(
        sample_size=SIZE,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH,
        num_attention_heads=4,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=3 * 8,
    ).eval()
    vae = d.AutoencoderKLTemporalDecoder(
        block_out_channels=(32,), down_block_types=("DownEncoderBlock2D",), latent_channels=4
    ).eval()
    scheduler = partial(
        d.EulerDiscreteScheduler,
        prediction_type="v_prediction",
        timestep_type="continuous",
        sigma_min=0.002,
        sigma_max=700.0,
        use_karras_sigmas=True,
    )
    pipe = d.StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=encoder,
        unet=unet,
        scheduler=scheduler(),
        feature_extractor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )
    return _finished(pipe, scheduler()), _calling(image=_image(size=32), num_frames=2)


STABLE: dict[str, Build] = {
    "sd-ddim": partial(_sd, _ddim, output_type="np"),
    "sd-ddim-eta-batch": partial(_sd, _ddim, eta=1.0, generator=_two_generators, **_prompts(2)),
    "sd-ddim-clip": partial(_sd, partial(d.DDIMScheduler, clip_sample=True)),
    "sd-ddim-thresholding": partial(_sd, partial(d.DDIMScheduler, clip_sample=False, thresholding=True)),
    "sd-pndm-plms": partial(_sd, partial(d.PNDMScheduler, skip_prk_steps=True)),
    "sd-pndm-prk": partial(_sd, partial(d.PNDMScheduler, skip_prk_steps=False)),
    "sd-lms": partial(_sd, d.LMSDiscreteScheduler),
    "sd-euler": partial(_sd, d.EulerDiscreteScheduler),
    "sd-euler-ancestral": partial(_sd, d.EulerAncestralDiscreteScheduler),
    "sd-dpm++2m": partial(_sd, d.DPMSolverMultistepScheduler),
    "sd-dpm++2m-sde-karras": partial(
        _sd, partial(d.DPMSolverMultistepScheduler, algorithm_type="sde-dpmsolver++", use_karras_sigmas=True)
    ),
    "sd-dpm-singlestep": partial(_sd, d.DPMSolverSinglestepScheduler),
    "sd-dpm-sde": partial(_sd, partial(d.DPMSolverSDEScheduler, noise_sampler_seed=0)),
    "sd-unipc": partial(_sd, d.UniPCMultistepScheduler),
    "sd-deis": partial(_sd, d.DEISMultistepScheduler),
    "sd-heun": partial(_sd, d.HeunDiscreteScheduler),
    "sd-kdpm2": partial(_sd, d.KDPM2DiscreteScheduler),
    "sd-kdpm2-ancestral": partial(_sd, d.KDPM2AncestralDiscreteScheduler),
    "sd-sasolver": partial(_sd, d.SASolverScheduler),
    "sd-lcm": partial(_sd, d.LCMScheduler),
    "sd-tcd": partial(_sd, d.TCDScheduler, eta=0.3),
    "sd-ddpm": partial(_sd, partial(d.DDPMScheduler, clip_sample=False)),
    "sd-ipndm": partial(_sd, d.IPNDMScheduler),
    "sd-edm-euler": partial(_sd, d.EDMEulerScheduler),
    "sd-img2img": _img2img,
    "sd-inpaint-9": partial(_inpaint, 9),
    "sd-inpaint-4": partial(_inpaint, 4),
    "sd-controlnet": _controlnet,
    "sd-pag": _pag,
    "sdxl": partial(_sdxl, 1, 1, "np"),
    "sdxl-batch": partial(_sdxl, 2, 2, "latent"),
    "instruct-pix2pix": _pix2pix,
    "latent-consistency": _consistency,
    "panorama": _panorama,
    "animatediff": _animatediff,
    "stable-video": _video,
}
