"""ParaSolver's start: the first nodes one by one, then a window of any kind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.windows import Window


@dataclass(frozen=True)
class Preconditioned:
    """A window of one node until so many are settled, then another: the first steps are the sequential sampler's.

    The first steps of a chain say little about the data, but the prediction after them says more than the one at the
    start: what enters the window then is guessed from it. It costs as many rounds as steps.

    Args:
        steps: Nodes that are settled one by one, at least 0.
        then: The window after them.

    Raises:
        SpecError: if the number of steps is negative.

    Source: Lu, Zhu and Hou, ICLR 2025 (ParaSolver), preconditioning steps.
    """

    steps: int
    then: Window

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise SpecError(f"expected at least 0 preconditioning steps, found {self.steps}")

    def limit(self, front: Tensor, nodes: int) -> Tensor:
        """First node outside: the one after the front, or that of the other window.

        Args:
            front: First unsettled nodes, shape (S,).
            nodes: Number of nodes M.

        Returns:
            Shape (S,), int64.
        """
        return torch.where(front < self.steps, front + 1, self.then.limit(front, nodes))
