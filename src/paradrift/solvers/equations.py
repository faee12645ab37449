r"""Equations of order k: one unique solution, the sequential path, and as many fixed points of it as one likes.

A table asks of every row that its defect vanish,

.. math:: r_m = \sum_j a_{mj} z_j + \sum_j b_{mj} f(z_j) + \sum_n c_{mn} \xi_n - z_m .

Written once more for the states on its right, the same equation looks one row further back. After k times the residual
of row m, its new value less its old one, is

.. math:: R^{(k)} = (I + a + a^2 + \dots + a^{k-1})\, r ,

for one-step tables :math:`R^{(k)}_m = \sum_{i > m-k} (a_m a_{m-1} \cdots a_{i+1})\, r_i`: states up to row m - k are
taken as they are, those after it are computed anew from outputs as they are. Rows before the window stand still: their
defects count as zero. k = 1 is Jacobi iteration; k = all is Picard iteration of the exponential integrator, a sweep
with slopes of zero. The table may be any: rows that are not nodes, several lags.

The sum is made by doubling, :math:`G_{2n} = (I + a^n) G_n` and :math:`G_{n+1} = I + a G_n`, so that one-step tables
need about 2 log2(k) operations on all rows at once.

Source: Tang et al. 2024, arXiv 2402.09970, the equations of order k, for one-step tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from paradrift.forms import Array
from paradrift.tableau import Tableau

Bands = dict[int, Tensor]


class System(Protocol):
    """The equations of a chain, and the step that they propose from what is wrong in each."""

    @property
    def a(self) -> Bands:
        """Weights of earlier states by lag, each of shape (R, 1, 1)."""
        ...

    @property
    def b(self) -> Bands:
        """Weights of earlier outputs by lag."""
        ...

    @property
    def c(self) -> Bands:
        """Weights of noises by lag."""
        ...

    def values(self, z: Tensor, f: Tensor, noise: Tensor, first: int, end: int) -> Tensor:
        """The right-hand sides of order 1.

        Args:
            z: States of all rows, shape (R, S, D).
            f: Outputs of all rows.
            noise: Noise terms of all rows.
            first: First row wanted, at least 1.
            end: First row not wanted.

        Returns:
            Shape (end - first, S, D).
        """
        ...

    def residual(self, defect: Tensor, inside: Tensor, first: int) -> Tensor:
        """The proposed change of each row.

        Args:
            defect: Defects of consecutive rows, zero where they do not count, shape (W, S, D).
            inside: Which rows may move, shape (W, S), bool; the others stand still.
            first: The first of these rows.

        Returns:
            Shape (W, S, D).
        """
        ...

    def directions(self, row: Tensor, size: int) -> Tensor | None:
        """Directions in which derivatives of the outputs are wanted.

        Args:
            row: Rows that are asked for, shape (K,), int64.
            size: Elements of a state.

        Returns:
            Shape (P, K, size); None for none.
        """
        ...

    def learn(self, where: tuple[Tensor, Tensor], directions: Tensor, products: Tensor) -> None:
        """Take derivatives in.

        Args:
            where: Rows and samples that they belong to.
            directions: What was asked for, shape (P, K, D).
            products: The derivatives, of the same shape.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Equations:
    """The equations of one table, on the device.

    Args:
        a: Weights of earlier states by lag, each of shape (R, 1, 1).
        b: Weights of earlier outputs by lag.
        c: Weights of noises by lag.
        once: a again, written for the outputs that are frozen.
        doublings: The powers of a to double with, from the first to the last, each with whether to add one more.
    """

    a: Bands
    b: Bands
    c: Bands
    once: Bands
    doublings: tuple[tuple[Bands, bool], ...]

    @staticmethod
    def of(table: Tableau, frozen: Tableau, order: int | None, dtype: torch.dtype, device: torch.device) -> Equations:
        """Make the equations of some order.

        Args:
            table: The sampler's table, in the form of the model.
            frozen: The same in the form whose outputs are frozen: defects are the same in all forms, powers are not.
            order: k, at least 1; None for all rows.
            dtype: Dtype of the states.
            device: Their device.

        Returns:
            The equations.
        """

        def lowered(bands: Mapping[int, Array]) -> Bands:
            return {
                lag: torch.as_tensor(band).to(device=device, dtype=dtype)[:, None, None] for lag, band in bands.items()
            }

        a, b, c = ({lag: table.band(name, lag) for lag in lags} for name, lags in zip("abc", table.lags, strict=True))
        # beyond all rows powers vanish: a power of two saves the single steps
        depth = 1 << (table.rows - 1).bit_length() if order is None or order >= table.rows else order
        once = {lag: frozen.band("a", lag) for lag in frozen.lags[0]}
        doublings, power = [], once
        for digit in bin(depth)[3:]:
            one_more = digit == "1"
            doublings.append((lowered(power), one_more))
            power = _product(power, power)
            if one_more:
                power = _product(once, power)
        return Equations(a=lowered(a), b=lowered(b), c=lowered(c), once=lowered(once), doublings=tuple(doublings))

    def values(self, z: Tensor, f: Tensor, noise: Tensor, first: int, end: int) -> Tensor:
        """The right-hand sides of order 1.

        Args:
            z: States of all rows, shape (R, S, D).
            f: Outputs of all rows.
            noise: Noise terms of all rows.
            first: First row wanted, at least 1.
            end: First row not wanted.

        Returns:
            Shape (end - first, S, D).
        """
        total = noise[first:end].clone()
        for bands, source in ((self.a, z), (self.b, f)):
            for lag, band in bands.items():
                low = max(first, lag)
                if low < end:
                    total[low - first :] += band[low:end] * source[low - lag : end - lag]
        return total

    def residual(self, defect: Tensor, inside: Tensor, first: int) -> Tensor:
        """The residual of order k.

        Args:
            defect: Defects of consecutive rows, zero where they do not count, shape (W, S, D).
            inside: Which rows may move, shape (W, S); those before them have no defects, those after are not looked at.
            first: The first of these rows.

        Returns:
            Shape (W, S, D).
        """
        total = defect
        for power, one_more in self.doublings:
            total = total + _apply(power, total, first)
            if one_more:
                total = defect + _apply(self.once, total, first)
        return total

    def directions(self, row: Tensor, size: int) -> None:
        """None: outputs are enough.

        Args:
            row: Rows that are asked for, shape (K,).
            size: Elements of a state.
        """

    def learn(self, where: tuple[Tensor, Tensor], directions: Tensor, products: Tensor) -> None:
        """Nothing to learn.

        Args:
            where: Rows and samples.
            directions: Shape (P, K, D).
            products: Shape (P, K, D).
        """


def _apply(bands: Bands, values: Tensor, first: int) -> Tensor:
    """A matrix times consecutive rows, those before them taken as zero."""
    total, size = torch.zeros_like(values), len(values)
    for lag, band in bands.items():
        if lag < size:
            total[lag:] += band[first + lag : first + size] * values[: size - lag]
    return total


def _product(left: Mapping[int, Array], right: Mapping[int, Array]) -> dict[int, Array]:
    """Product of two matrices by their bands."""
    product: dict[int, Array] = {}
    for near, weights in left.items():
        for far, others in right.items():
            lag = near + far
            if lag < len(weights):
                band = np.zeros_like(weights)
                band[lag:] = weights[lag:] * others[lag - near : len(others) - near]
                product[lag] = product.get(lag, 0) + band
    return {lag: band for lag, band in product.items() if band.any()}
