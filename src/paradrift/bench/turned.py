"""A model of data whose principal axes are turned, row by row to the last bit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import paradrift as pd
from paradrift.forms import Form


def hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform, its own inverse: every element enters every other.

    Additions of pairs alone, so a row's result does not depend on the other rows to the last bit, as that of a product
    of matrices does.

    Args:
        x: Shape (R, d), d a power of two.

    Returns:
        Shape (R, d).
    """
    rows, size = x.shape
    half = 1
    while half < size:
        pairs = x.reshape(rows, -1, 2, half)
        x = torch.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], dim=2)
        half *= 2
    return x.reshape(rows, size) / math.sqrt(size)


@dataclass(frozen=True, eq=False)
class Turned:
    """A denoiser of data that are turned by :func:`hadamard`.

    Args:
        straight: The denoiser before, for states of shape (R, d).
    """

    straight: pd.Gaussian

    @property
    def form(self) -> Form:
        """What it returns."""
        return self.straight.form

    @property
    def schedule(self) -> pd.Schedule:
        """Its noise schedule."""
        return self.straight.schedule

    @property
    def variance(self) -> float | None:
        """Data variance per element, which no turn changes."""
        return self.straight.variance

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor | None = None) -> Tensor:
        """Evaluate it.

        Args:
            x: States, shape (R, d).
            t: Times, shape (R,).
            sample: Unused: there is no conditioning.

        Returns:
            Shape (R, d).
        """
        return hadamard(self.straight(hadamard(x), t))
