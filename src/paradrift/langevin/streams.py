"""One stream of noise for a chain that is solved in segments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.noise import Noise


@dataclass(frozen=True, kw_only=True, eq=False)
class Continued:
    """A segment's view of the noise of the whole chain: columns counted from its beginning, chains that are left.

    Args:
        noise: The noise of the whole chain.
        offset: Columns of the chain before the segment's.
        chains: Index of each chain of the segment, shape (S,), int64.
        handed: What column 1 holds instead of a noise, shape (S, *shape): where the segment's velocities start.
    """

    noise: Noise
    offset: int
    chains: Tensor
    handed: Tensor | None = None

    def start(self, samples: Tensor) -> Tensor:
        """The start of each chain; see :meth:`paradrift.noise.Noise.start`.

        Args:
            samples: Indices in the segment, shape (S,).

        Returns:
            Shape (S, *shape).
        """
        return self.noise.start(self.chains[samples])

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; see :meth:`paradrift.noise.Noise.draw`.

        Args:
            samples: Indices in the segment, shape (S,).
            columns: Columns of the segment, shape (S, K).

        Returns:
            Shape (S, K, *shape).
        """
        drawn = self.noise.draw(self.chains[samples], columns + self.offset)
        if self.handed is None:
            return drawn
        first = (columns == 1).reshape(*columns.shape, *(1,) * (drawn.ndim - 2)).to(drawn.device)
        return torch.where(first, self.handed[samples.to(self.handed.device)][:, None].to(drawn), drawn)

    def release(self, column: int) -> None:
        """Pass the promise on.

        Args:
            column: The first column of the segment that may still be asked for.
        """
        self.noise.release(column + self.offset)

    def finish(self) -> None:
        """Pass the end on."""
        self.noise.finish()
