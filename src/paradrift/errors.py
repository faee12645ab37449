"""Errors that a user can meet. Every message says what was expected, what was found, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paradrift.solution import Solution


class ParadriftError(Exception):
    """Base of every error raised on purpose by this library."""


class SpecError(ParadriftError, ValueError):
    """A request that cannot be carried out as written: wrong shape, form, order or range."""


class NotAffineError(SpecError):
    """A sampler that is not of the form ``z = e z0 + a z + b f + c xi`` and so has no table."""


class Refused(ParadriftError):
    """A run that cannot be made parallel without changing its answer."""


class SolveError(ParadriftError):
    """A solve that did not converge, raised only with ``throw=True``.

    Args:
        message: What went wrong, in one sentence.
        solution: The best answer so far, with its statuses and statistics; never lost.
    """

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution
