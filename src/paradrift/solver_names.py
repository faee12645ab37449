"""Solver presets by the words of the command line, and those with a tolerance of their own kind."""

from __future__ import annotations

import enum
from collections.abc import Callable

import paradrift as pd
from paradrift.errors import SpecError
from paradrift.solvers.method import Method


class SolverName(enum.StrEnum):
    """Solver presets."""

    DEFAULT = "default"
    SEQUENTIAL = "sequential"
    PIADM_SDE = "piadm-sde"
    PIADM_ODE = "piadm-ode"
    PARADIGMS = "paradigms"
    WAVEFRONT = "wavefront"
    PARASOLVER = "parasolver"
    PARATAA = "parataa"
    ANDERSON = "anderson"
    RELAXED = "relaxed"
    NEWTON = "newton"
    SRDS = "srds"
    CHORDS = "chords"


# Each with its paper's own setting; what these functions take is what --tol and --window may say.
WINDOWED: dict[SolverName, Callable[..., pd.Solver | Method]] = {
    SolverName.PARADIGMS: pd.paradigms,
    SolverName.PARASOLVER: pd.parasolver,
    SolverName.PARATAA: pd.parataa,
    SolverName.NEWTON: pd.newton,
}
RIVALS = WINDOWED | {
    SolverName.ANDERSON: pd.anderson,
    SolverName.RELAXED: pd.relaxed,
    SolverName.SRDS: pd.srds,
    SolverName.CHORDS: pd.chords,
}


def rival(name: SolverName, settle: pd.Tolerance | pd.KL | pd.Exact | None, span: str | None) -> pd.Solver | Method:
    """A published method whose rule has a tolerance of its own kind, and a width if it has a window.

    Args:
        name: One of :data:`RIVALS`.
        settle: Its tolerance; None for its own.
        span: Width of its window; None for its own.

    Returns:
        The method.

    Raises:
        SpecError: if it does not take what was given.
    """
    windowed = name in WINDOWED
    if span is not None and not (windowed and span.isdecimal()):
        allowed = (
            f"a width such as 64 as window of {name.value}" if windowed else f"no --window beside --solver {name.value}"
        )
        raise SpecError(f"expected {allowed}, found {span!r}")
    if isinstance(settle, pd.KL | pd.Exact):
        raise SpecError(f"expected no --kl or --exact beside --solver {name.value}, which has a rule of its own")
    given = {} if settle is None else {"tol": settle.tol}
    if span is not None:
        given["window"] = int(span)
    if name is SolverName.PARATAA and settle is not None:
        given["share"] = settle.tol
    return RIVALS[name](**given)
