r"""Noise is addressed, not drawn.

A parallel solver meets the same noise many times, in an order that depends on its window, and for samples that advance
at different speeds. So a noise source answers *which standard normal belongs to (sample, column)* of the table (see
:mod:`paradrift.tableau`), whatever was asked before:

==========  ====================================================  =====================================
source      value of (sample, column)                             for
==========  ====================================================  =====================================
Philox      a counter-based function of (seed, sample, column)    the default
Drawn       what a sequential loop would draw from a generator    equality with an existing loop
Given       an entry of a ready tensor                            tests, replays
Brownian    a scaled increment of a Brownian path                 coarse and fine grids on one path
==========  ====================================================  =====================================

The start is a noise of its own, beside all columns. :class:`Philox` and its buffer live in :mod:`paradrift.philox`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.philox import Buffered as Buffered
from paradrift.philox import Philox as Philox


@runtime_checkable
class Noise(Protocol):
    """Independent standard normals addressed by (sample, column)."""

    def start(self, samples: Tensor) -> Tensor:
        """The standard normal start of each sample, before it is scaled by the table.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        ...

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns of each sample, shape (S, K), int64, in any order, repeats allowed.

        Returns:
            Shape (S, K, *shape).
        """
        ...

    def release(self, column: int) -> None:
        """Promise that no column before this one will be asked for again, so that its memory may go.

        Args:
            column: The first column that may still be asked for.
        """
        ...

    def finish(self) -> None:
        """Leave external generators where the sequential loop leaves them; called at the end, also after a failure."""
        ...


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
        """The start of each sample; see :meth:`Noise.start`.

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


@dataclass(frozen=True, eq=False)
class Given:
    """Noises that exist already.

    Args:
        noises: Standard normals, shape (S, R, *shape), by sample and column.
        initial: The start, shape (S, *shape).

    Raises:
        SpecError: if the two shapes disagree.
    """

    noises: Tensor
    initial: Tensor

    def __post_init__(self) -> None:
        expected = (self.noises.shape[0], *self.noises.shape[2:])
        if self.noises.ndim < 2 or tuple(self.initial.shape) != expected:
            raise SpecError(
                f"expected noises (S, R, *shape) and a start (S, *shape), found {tuple(self.noises.shape)} and "
                f"{tuple(self.initial.shape)}"
            )

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`Noise.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self.initial[samples]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; see :meth:`Noise.draw`.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64.

        Returns:
            Shape (S, K, *shape).
        """
        return self.noises[samples[:, None], columns]

    def release(self, column: int) -> None:
        """Nothing to forget: the tensor is the caller's.

        Args:
            column: The first column that may still be asked for.
        """

    def finish(self) -> None:
        """Nothing to leave behind."""


@dataclass(frozen=True, eq=False)
class Brownian:
    r"""Increments of a Brownian path, scaled to unit variance.

    .. math:: \xi_n = (W(\tau_n) - W(\tau_{n-1})) / \sqrt{|\tau_n - \tau_{n-1}|}, \qquad n = 1 \dots R-1

    Column n is the noise of the step from row n-1 to row n. Two tables whose clocks :math:`\tau` visit the same path
    see the same randomness, which is what strong convergence and coarse-to-fine guesses need. The clock is the user's
    choice and must be the same function of model time for both grids: for an SDE with unit diffusion it is the time
    itself; for an exponential integrator :math:`(\sigma/\alpha)^2` makes the noise of a merged step the
    variance-weighted sum of the noises of its parts.

    Args:
        path: A ``torchsde.BrownianInterval`` of size (S, *shape), or any ``path(lower, upper) -> (S, *shape)``. Its
            tree is fixed by the order of the first questions: ask on the finest grid first.
        clock: Times :math:`\tau` of the rows, shape (R,), strictly monotone, inside the path.
        initial: The start, shape (S, *shape): a path has none.

    Raises:
        SpecError: if the clock is not strictly monotone.

    Source: Li, Wong, Chen, Duvenaud 2020 (arXiv 2001.01328); Kidger et al. 2021 (arXiv 2105.13493), Brownian interval.
    """

    path: Any
    clock: Array
    initial: Tensor

    def __post_init__(self) -> None:
        steps = np.diff(np.asarray(self.clock, np.float64))
        if not (np.all(steps > 0) or np.all(steps < 0)):
            raise SpecError("expected a strictly monotone clock, found two rows in the wrong order or at the same time")

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`Noise.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self.initial[samples]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; zero in column 0, which has no step.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64.

        Returns:
            Shape (S, K, *shape).
        """
        wanted, places = torch.unique(columns, return_inverse=True)  # ascending: the order of the sequential loop
        table = torch.stack([self._increment(int(column)) for column in wanted.tolist()])
        return table[places.to(table.device), samples.to(table.device)[:, None]]

    def release(self, column: int) -> None:
        """Nothing to forget: the path keeps its own tree.

        Args:
            column: The first column that may still be asked for.
        """

    def finish(self) -> None:
        """Nothing to leave behind."""

    def _increment(self, column: int) -> Tensor:
        if not 0 < column < len(self.clock):
            return torch.zeros_like(self.initial)
        before, after = float(self.clock[column - 1]), float(self.clock[column])
        increment = self.path(min(before, after), max(before, after))
        return increment * (np.sign(after - before) / abs(after - before) ** 0.5)
