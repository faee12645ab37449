r"""What a model is to this library: rows in, rows out.

A denoiser maps R noisy states at R times, belonging to R (not necessarily different) samples, to R outputs. Rows are
independent: no row's output may depend on another row of the same call, which is what allows many time steps, samples
and guidance halves to share one batch.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from paradrift.forms import Form
from paradrift.schedules import Schedule


@runtime_checkable
class Denoiser(Protocol):
    """A model with its form and its noise schedule."""

    @property
    def form(self) -> Form:
        """What the outputs mean."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule that the model was trained with, None for a bare function of (x, t)."""
        ...

    @property
    def variance(self) -> float | None:
        """Data variance per element, v0, the unit of tolerances; None when unknown."""
        ...

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate the model.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,), floating point.
            sample: Index of the sample that each row belongs to, shape (R,), int64: selects the conditioning.

        Returns:
            Outputs, shape (R, *shape), in the form that the denoiser declares.
        """
        ...
