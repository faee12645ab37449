r"""The windows of all samples as one block of tensors.

Position ``p`` of sample ``s`` holds the absolute row ``front[s] - (H - 1) + p``: positions below ``H - 1`` are settled
history (as far back as the table reaches), ``H - 1`` is the front, and the W positions after it are being worked on.
Each node answers with a surrogate :math:`g(x) = f + s\,(x - x_{ref})`; its reference is its own last evaluation, or,
before the first, the continuation of the last node that has one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

Where = tuple[Tensor, ...] | tuple[slice, slice]  # positions and samples, scattered or a whole rectangle


@dataclass(kw_only=True)
class State:
    """Everything that moves with the fronts; second dimension S = samples still active.

    Args:
        z: States, shape (B, S, D).
        f: Outputs at the references, shape (B, S, D).
        ref: Reference states, shape (B, S, D).
        noise: Noise terms of each row, shape (B, S, D).
        slope: Slopes, shape (B, S, 1), or (B, S, D) when secants are taken per group of elements.
        known: Whether a node has been evaluated, shape (B, S).
        rest: Measured part of the slope left unexplained, of D against x / alpha, shape (B, S); negative: unmeasured.
        front: First unsettled row, shape (S,), int64.
        steepest: Largest variance that the slopes of settled rows have shown, shape (S,); 0: none measured.
    """

    z: Tensor
    f: Tensor
    ref: Tensor
    noise: Tensor
    slope: Tensor
    known: Tensor
    rest: Tensor
    front: Tensor
    steepest: Tensor

    @staticmethod
    def begin(start: Tensor, history: int, width: int, per_element: bool) -> State:
        """Windows at the start of the chain.

        Args:
            start: Starting states, shape (S, D).
            history: Positions up to and including the front, H.
            width: Positions after the front, W.
            per_element: Whether slopes differ between elements.

        Returns:
            The state with row 0 at the front and empty windows.
        """
        size, (samples, elements) = history + width, start.shape
        block = start.new_zeros(size, samples, elements)
        z = block.clone()
        z[history - 1] = start
        return State(
            z=z,
            f=block.clone(),
            ref=block.clone(),
            noise=block.clone(),
            slope=start.new_zeros(size, samples, elements if per_element else 1),
            known=torch.zeros(size, samples, dtype=torch.bool, device=start.device),
            rest=start.new_full((size, samples), -1.0),
            front=torch.zeros(samples, dtype=torch.int64, device=start.device),
            steepest=start.new_zeros(samples),
        )

    def keep(self, which: Tensor) -> None:
        """Drop finished samples.

        Args:
            which: Indices of the samples that stay, int64.
        """
        for entry in fields(self):
            tensor = getattr(self, entry.name)
            setattr(self, entry.name, tensor[which] if tensor.ndim == 1 else tensor[:, which])

    def shift(self, count: Tensor, history: int) -> None:
        """Move every window forward by its own count.

        Args:
            count: Rows settled, shape (S,), int64.
            history: H.
        """
        size, samples = self.known.shape
        names = ("z", "f", "ref", "noise", "slope", "known", "rest")
        positions = torch.arange(size, device=count.device)[:, None]
        least, most = int(count.min()), int(count.max())
        if least == most:  # all fronts move together: one copy a tensor
            for name in names:
                setattr(self, name, getattr(self, name).roll(-most, 0))
        else:
            column = torch.arange(samples, device=count.device)
            index = ((positions + count).clamp_(max=size - 1) * samples + column).flatten()
            for name in names:
                tensor = getattr(self, name)
                setattr(self, name, tensor.flatten(0, 1).index_select(0, index).view_as(tensor))
        entering = positions >= size - count
        self.known &= ~entering
        self.rest = torch.where(entering, -1.0, self.rest)
        self.front = self.front + count
