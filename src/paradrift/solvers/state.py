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

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Places, Values

Where = Places | tuple[slice, slice]  # positions and samples, scattered or a whole rectangle


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

    z: Values
    f: Values
    ref: Values
    noise: Values
    slope: Values
    known: Values
    rest: Values
    front: Values
    steepest: Values

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

    def held(self, host: bool) -> State:
        """The same in the library of a solve.

        Args:
            host: Whether that is numpy.

        Returns:
            The windows; their memory is shared.
        """
        return State(**{entry.name: arrays.of(getattr(self, entry.name), host) for entry in fields(self)})

    def keep(self, which: Values) -> None:
        """Drop finished samples.

        Args:
            which: Indices of the samples that stay, int64.
        """
        for entry in fields(self):
            values = getattr(self, entry.name)
            setattr(self, entry.name, values[which] if values.ndim == 1 else values[:, which])

    def shift(self, count: Values, history: int) -> None:
        """Move every window forward by its own count.

        Args:
            count: Rows settled, shape (S,), int64.
            history: H.
        """
        size, xp = len(self.known), arrays.library(self.known)
        positions = arrays.steps(0, size, count)
        least, most = int(count.min()), int(count.max())
        later = arrays.at(arrays.clip(positions + count, high=size - 1))
        for name in ("z", "f", "ref", "noise", "slope", "known", "rest"):
            values = getattr(self, name)
            # where all fronts move together one copy is enough
            setattr(self, name, arrays.roll(values, most) if least == most else values[later])
        entering = positions >= size - count
        self.known &= ~entering
        self.rest = xp.where(entering, -1.0, self.rest)
        self.front = self.front + count
