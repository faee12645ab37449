"""Pipelines of diffusers as a command line meets them: loaded by name, called by what their signature takes.

Nothing here knows a pipeline by its class: which options apply is read off the parameters of ``__call__``.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paradrift.errors import SpecError

_COUNTS = ("num_images_per_prompt", "num_videos_per_prompt", "batch_size")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a pipeline is asked for; None leaves a choice to the pipeline.

    Args:
        prompt: What to draw, in words.
        negative_prompt: What not to draw.
        labels: Class of each sample.
        number: Samples for each prompt, or samples.
        guidance: Scale of classifier-free guidance.
        steps: Steps of its scheduler.
        height: Height of the pictures in pixels.
        width: Width of the pictures in pixels.
        seed: Seed of the noise.

    Raises:
        SpecError: if a number, steps, a height or a width is below 1.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    labels: Sequence[int] | None = None
    number: int | None = None
    guidance: float | None = None
    steps: int | None = None
    height: int | None = None
    width: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        sizes = {"number": self.number, "steps": self.steps, "height": self.height, "width": self.width}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise SpecError(f"expected --{name} of at least 1, found {value}")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a pipeline that can be made again.

    Args:
        asked: What is asked for, by the names of the pipeline's parameters.
        seed: Seed of the noise.
        parameters: Names and defaults of all its parameters, read before anything is wrapped around it.
    """

    asked: Mapping[str, Any]
    seed: int
    parameters: Mapping[str, Any]

    def fresh(self) -> dict[str, Any]:
        """The arguments, with a generator that nothing was drawn from.

        Returns:
            Keyword arguments.
        """
        torch.manual_seed(self.seed)  # for those that draw from the global generator too
        found = dict(self.asked)
        if "generator" in self.parameters:
            found["generator"] = torch.Generator().manual_seed(self.seed)
        if "output_type" in self.parameters:
            found["output_type"] = "np"
        return found


def load(model: str, *, dtype: torch.dtype, device: torch.device) -> Any:  # noqa: ANN401 - any pipeline
    """A pipeline from a folder or from the hub.

    Args:
        model: A folder that ``save_pretrained`` wrote, or a hub id such as "owner/name".
        dtype: Number format of its networks.
        device: Where they run.

    Returns:
        The pipeline.

    Raises:
        SpecError: if there is none, it cannot be fetched, or a part of it cannot be loaded.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise SpecError(
                f"expected a pipeline's folder with a model_index.json in it, as save_pretrained writes it, found none "
                f"in {model}: give the folder of the whole pipeline"
            )
    elif folder.is_absolute() or model.startswith(("./", "../", "~")) or model.count("/") > 1:
        raise SpecError(f"expected a pipeline's folder at {model}, found none: check the path")
    elif "/" not in model:
        raise SpecError(
            f"expected an embedded model, digits, found {model!r}, which is no folder written by save_pretrained and "
            "no hub id such as owner/name either"
        )
    # Slow to import, and not needed for the embedded model.
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging

    quiet = not sys.stderr.isatty() and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch_dtype` is deprecated")  # the name older releases know
            pipe = DiffusionPipeline.from_pretrained(
                folder if folder.is_dir() else model,
                torch_dtype=dtype,
                low_cpu_mem_usage=importlib.util.find_spec("accelerate") is not None,  # without it, this is a warning
            )
        return pipe.to(device)
    except Exception as error:  # many formats and a network: whatever is raised, one sentence is what helps
        if isinstance(error, OSError) and not folder.is_dir():
            raise SpecError(
                f"expected {model} on the hub or in its cache, found it out of reach: check the name and the network, "
                f"log in if it is gated, or give a folder ({first_words(error)})"
            ) from error
        # Without transformers, diffusers puts stand-ins in the place of its classes, which fail in odd ways.
        if isinstance(error, ImportError) or importlib.util.find_spec("transformers") is None:
            raise SpecError(
                f'expected the packages that {model} needs, found one missing: pip install "paradrift[pipelines]" '
                f"brings transformers and sentencepiece ({first_words(error)})"
            ) from error
        raise SpecError(
            f"expected a complete pipeline in {model}, found one that does not load: {first_words(error)}"
        ) from error
    finally:
        if quiet:
            logging.enable_progress_bar()


def call(pipe: Any, wish: Wish) -> Call:  # noqa: ANN401
    """How to call a pipeline.

    Args:
        pipe: The pipeline.
        wish: What is asked for.

    Returns:
        The call.

    Raises:
        SpecError: if it does not take what is asked for, or needs what cannot be asked for.
    """
    name, taken = type(pipe).__name__, _parameters(pipe)
    asked = {
        "prompt": ("--prompt", wish.prompt),
        "negative_prompt": ("--negative-prompt", wish.negative_prompt),
        "class_labels": ("--labels", wish.labels),
        "guidance_scale": ("--guidance", wish.guidance),
        "num_inference_steps": ("--steps", wish.steps),
        "height": ("--height", wish.height),
        "width": ("--width", wish.width),
    }
    found: dict[str, Any] = {}
    for parameter, (option, value) in asked.items():
        if value is None:
            continue
        if parameter not in taken:
            raise SpecError(f"expected no {option} for {name}, whose call takes no {parameter}, found {value!r}")
        found[parameter] = value
    if "prompt" in taken and wish.prompt is None:
        raise SpecError(f'expected a prompt for {name}, found none: give --prompt "..."')
    count = next((each for each in _COUNTS if each in taken), None)
    if wish.labels is not None:
        if count == "batch_size":
            found[count] = len(wish.labels)
    elif wish.number is not None and count is not None:
        found[count] = wish.number
    needed = [each for each, default in taken.items() if default is inspect.Parameter.empty and each not in found]
    if "class_labels" in needed:
        raise SpecError(f"expected classes for {name}, found none: give --labels, such as --labels 207,360")
    if needed:
        raise SpecError(
            f"expected a pipeline that starts from a prompt, classes or noise alone, found {name}, which needs "
            f"{', '.join(needed)} too: call it from Python, inside paradrift.parallelize"
        )
    if wish.labels is None and wish.number is not None and count is None:
        raise SpecError(f"expected no --number for {name}, which draws one sample a call, found {wish.number}")
    return Call(asked=found, seed=wish.seed, parameters=taken)


def _parameters(pipe: Any) -> dict[str, Any]:  # noqa: ANN401
    """Parameters of a pipeline's call, with their defaults."""
    found = inspect.signature(type(pipe).__call__).parameters.values()
    named = [each for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return {each.name: each.default for each in named if each.name != "self"}


def first_words(error: Exception) -> str:
    """The beginning of what an error says: loaders explain at length.

    Args:
        error: The error.

    Returns:
        One line.
    """
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]} ..."
