"""A small model that comes with the package: handwritten digits, for examples, tests and benchmarks on any machine.

``digits`` is a diffusers ``DiTTransformer2DModel`` in a diffusers folder: class-conditional, 28 x 28 pixels in one
channel scaled to [-1, 1], v-prediction on the linear schedule of DDPM, label 10 for no label. Its model card lies
beside its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from paradrift.adapters import from_scheduler
from paradrift.denoisers import Denoiser
from paradrift.errors import SpecError

MODELS = {"digits": Path(__file__).parent / "digits"}

# Variance of all pixels of MNIST's training pictures scaled to [-1, 1], about their common mean of -0.739.
DIGITS_VARIANCE = 0.3797
NO_LABEL = 10  # stands for no class, where guidance asks for none


def pretrained(
    name: str = "digits",
    *,
    labels: Sequence[int] | None = None,
    guidance: float | None = 2.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """An embedded model as a ready denoiser.

    Args:
        name: "digits", for states of shape (R, 1, 28, 28).
        labels: The digit of each sample; None: 0, 1, ..., 9 in turn, for up to 1000 samples.
        guidance: Scale of classifier-free guidance, which doubles the rows of each call; None: none.
        device: Where the model runs.
        dtype: Precision that it runs in; the weights are stored in float16.

    Returns:
        The denoiser, guided, in evaluation mode (as diffusers loads).

    Raises:
        SpecError: if there is no such model, or a label is no digit.
    """
    if name not in MODELS:
        raise SpecError(f"expected a model among {', '.join(MODELS)}, found {name!r}")
    digits = list(range(10)) * 100 if labels is None else [int(label) for label in labels]
    if not digits or not all(0 <= digit <= 9 for digit in digits):
        raise SpecError(f"expected digits 0 to 9 as labels, one for each sample, found {digits}")
    # Slow to import, and not needed by those who bring their own model.
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    folder = MODELS[name]
    model = DiTTransformer2DModel.from_pretrained(
        folder, torch_dtype=dtype, local_files_only=True, low_cpu_mem_usage=False
    )
    return from_scheduler(
        nn.Module.to(model, device),
        DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True),
        variance=DIGITS_VARIANCE,
        conditioning={"class_labels": torch.tensor(digits)},
        unconditional={"class_labels": torch.tensor([NO_LABEL])},
        guidance=guidance,
    )
