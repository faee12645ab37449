"""Words of the command line, and the objects they stand for."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import torch

import paradrift as pd
from paradrift.errors import SpecError

if TYPE_CHECKING:
    from paradrift.presets import Solver
    from paradrift.samplers import Sampler
    from paradrift.windows import Window

PI = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)  # which classes are drawn when none are named


class SamplerName(enum.StrEnum):
    """Samplers by the name their papers use."""

    DDPM = "ddpm"
    DDIM = "ddim"
    EULER = "euler"
    ANCESTRAL = "euler-ancestral"
    HEUN = "heun"
    DPMPP_2M = "dpmpp-2m"
    DPMPP_3M = "dpmpp-3m"
    DPMPP_SDE_2M = "dpmpp-sde-2m"
    EXPONENTIAL_SDE = "exponential-sde"
    EXPONENTIAL_ODE = "exponential-ode"


class SolverName(enum.StrEnum):
    """Solver presets."""

    DEFAULT = "default"
    SEQUENTIAL = "sequential"
    PIADM_SDE = "piadm-sde"
    PIADM_ODE = "piadm-ode"
    PARADIGMS = "paradigms"


class Precision(enum.StrEnum):
    """Number formats of the model; states are kept in float32 or better."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of this name."""
        return getattr(torch, self.value)


def sampler(name: SamplerName) -> Sampler:
    """The sampler of a name, with its usual settings.

    Args:
        name: One of the names.

    Returns:
        A sampler.
    """
    match name:
        case SamplerName.DDPM:
            return pd.DDPM()
        case SamplerName.DDIM:
            return pd.DDIM()
        case SamplerName.EULER:
            return pd.Euler()
        case SamplerName.ANCESTRAL:
            return pd.Ancestral()
        case SamplerName.HEUN:
            return pd.Heun()
        case SamplerName.DPMPP_2M:
            return pd.DPMpp2M()
        case SamplerName.DPMPP_3M:
            return pd.DPMpp3M()
        case SamplerName.DPMPP_SDE_2M:
            return pd.DPMppSDE()
        case SamplerName.EXPONENTIAL_SDE:
            return pd.Exponential(stochasticity=1.0)
        case SamplerName.EXPONENTIAL_ODE:
            return pd.Exponential(stochasticity=0.0)


def window(text: str) -> Window:
    """The window that a word describes.

    Args:
        text: "auto", "whole", a width such as "16", or "blocks:4".

    Returns:
        A window.

    Raises:
        SpecError: if the word is none of these.
    """
    kind, _, number = text.strip().lower().partition(":")
    if kind in ("auto", "whole") and not number:
        return pd.Auto() if kind == "auto" else pd.Whole()
    if kind == "blocks" and number.isdecimal():
        return pd.Blocks(int(number))
    if kind.isdecimal() and not number:
        return pd.Sliding(int(kind))
    raise SpecError(f"expected a window of auto, whole, a width such as 16, or blocks:4, found {text!r}")


def solver(name: SolverName, *, width: str, tol: float, blocks: int, sweeps: int) -> Solver | None:
    """The solver preset of a name.

    Args:
        name: One of the names.
        width: The window, see :func:`window`; ``paradigms`` needs a number and takes 16 for "auto".
        tol: Tolerance, where the preset has one.
        blocks: Blocks of the PIADM presets.
        sweeps: Sweeps per block of the PIADM presets.

    Returns:
        A solver, or None for the default, which follows ``window`` and ``tol`` of ``sample``.

    Raises:
        SpecError: if ``paradigms`` is given another window than a width.
    """
    match name:
        case SolverName.DEFAULT:
            return None
        case SolverName.SEQUENTIAL:
            return pd.sequential()
        case SolverName.PIADM_SDE:
            return pd.piadm_sde(blocks=blocks, sweeps=sweeps)
        case SolverName.PIADM_ODE:
            return pd.piadm_ode(blocks=blocks, sweeps=sweeps)
        case SolverName.PARADIGMS:
            if width != "auto" and not width.isdecimal():
                raise SpecError(f"expected a width such as 16 as window of paradigms, found {width!r}")
            return pd.paradigms(window=16 if width == "auto" else int(width), tol=tol)


def labels(text: str | None, number: int | None) -> list[int]:
    """Which class to draw in each sample.

    Args:
        text: Classes separated by commas, such as "3,1,4,1"; None: the digits of pi.
        number: How many samples; None: one per class named, or 4.

    Returns:
        One class per sample; classes repeat when fewer are named than samples asked for.

    Raises:
        SpecError: if the text is not a list of whole numbers, or the number is not positive.
    """
    if number is not None and number < 1:
        raise SpecError(f"expected at least 1 sample, found --number {number}")
    words = [word.strip() for word in text.split(",")] if text is not None else [str(digit) for digit in PI]
    if not all(word.isdecimal() for word in words):
        raise SpecError(f"expected classes as whole numbers with commas between, such as 3,1,4,1, found {text!r}")
    total = number if number is not None else (len(words) if text is not None else 4)
    return [int(words[index % len(words)]) for index in range(total)]


def device(text: str) -> torch.device:
    """The device of a name.

    Args:
        text: "cpu", "cuda", "cuda:1", "mps".

    Returns:
        A device that exists here.

    Raises:
        SpecError: if torch does not know it or this machine does not have it.
    """
    try:
        found = torch.device(text)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SpecError(f"expected a device of this machine, such as cpu or cuda, found {text!r}") from error
    return found
