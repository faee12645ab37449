r"""Derivatives of the outputs by the states, from products with a few directions.

What is kept of the Jacobian :math:`J = \partial f / \partial z` of a node are square blocks on its diagonal: one of
D x D for the whole matrix, or D of one element each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.noise.signs import signs
from paradrift.summing import over_rows


class Jacobian(Protocol):
    """What is kept of the derivative at a node."""

    def directions(self, row: Tensor, size: int) -> Tensor:
        """Directions whose products are wanted.

        Args:
            row: Rows of the table, shape (K,), int64.
            size: Elements of a state, D.

        Returns:
            Shape (P, K, D).
        """
        ...

    def blocks(self, directions: Tensor, products: Tensor) -> Tensor:
        """The derivative, from the products.

        Args:
            directions: As they were wanted, shape (P, K, D).
            products: J times each, shape (P, K, D).

        Returns:
            Shape (K, G, n, n), with G n = D.
        """
        ...


@dataclass(frozen=True)
class Full:
    """The whole Jacobian, column by column: D products a node, D^2 numbers a node and sample.

    Args:
        limit: Most elements of a state; larger ones are refused, since cost and memory grow with their square.

    Raises:
        SpecError: if the limit is below 1; when a solve begins, if states are larger.
    """

    limit: int = 64

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise SpecError(f"expected a limit of at least 1 element, found {self.limit}")

    def directions(self, row: Tensor, size: int) -> Tensor:
        """The unit vectors.

        Args:
            row: Rows of the table, shape (K,).
            size: Elements of a state, D.

        Returns:
            Shape (D, K, D).

        Raises:
            SpecError: if the state has more elements than the limit.
        """
        if size > self.limit:
            raise SpecError(
                f"expected states of at most {self.limit} elements for a whole Jacobian, found {size}: choose "
                f"Diagonal(), or raise Full(limit={size}) for {size} products a node"
            )
        return torch.eye(size, device=row.device)[:, None].expand(-1, len(row), -1)

    def blocks(self, directions: Tensor, products: Tensor) -> Tensor:
        """The products are the columns.

        Args:
            directions: Unit vectors, shape (D, K, D).
            products: Columns, shape (D, K, D).

        Returns:
            Shape (K, 1, D, D).
        """
        return products.permute(1, 2, 0)[:, None]


@dataclass(frozen=True)
class Diagonal:
    r"""The diagonal alone, estimated with random signs v as :math:`\frac1P \sum_p v_p \circ J v_p` (Hutchinson).

    Unbiased; the variance of element i is :math:`\frac1P \sum_{j \ne i} J_{ij}^2`, so it is exact where J is diagonal.
    Signs are addressed by seed and row of the table: they are the same in every round, for every sample and in every
    batch, and independent of the noise.

    Args:
        probes: P, products a node.
        seed: Seed of the signs.

    Raises:
        SpecError: if there are no probes.

    Source: Bekas, Kokiopoulou and Saad 2007, "An estimator for the diagonal of a matrix"; the diagonal as a
    quasi-Newton method, Gonzalez et al. 2024, arXiv 2407.19115 (quasi-DEER); estimated so, Zoltowski et al. 2025, arXiv
    2508.18413.
    """

    probes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise SpecError(f"expected at least 1 probe, found {self.probes}")

    def directions(self, row: Tensor, size: int) -> Tensor:
        """The signs of these rows.

        Args:
            row: Rows of the table, shape (K,).
            size: Elements of a state, D.

        Returns:
            Shape (P, K, D).
        """
        return signs(self.seed, row, self.probes, size).float()

    def blocks(self, directions: Tensor, products: Tensor) -> Tensor:
        """The mean of signs times products.

        Args:
            directions: Signs, shape (P, K, D).
            products: Products, shape (P, K, D).

        Returns:
            Shape (K, D, 1, 1).
        """
        return over_rows(directions * products)[..., None, None] / self.probes
