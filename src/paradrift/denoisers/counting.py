"""Counting what a model is asked."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paradrift.denoisers.base import Denoiser, Wrapper
from paradrift.forms import Form


@dataclass
class Counted(Wrapper):
    """A denoiser that counts what it is asked.

    Args:
        denoiser: Any denoiser.
        calls: Calls so far.
        rows: Rows so far.
    """

    denoiser: Denoiser
    calls: int = 0
    rows: int = 0

    @property
    def form(self) -> Form:
        """The form of the denoiser."""
        return self.denoiser.form

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate and count; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            The denoiser's outputs, shape (R, *shape).
        """
        self.calls += 1
        self.rows += len(x)
        return self.denoiser(x, t, sample)
