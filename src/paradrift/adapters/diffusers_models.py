"""Models of diffusers as denoisers.

Their forward takes the state and the timestep under names and at places of their own (``sample`` or ``hidden_states``;
``timestep``), the conditioning by keyword, and returns an object or a tuple. The names are read from the signature
once, when the adapter is made. Times go in as floating point: every such model embeds them as such.

This module does not import diffusers.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from paradrift.adapters.conditioning import Conditioning, Rows, Tree
from paradrift.adapters.modules import ModuleDenoiser, as_form
from paradrift.denoisers import Clipped, Denoiser, Guided
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import Discrete, Schedule

_STATES = ("sample", "hidden_states")
_TIMES = ("timestep", "timesteps")
_PREDICTIONS = {"epsilon": Form.NOISE, "sample": Form.DATA, "v_prediction": Form.V, "flow_prediction": Form.FLOW}


@dataclass(frozen=True, eq=False)
class _Call:
    """The call of one model, its argument names settled."""

    module: nn.Module
    state: str
    time: str

    def __call__(self, x: Tensor, t: Tensor, **conditioning: Tensor | Rows) -> Tensor:
        output = self.module(**{self.state: x, self.time: t}, return_dict=False, **conditioning)[0]
        learned_variance = output.ndim == x.ndim and output.shape[1] == 2 * x.shape[1]
        return output.chunk(2, dim=1)[0] if learned_variance else output


def diffusers_denoiser(
    model: nn.Module,
    *,
    predicts: Form | str,
    schedule: Schedule,
    variance: float | None = None,
    conditioning: Tree | None = None,
    unconditional: Tree | None = None,
) -> ModuleDenoiser:
    """A UNet or transformer of diffusers as a denoiser.

    Outputs with twice the channels of the state (learned variances) keep their first half.

    Args:
        model: Such as ``UNet2DModel``, ``UNet2DConditionModel``, ``DiTTransformer2DModel``.
        predicts: What it returns: a form or its name.
        schedule: The noise schedule that it was trained with.
        variance: Data variance per element; None: measured during the solve.
        conditioning: Keyword tensors of the model (``class_labels``, ``encoder_hidden_states``), with one entry for
            each sample, or one for all.
        unconditional: Keyword tensors of the unconditional model, for :class:`paradrift.denoisers.Guided`.

    Returns:
        The denoiser.

    Raises:
        SpecError: if the forward names no state, no timestep, or not every keyword; or the conditioning has the wrong
            length.
    """
    names = inspect.signature(model.forward).parameters
    state = next((name for name in _STATES if name in names), None)
    time = next((name for name in _TIMES if name in names), None)
    if state is None or time is None or "return_dict" not in names:
        raise SpecError(
            f"expected a diffusers model whose forward takes sample or hidden_states, timestep and return_dict, found "
            f"{type(model).__name__}({', '.join(names)}): wrap it with denoiser"
        )
    strange = sorted(set(conditioning or {}) - set(names))
    if strange:
        raise SpecError(f"expected conditioning among the arguments of {type(model).__name__}, found {strange}")
    return ModuleDenoiser(
        _Call(model, state, time),
        as_form(predicts),
        schedule,
        variance,
        Conditioning(conditioning, unconditional),
        owner=model,
    )


def from_scheduler(
    model: nn.Module,
    scheduler: Any,  # noqa: ANN401 - any scheduler of diffusers, which is not imported here
    *,
    variance: float | None = None,
    conditioning: Tree | None = None,
    unconditional: Tree | None = None,
    guidance: float | None = None,
) -> Denoiser:
    """A diffusers model with what its scheduler knows: the noise schedule, the prediction type, the clipping.

    Read are ``alphas_cumprod``, ``final_alpha_cumprod`` (1 where there is none, as DDPM steps to clean data),
    ``prediction_type``, and ``clip_sample`` or ``thresholding``, which wrap the guided model in
    :class:`paradrift.denoisers.Clipped`. A sampler that uses the data prediction alone (DDPM, DPM++) then equals the
    clipping scheduler. **DDIM's default does not**: it steps with a clipped data prediction beside an *unclipped* noise
    prediction, which no table can express; clipped DDIM here uses the noise that belongs to the clipped data, which
    diffusers calls ``use_clipped_model_output=True``.

    Args:
        model: The model, see :func:`diffusers_denoiser`.
        scheduler: A scheduler with ``alphas_cumprod``, as the pipeline holds it; it is read, not kept.
        variance: Data variance per element; None: measured during the solve.
        conditioning: Keyword tensors with one entry for each sample, or one for all.
        unconditional: Keyword tensors of the unconditional model.
        guidance: Scale of classifier-free guidance; None: the conditional model alone.

    Returns:
        The denoiser: the model, guided, clipped, as far as each applies.

    Raises:
        SpecError: if the scheduler has no ``alphas_cumprod`` or an unknown prediction type, or guidance lacks
            unconditional entries.
    """
    products = getattr(scheduler, "alphas_cumprod", None)
    if products is None:
        raise SpecError(
            f"expected a scheduler with alphas_cumprod, found {type(scheduler).__name__}: use diffusers_denoiser with "
            "a schedule such as Flow or EDM"
        )
    config = scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise SpecError(f"expected a prediction_type among {', '.join(_PREDICTIONS)}, found {prediction!r}")
    if guidance is not None and unconditional is None:
        raise SpecError("expected unconditional entries for guidance, found none: give unconditional={...}")
    schedule = Discrete(products.double().tolist(), float(getattr(scheduler, "final_alpha_cumprod", 1.0)))
    found: Denoiser = diffusers_denoiser(
        model,
        predicts=_PREDICTIONS[prediction],
        schedule=schedule,
        variance=variance,
        conditioning=conditioning,
        unconditional=unconditional,
    )
    if guidance is not None:
        found = Guided(found, guidance)
    if config.get("thresholding", False):
        return Clipped(found, 1.0, config["dynamic_thresholding_ratio"], config["sample_max_value"])
    if config.get("clip_sample", False):
        return Clipped(found, config.get("clip_sample_range", 1.0))
    return found
