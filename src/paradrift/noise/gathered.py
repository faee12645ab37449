"""Noises that are sums of others: what a chain draws whose steps stand for several steps of another one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.noise.base import Noise

DRAWN = 1 << 20  # numbers of noise that are gathered at a time, at most


@dataclass(frozen=True, eq=False)
class Gathered:
    """The noises of a thinned chain: sums of those of the whole chain, which are drawn as ever.

    Nothing is released, since a finer chain may follow and asks again.

    Args:
        noise: Where the noises of the whole chain come from.
        columns: Which of them each row adds up, shape (K + 1, L), int64.
        shares: And with which weights, shape (K + 1, L).
        size: Numbers of a noise.
    """

    noise: Noise
    columns: Tensor
    shares: Tensor
    size: int

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`paradrift.noise.Noise.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self.noise.start(samples)

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The sums of some rows.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Rows of the thinned chain, shape (S, K), int64.

        Returns:
            Shape (S, K, *shape).
        """
        rows = columns.to(self.columns.device)
        shares = self.shares[rows]
        used = int((shares != 0).any(0).any(0).sum()) or 1  # weights of zero come last
        return gather(self.noise, samples, self.columns[rows, :used], shares[..., :used], self.size)

    def release(self, column: int) -> None:
        """Nothing: a finer chain may ask for it.

        Args:
            column: The first column that may still be asked for.
        """

    def finish(self) -> None:
        """Nothing to leave behind: the noises are the solve's."""


def gather(noise: Noise, samples: Tensor, columns: Tensor, shares: Tensor, size: int) -> Tensor:
    """Weighted sums of noises, term by term in their order, so that batch mates change no bit.

    Args:
        noise: Where they come from.
        samples: Sample indices, shape (S,), int64.
        columns: Columns, shape (S, K, L), int64.
        shares: Weights, shape (S, K, L); 0 for none.
        size: Numbers of a noise.

    Returns:
        Shape (S, K, *shape).
    """
    many = max(1, DRAWN // max(1, len(samples) * columns.shape[2] * size))  # sums whose terms are drawn at once
    found: list[Tensor] = []
    for own, weights in zip(columns.split(many, 1), shares.split(many, 1), strict=True):
        drawn = noise.draw(samples, own.flatten(1)).unflatten(1, own.shape[1:])
        terms = weights.to(drawn)[(...,) + (None,) * (drawn.ndim - 3)] * drawn
        found.append(terms.cumsum(2)[:, :, -1])
    return found[0] if len(found) == 1 else torch.cat(found, 1)
