r"""The equations of a chain, linearised: Newton's step, and its damped relatives.

With defects :math:`r_m = \sum_j a_{mj} z_j + \sum_j b_{mj} f(z_j) + \sum_n c_{mn} \xi_n - z_m` and the derivative
:math:`J_j` of the output at node j, Newton's step solves

.. math:: \delta_m = r_m + \sum_j (a_{mj} + b_{mj} J_j)\, \delta_j ,

from the first row on: lower triangular, one pass. The new row :math:`z_m + \delta_m` does not hold its old value any
more, so it is a drift made of rows before it, and its own noise. The damped step minimises

.. math:: |r - (I - a - b J)\, \delta|^2 + \lambda\, |\delta|^2 ,

which leaves every row near where it was, most where the chain amplifies; it looks ahead, so it is not causal. With a
fading damping lambda is multiplied by the mean square of the defects of each sample: large while it is far off, gone
at the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.solvers.elimination import damped, substitute
from paradrift.solvers.equations import Bands, Equations
from paradrift.solvers.jacobians import Jacobian
from paradrift.summing import over_rows


@dataclass(kw_only=True)
class Linearised:
    """Equations with derivatives.

    Args:
        equations: The chain.
        jacobian: What is kept of the derivatives.
        damping: lambda; 0 for Newton's step.
        fading: Whether it is multiplied by the mean square of the defects.
        kept: Derivatives at all rows, shape (R, S, G, n, n), zero where none are known; None before the first.
        rows: Number of rows R.
        samples: Number of samples S.
    """

    equations: Equations
    jacobian: Jacobian
    damping: float
    fading: bool
    rows: int
    samples: int
    kept: Tensor | None = None

    @property
    def a(self) -> Bands:
        """Weights of earlier states by lag."""
        return self.equations.a

    @property
    def b(self) -> Bands:
        """Weights of earlier outputs by lag."""
        return self.equations.b

    @property
    def c(self) -> Bands:
        """Weights of noises by lag."""
        return self.equations.c

    def values(self, z: Tensor, f: Tensor, noise: Tensor, first: int, end: int) -> Tensor:
        """The right-hand sides; see :meth:`Equations.values`.

        Args:
            z: States of all rows, shape (R, S, D).
            f: Outputs of all rows.
            noise: Noise terms of all rows.
            first: First row wanted.
            end: First row not wanted.

        Returns:
            Shape (end - first, S, D).
        """
        return self.equations.values(z, f, noise, first, end)

    def directions(self, row: Tensor, size: int) -> Tensor:
        """Directions in which derivatives are wanted.

        Args:
            row: Rows that are asked for, shape (K,).
            size: Elements of a state, D.

        Returns:
            Shape (P, K, D).
        """
        return self.jacobian.directions(row, size)

    def learn(self, where: tuple[Tensor, Tensor], directions: Tensor, products: Tensor) -> None:
        """Take derivatives in; those that are not finite count as zero.

        Args:
            where: Rows and samples.
            directions: What was asked for, shape (P, K, D).
            products: J times each, shape (P, K, D).
        """
        blocks = self.jacobian.blocks(directions, products)
        if self.kept is None:
            self.kept = blocks.new_zeros(self.rows, self.samples, *blocks.shape[1:])
        finite = torch.isfinite(blocks).flatten(1).all(1)
        self.kept[where] = torch.where(finite[:, None, None, None], blocks, 0.0)

    def residual(self, defect: Tensor, inside: Tensor, first: int) -> Tensor:
        """Newton's step, or the damped one.

        Args:
            defect: Defects of consecutive rows, zero where they do not count, shape (W, S, D).
            inside: Which rows may move, shape (W, S).
            first: The first of these rows.

        Returns:
            Shape (W, S, D), zero at rows that may not move.
        """
        if self.kept is None:
            return defect
        size, (groups, n) = len(defect), self.kept.shape[2:4]
        eye = torch.eye(n, dtype=defect.dtype, device=defect.device)
        gains: dict[int, Tensor] = {}
        for lag in sorted({*self.a, *self.b}):
            gain = defect.new_zeros(size, *self.kept.shape[1:])
            if lag in self.a:
                gain += self.a[lag][first : first + size, ..., None, None] * eye
            if lag in self.b and lag < size:
                gain[lag:] += self.b[lag][first + lag : first + size, ..., None, None] * self.kept[first:][: size - lag]
            both = torch.zeros_like(inside)
            both[lag:] = inside[lag:] & inside[:-lag]
            gains[lag] = torch.where(both[..., None, None, None], gain, 0.0)
        right = defect.unflatten(-1, (groups, n))
        if not self.damping:
            return substitute(gains, right).flatten(2)
        damping = defect.new_full((defect.shape[1],), self.damping)
        if self.fading:
            damping *= over_rows(defect.square().mean(2)) / inside.sum(0).clamp(min=1)
        return damped(gains, right, damping[:, None, None, None]).flatten(2)
