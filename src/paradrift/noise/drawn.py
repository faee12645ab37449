"""The draws of a sequential loop, buffered between the slowest and the fastest sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paradrift.errors import SpecError


class Drawn:
    r"""The draws that a sequential loop takes from ``torch.Generator`` objects, addressed.

    The loop draws the start first (unless one is given), then, in ascending order, each noise column that
    ``tableau.draws`` marks: with one generator ``torch.randn((S, *shape))``, with a list one ``torch.randn((1,
    *shape))`` for each sample. This is the order of the pipelines and schedulers of diffusers (``randn_tensor``), so a
    seeded pipeline keeps its pictures. Columns are held from their first use until :meth:`release`.

    Args:
        generators: One generator for the whole batch, or one for each sample.
        draws: Which columns the loop draws, shape (R,), bool: ``tableau.draws``.
        samples: Number of samples S in the batch of the loop.
        shape: Shape of one sample.
        dtype: The dtype that the loop draws in; half precision has draws of its own.
        device: Where the noises are wanted; they are drawn where the generator lives.
        initial: A start given by the user, shape (S, *shape): the loop then draws none.

    Raises:
        SpecError: if the number of generators or the shape of the start is not that of the batch.

    Cost: memory for the columns between the slowest and the fastest sample.

    Example:
        >>> noise = Drawn(torch.Generator().manual_seed(0), np.array([False, True]), samples=1, shape=(2,))
        >>> twin = torch.Generator().manual_seed(0)
        >>> index = torch.tensor([0])
        >>> torch.equal(noise.start(index), torch.randn(1, 2, generator=twin))
        True
        >>> torch.equal(noise.draw(index, torch.tensor([[1]]))[:, 0], torch.randn(1, 2, generator=twin))
        True
    """

    def __init__(
        self,
        generators: torch.Generator | Sequence[torch.Generator],
        draws: NDArray[np.bool_],
        *,
        samples: int,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        initial: Tensor | None = None,
    ) -> None:
        self._single = generators if isinstance(generators, torch.Generator) else None
        self._each = () if isinstance(generators, torch.Generator) else tuple(generators)
        if self._single is None and len(self._each) != samples:
            raise SpecError(f"expected one generator, or one for each of {samples} samples, found {len(self._each)}")
        if initial is not None and initial.shape != (samples, *shape):
            raise SpecError(f"expected a start of shape {(samples, *shape)}, found {tuple(initial.shape)}")
        self._batch, self._dtype, self._device = (samples, *shape), dtype, torch.device(device)
        self._draws = np.asarray(draws, bool)
        self._start = initial
        self._held: dict[int, Tensor] = {}
        self._next = 0  # the first column that the loop has not reached
        self._first = 0  # the first column that may still be asked for

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`paradrift.noise.Noise.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self._begin()[samples.to(self._device)]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; zeros in columns that the loop does not draw, whose weight is zero.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64.

        Returns:
            Shape (S, K, *shape).

        Raises:
            SpecError: if a column was released before.
        """
        if columns.numel() == 0:
            return torch.zeros(*columns.shape, *self._batch[1:], dtype=self._dtype, device=self._device)
        low, high = int(columns.min()), int(columns.max())
        if low < self._first:
            raise SpecError(f"expected columns from {self._first} on, found {low}, whose noise was released")
        while self._next <= min(high, len(self._draws) - 1):
            self._advance(keep=True)
        nothing = torch.zeros(self._batch, dtype=self._dtype, device=self._device)
        table = torch.stack([self._held.get(column, nothing) for column in range(low, high + 1)])
        return table[(columns - low).to(self._device), samples.to(self._device)[:, None]]

    def release(self, column: int) -> None:
        """Forget the columns before this one.

        Args:
            column: The first column that may still be asked for.
        """
        self._first = max(self._first, column)
        for old in [held for held in self._held if held < self._first]:
            del self._held[old]

    def finish(self) -> None:
        """Draw and discard what the sequential loop would still draw."""
        self._begin()
        while self._next < len(self._draws):
            self._advance(keep=False)

    def _begin(self) -> Tensor:
        if self._start is None:
            self._start = self._randn()
        return self._start

    def _advance(self, keep: bool) -> None:
        self._begin()
        if self._draws[self._next]:
            noise = self._randn()
            if keep and self._next >= self._first:
                self._held[self._next] = noise
        self._next += 1

    def _randn(self) -> Tensor:
        if self._single is not None:
            drawn = _randn(self._batch, self._single, self._dtype)
        else:
            drawn = torch.cat([_randn((1, *self._batch[1:]), one, self._dtype) for one in self._each])
        return drawn.to(self._device)


def _randn(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=dtype, device=generator.device)
