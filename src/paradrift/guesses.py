"""Guesses: the states of nodes that enter a window, before they are evaluated for the first time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


class Guess(Protocol):
    """Where entering nodes start."""

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """States of entering rows, or None to march there with the surrogate of the last known node.

        Args:
            samples: Sample indices, shape (S,), int64.
            rows: Rows that enter, shape (K, S), int64, clamped to the table.
            last: The last state of each sample's window so far, shape (S, D), flattened.

        Returns:
            Shape (K, S, D), flattened states; or None.
        """
        ...


@dataclass(frozen=True)
class Coast:
    """March on with the last known data prediction, continued as that of a Gaussian: the default."""

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """None: march with the surrogate.

        Args:
            samples: Sample indices, shape (S,).
            rows: Entering rows, shape (K, S).
            last: Last states, shape (S, D).

        Returns:
            None.
        """
        return None


@dataclass(frozen=True)
class Repeat:
    """Copy the last state of the window: the start of PIADM's blocks and of ParaDiGMS' windows."""

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """The last state, repeated.

        Args:
            samples: Sample indices, shape (S,).
            rows: Entering rows, shape (K, S).
            last: Last states, shape (S, D).

        Returns:
            Shape (K, S, D).
        """
        return last.expand(len(rows), *last.shape)


@dataclass(frozen=True, eq=False)
class Given:
    """Start from a trajectory: of an earlier solve, another prompt, a student.

    Args:
        trajectory: All rows, shape (S, R, *shape), as :attr:`paradrift.Solution.trajectory` keeps them.
    """

    trajectory: Tensor = field(repr=False)

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """Rows of the trajectory.

        Args:
            samples: Sample indices, shape (S,).
            rows: Entering rows, shape (K, S).
            last: Last states, shape (S, D).

        Returns:
            Shape (K, S, D).
        """
        return self.trajectory.flatten(2)[samples[None], rows].to(last)
