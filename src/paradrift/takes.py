"""Runs of a pipeline: plainly or parallel in time, with the pictures as levels that can be compared and written."""

from __future__ import annotations

import dataclasses
import time
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paradrift.diffusers import ReplayStats, Running, parallelize
from paradrift.diffusers.settings import Settings
from paradrift.errors import ParadriftError, SpecError
from paradrift.forms import Array
from paradrift.pipelines import Call, first_words

_FIELDS = ("images", "frames")
_STEPS, _WARM_UP = "num_inference_steps", 3


@dataclass(frozen=True, kw_only=True)
class Take:
    """One run of a pipeline.

    Args:
        name: "sequential" or "parallel".
        pictures: Levels in [0, 1], shape (S, frames, height, width, channels); still pictures have one frame.
        seconds: Wall time of the whole call, text encoders and decoders included.
        stats: What the replay cost; None for a plain run.
    """

    name: str
    pictures: Array
    seconds: float
    stats: ReplayStats | None = None


def warm_up(pipe: Any, call: Call) -> None:  # noqa: ANN401
    """A plain run of a few steps: the first call of a process pays for torch's set-up, and errors show early.

    Args:
        pipe: The pipeline.
        call: The call.
    """
    if _STEPS not in call.parameters:
        return
    usual = call.asked.get(_STEPS, call.parameters[_STEPS])
    steps = min(usual, _WARM_UP) if isinstance(usual, int) else _WARM_UP
    pipe.set_progress_bar_config(disable=True)
    plainly(pipe, dataclasses.replace(call, asked={**call.asked, _STEPS: steps}))


def plainly(pipe: Any, call: Call) -> Take:  # noqa: ANN401
    """Run a pipeline as it is.

    Args:
        pipe: The pipeline.
        call: The call.

    Returns:
        What it drew.

    Raises:
        SpecError: if it fails: so far nothing of this library is involved.
    """
    try:
        found, seconds = _played(pipe, call)
    except torch.OutOfMemoryError as error:
        raise _memory(pipe, "--dtype bfloat16, a smaller --number or smaller pictures") from error
    except Exception as error:  # its own code and these arguments alone: whatever it says is for who gave them
        raise SpecError(
            f"expected {type(pipe).__name__} to run as asked, found {type(error).__name__}: {first_words(error)}: "
            "change what is asked for, or call it from Python, which tells where it failed"
        ) from error
    return Take(name="sequential", pictures=_levels(pipe, found), seconds=seconds)


def in_parallel(pipe: Any, call: Call, settings: Settings) -> Take:  # noqa: ANN401
    """Run a pipeline parallel in time; plainly where that is refused, with the reason in the statistics.

    Args:
        pipe: The pipeline.
        call: The call.
        settings: How.

    Returns:
        What it drew, and what that cost.

    Raises:
        ParadriftError: if the memory is not enough.
    """
    with around(pipe, settings) as run, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="paradrift runs this plainly")  # it is said in the outcome
        try:
            found, seconds = _played(pipe, call)
        except torch.OutOfMemoryError as error:
            raise _memory(pipe, "--max-rows 4 or --window 4, say") from error
    return Take(name="parallel", pictures=_levels(pipe, found), seconds=seconds, stats=run.stats)


def around(pipe: Any, settings: Settings) -> AbstractContextManager[Running]:  # noqa: ANN401
    """The block within which a pipeline samples in parallel.

    Args:
        pipe: The pipeline.
        settings: How.

    Returns:
        A context manager.
    """
    return parallelize(pipe, tol=settings.tol, window=settings.window, max_rows=settings.max_rows)


def gap(pictures: Array, reference: Array) -> Array:
    """How far pictures are from those of the plain run: rms over levels, in units of their spread.

    Args:
        pictures: Levels in [0, 1], shape (S, ...).
        reference: The plain run's, of the same shape.

    Returns:
        Shape (S,); the unit is the standard deviation of all levels of the reference, at least 1 of 255.
    """
    unit = max(float(np.std(reference)), 1 / 255)
    return np.sqrt(np.square(pictures - reference).reshape(len(pictures), -1).mean(1)) / unit


def _played(pipe: Any, call: Call) -> tuple[Any, float]:  # noqa: ANN401
    arguments = call.fresh()
    begin = time.perf_counter()
    with torch.no_grad():
        found = pipe(**arguments)
    return found, time.perf_counter() - begin


def _levels(pipe: Any, output: Any) -> Array:  # noqa: ANN401
    """The pictures or frames of an output, shape (S, frames, height, width, channels)."""
    field = next((each for each in _FIELDS if getattr(output, each, None) is not None), None)
    if field is None:
        held = ", ".join(output) if isinstance(output, dict) else type(output).__name__
        raise SpecError(
            f"expected pictures or frames from {type(pipe).__name__}, found {held}: call it from Python, inside "
            "paradrift.parallelize"
        )
    levels = _array(getattr(output, field))
    levels = levels[:, None] if levels.ndim == 4 else levels
    if levels.ndim != 5 or levels.shape[-1] not in (1, 3, 4):
        raise SpecError(
            f"expected {field} of shape (samples, height, width, channels) or (samples, frames, height, width, "
            f"channels) from {type(pipe).__name__}, found {levels.shape}: call it from Python"
        )
    return levels


def _array(found: Any) -> Array:  # noqa: ANN401
    if isinstance(found, list | tuple):
        return np.stack([_array(item) for item in found])
    values = found.float().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
    return values / 255.0 if values.dtype == np.uint8 else values.astype(np.float64)


def _memory(pipe: Any, remedy: str) -> ParadriftError:  # noqa: ANN401
    return ParadriftError(f"expected memory enough for {type(pipe).__name__}, found too little: try {remedy}")
