r"""Guesses: where nodes start that enter a window, before they are evaluated for the first time.

A guess may give *states*. Or it leaves them to the surrogates: a node that was never evaluated continues the last one
that was, as a Gaussian would, and states are marched to. For that it may *propose* what the model will say, the data
predictions of all rows, before the first round; it may ask models for them, and every request is counted as a round.

Causality: a proposal for a row may depend on the start and on noises up to that row only, as everything that is known
of a row before it is settled. Then the kept path has its certificate, whatever was proposed: the divergence is measured
between drifts, and drifts may be any function of the past.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from paradrift.noise import Noise
from paradrift.solvers.base import Request
from paradrift.tableau import Tableau

Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # rows, times and samples in, outputs out


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    r"""Data predictions for all rows of a chain, from few: :math:`D_m = (1 - w_m) d_{i_m} + w_m d_{i_m + 1}`.

    For tables without a noise schedule they are the model's outputs themselves.

    Args:
        data: The predictions d, shape (K, S, D), flattened; where one is not finite, nothing is proposed.
        first: i, which of them comes first at each row, shape (R,), int64.
        share: w, how much of the next there is, shape (R,); 0 where ``first`` is the last.
    """

    data: Tensor
    first: Tensor
    share: Tensor

    def at(self, rows: Tensor, samples: Tensor) -> Tensor:
        """What is proposed for some rows.

        Args:
            rows: Rows, shape (B, S), int64, clamped to the table.
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (B, S, D).
        """
        first, share = self.first[rows], self.share[rows][..., None]
        after = (first + 1).clamp(max=len(self.data) - 1)
        early = self.data[first, samples]
        # torch.lerp may round differently in the vectors and the tail of an array, and so with the batch
        return torch.where(share > 0, early + share * (self.data[after, samples] - early), early)


Proposing = Generator[Request, Tensor, Proposal | None]


def nothing() -> Proposing:  # noqa: DOC405
    """No proposal, and no request.

    Yields:
        Nothing.

    Returns:
        None.
    """
    return None
    yield  # what makes it a generator


class Guess(Protocol):
    """Where entering nodes start."""

    @property
    def models(self) -> tuple[Model, ...]:
        """Models beside the solve's own that :meth:`propose` asks: a request with ``model=k`` goes to the k-th."""
        ...

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:  # noqa: DOC403
        """Propose data predictions before the first round; not called for windows of one node.

        Args:
            table: The table of the solve, in the form of the model.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from; for row m, columns up to m only.

        Yields:
            Requests, one a round.

        Returns:
            The proposal, or None to continue with what is known.
        """
        ...

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

    models = ()

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:
        """No proposal.

        Args:
            table: The table of the solve.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from.

        Returns:
            None, at once.
        """
        return nothing()

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

    models = ()

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:
        """No proposal.

        Args:
            table: The table of the solve.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from.

        Returns:
            None, at once.
        """
        return nothing()

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

    models = ()

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:
        """No proposal.

        Args:
            table: The table of the solve.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from.

        Returns:
            None, at once.
        """
        return nothing()

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
