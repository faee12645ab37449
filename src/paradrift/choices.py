"""Words of the command line, and the objects they stand for."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

import torch
import typer

import paradrift as pd
from paradrift.errors import SpecError
from paradrift.solver_names import RIVALS, SolverName, rival
from paradrift.solvers.method import Method
from paradrift.windows import Window

PI = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)  # which classes are drawn when none are named

# Options that only the embedded model has a meaning for, and those that only a pipeline has.
OF_THE_EMBEDDED = ("sampler", "solver", "blocks", "sweeps", "tensors", "kl", "exact", "certify")
OF_A_PIPELINE = ("prompt", "negative_prompt", "height", "width")


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
    UNIPC = "unipc"
    DEIS = "deis"
    ACCELERATED_ODE = "accelerated-ode"
    ACCELERATED_SDE = "accelerated-sde"
    EXPONENTIAL_SDE = "exponential-sde"
    EXPONENTIAL_ODE = "exponential-ode"


class Precision(enum.StrEnum):
    """Number formats of the model."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch dtype of this name."""
        return getattr(torch, self.value)

    @property
    def states(self) -> torch.dtype:
        """The dtype of the states: float32, or float64 with a float64 model."""
        return torch.float64 if self is Precision.FLOAT64 else torch.float32


def sampler(name: SamplerName, solver: SolverName, blocks: int) -> pd.Sampler:
    """The sampler of a name, with its usual settings.

    Args:
        name: One of the names.
        solver: The solver that it is for: PIADM-ODE wants its predictor with a corrector after each block.
        blocks: Blocks of the PIADM presets.

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
        case SamplerName.UNIPC:
            return pd.UniPC()
        case SamplerName.DEIS:
            return pd.DEIS()
        case SamplerName.ACCELERATED_ODE:
            return pd.AcceleratedODE()
        case SamplerName.ACCELERATED_SDE:
            return pd.AcceleratedSDE()
        case SamplerName.EXPONENTIAL_SDE:
            return pd.Exponential(stochasticity=1.0)
        case SamplerName.EXPONENTIAL_ODE:
            predictor = pd.Exponential(stochasticity=0.0)
            return pd.Corrected(blocks=blocks, predictor=predictor) if solver is SolverName.PIADM_ODE else predictor


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


def stop(*, tol: float | None, nats: float | None, exact: bool, seed: int) -> pd.Tolerance | pd.KL | pd.Exact:
    """When rows are settled, from what was asked for.

    Args:
        tol: Tolerance, or None.
        nats: Budget in nats, or None.
        exact: Whether the law is to be exact.
        seed: Seed of the noise.

    Returns:
        The rule; a tolerance of 0.01 where nothing was asked for.

    Raises:
        SpecError: if more than one was asked for.
    """
    asked = [word for word, given in (("--tol", tol), ("--kl", nats), ("--exact", exact or None)) if given is not None]
    if len(asked) > 1:
        raise SpecError(
            f"expected one of --tol, --kl and --exact, found {' and '.join(asked)}: each is a rule of its own"
        )
    if exact:
        return pd.Exact(seed)
    return pd.Tolerance(1e-2 if tol is None else tol) if nats is None else pd.KL(nats)


def solver(
    name: SolverName,
    rule: pd.Sampler,
    settle: pd.Tolerance | pd.KL | pd.Exact | None,
    *,
    span: str | None,
    blocks: int,
    sweeps: int,
) -> pd.Solver | Method:
    """The solver preset of a name.

    Args:
        name: One of the names.
        rule: The sampler that it is for, as :func:`sampler` gives it.
        settle: When rows are settled; None: the preset's own.
        span: The window, see :func:`window`; None: the preset's own.
        blocks: Blocks of the PIADM presets and of the wavefront.
        sweeps: Sweeps per block of these.

    Returns:
        A solver.

    Raises:
        SpecError: if the preset does not take the window, the tolerance or the sampler that was given.
    """
    if name is SolverName.DEFAULT:
        base = pd.default(window=None if span is None else window(span))
        return dataclasses.replace(base, stop=settle or base.stop)
    if name in RIVALS:
        return rival(name, settle, span)
    if span is not None:
        raise SpecError(f"expected no --window beside --solver {name.value}, which has its own, found {span}")
    if settle is not None:
        raise SpecError(f"expected no --tol, --kl or --exact beside --solver {name.value}, which has a rule of its own")
    if name is SolverName.SEQUENTIAL:
        return pd.sequential()
    if name is SolverName.WAVEFRONT:
        return pd.wavefront(blocks=blocks, sweeps=sweeps)
    if name is SolverName.PIADM_SDE:
        return pd.piadm_sde(blocks=blocks, sweeps=sweeps)
    if not isinstance(rule, pd.Corrected):
        raise SpecError(
            f"expected --sampler {SamplerName.EXPONENTIAL_ODE.value} beside --solver {name.value}, whose corrector "
            f"belongs to an ODE, found {rule}"
        )
    return pd.piadm_ode(rule, sweeps)


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


def threads(count: int | None) -> None:
    """Tell torch how many CPU threads to use.

    Args:
        count: How many; None: torch's own choice.

    Raises:
        SpecError: if there are none.
    """
    if count is None:
        return
    if count < 1:
        raise SpecError(f"expected at least 1 thread, found --threads {count}")
    torch.set_num_threads(count)


def folder(path: Path) -> None:
    """Make a folder to write to.

    Args:
        path: The folder.

    Raises:
        SpecError: if it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"expected a folder that can be written at {path}, found: {error.strerror}") from error


def fitting(context: typer.Context, model: str, *, embedded: bool) -> None:
    """Refuse options that have no meaning for the model.

    Args:
        context: The command with the options that were given.
        model: The model's name.
        embedded: Whether it is an embedded one.

    Raises:
        SpecError: for the first of them.
    """
    for name in OF_A_PIPELINE if embedded else OF_THE_EMBEDDED:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            why = "which draws classes (see --labels)" if embedded else "a pipeline, which brings its own sampler"
            option = f"--{name.replace('_', '-')}"
            raise SpecError(f"expected no {option} with --model {model}, {why}: leave it out")


def calls(span: str | None) -> int | None:
    """How many calls of a pipeline are in flight.

    Args:
        span: "auto", a width such as "16", or None.

    Returns:
        The width; None: chosen by the library.

    Raises:
        SpecError: if it is neither.
    """
    if span is None or span.strip().lower() == "auto":
        return None
    if not span.strip().isdecimal() or int(span) < 1:
        raise SpecError(f"expected a window of auto or a width such as 16 for a pipeline, found {span!r}")
    return int(span)
