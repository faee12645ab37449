"""What a noise source is, and the simplest one: a ready tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from paradrift.errors import SpecError


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
        """The start of each sample; see :meth:`paradrift.noise.Noise.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self.initial[samples.to(self.initial.device)]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; see :meth:`paradrift.noise.Noise.draw`.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64.

        Returns:
            Shape (S, K, *shape).
        """
        device = self.noises.device
        return self.noises[samples.to(device)[:, None], columns.to(device)]

    def release(self, column: int) -> None:
        """Nothing to forget: the tensor is the caller's.

        Args:
            column: The first column that may still be asked for.
        """

    def finish(self) -> None:
        """Nothing to leave behind."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The noises of some samples, counted from 0, for a part of a solve; other parts ask, too, so none is released.

    Args:
        noise: The noises of all samples.
        samples: Which samples, shape (S,), int64.
    """

    noise: Noise
    samples: Tensor

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`paradrift.noise.Noise.start`.

        Args:
            samples: Which of these samples, shape (N,), int64.

        Returns:
            Shape (N, *shape).
        """
        return self.noise.start(self.samples[samples])

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; see :meth:`paradrift.noise.Noise.draw`.

        Args:
            samples: Which of these samples, shape (N,), int64.
            columns: Noise columns, shape (N, K), int64.

        Returns:
            Shape (N, K, *shape).
        """
        return self.noise.draw(self.samples[samples], columns)

    def release(self, column: int) -> None:
        """Nothing: other parts may ask for it.

        Args:
            column: The first column that this part may still ask for.
        """

    def finish(self) -> None:
        """Nothing to leave behind: the noises are the solve's."""
