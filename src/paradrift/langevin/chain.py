"""The answer: chains, how far each can be trusted, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift import certificate
from paradrift.certificate import Certificate
from paradrift.denoisers import Denoiser
from paradrift.errors import SpecError
from paradrift.noise import Noise
from paradrift.solution import Solution, Stats, Status
from paradrift.summing import over_rows
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of the chain that was solved as one table.

    Args:
        solution: The solve, with all rows.
        table: The table.
        noise: The noise of the segment.
        score: The model.
    """

    solution: Solution
    table: Tableau
    noise: Noise
    score: Denoiser


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Langevin chains.

    Args:
        states: The start and every ``thin``-th state, shape (S, K, *shape), K = steps // thin + 1; NaN from where a
            chain broke or was given up.
        velocities: Velocities at the same steps, shape (S, K, *shape); None for overdamped chains.
        last: The last state of each chain that is not NaN, shape (S, *shape): that of the last step, or the best so
            far.
        last_velocity: The velocity with it, shape (S, *shape); None for overdamped chains.
        status: How each chain ended, one per chain.
        error: Estimated distance of each chain to the sequential one, rms over elements in the unit of the tolerance,
            shape (S,): the sum over segments. Infinite where the score broke.
        stats: What it cost, all segments together.
        thin: Steps between two states that were kept.
        segments: The solves with all their rows, when they were asked for.
    """

    states: Tensor
    velocities: Tensor | None
    last: Tensor
    last_velocity: Tensor | None
    status: tuple[Status, ...]
    error: Tensor
    stats: Stats
    thin: int
    segments: tuple[Segment, ...] | None

    @property
    def converged(self) -> bool:
        """Whether every chain converged."""
        return all(status is Status.CONVERGED for status in self.status)

    def kl(self, max_rows: int | None = None) -> Certificate:
        """The divergence of these chains from the sequential ones, in nats: :func:`paradrift.certificate.kl`.

        The nats and the log-likelihood ratios of consecutive segments add up, since each starts where the one before
        ended.

        Args:
            max_rows: Most rows in one call of the score.

        Returns:
            The certificate of the whole chain; its samples are the last states.

        Raises:
            SpecError: if the rows were not kept, or if a chain did not converge.

        Cost: one evaluation per step and chain, none waiting for another.
        """
        if self.segments is None:
            raise SpecError("expected chains with all their rows, found none: solve with trajectory=True")
        parts = [
            certificate.kl(part.solution, part.score, noise=part.noise, max_rows=max_rows) for part in self.segments
        ]
        return Certificate(
            nats=over_rows(torch.stack([part.nats for part in parts])),
            per_node=torch.cat([part.per_node for part in parts]),
            llr=over_rows(torch.stack([part.llr for part in parts])),
            samples=parts[-1].samples,
            evaluations=sum(part.evaluations for part in parts),
        )
