"""The books of chains that are solved in segments: where each stands, what was kept, how it ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.langevin.chain import Chain, Segment
from paradrift.langevin.tables import Dynamics
from paradrift.solution import Solution, Stats, Status


@dataclass(kw_only=True)
class Books:
    """Chains in progress, S of them.

    Args:
        dynamics: What they follow.
        thin: Steps between two states that are kept.
        position: The last settled state of each, shape (S, *shape).
        momentum: Its velocity in units of the friction, as the tables hold it, shape (S, *shape); None if overdamped.
        states: What is kept, shape (S, K, *shape).
        velocities: The same of velocities, or None.
        status: How each ended; None while it runs.
        error: Estimated errors so far, shape (S,), float64.
        rounds: Rounds of each so far.
    """

    dynamics: Dynamics
    thin: int
    position: Tensor
    momentum: Tensor | None
    states: Tensor
    velocities: Tensor | None
    status: list[Status | None]
    error: Tensor
    rounds: list[int]

    @staticmethod
    def open(x: Tensor, velocity: Tensor | None, dynamics: Dynamics, steps: int, thin: int) -> Books:
        """Chains at their starts.

        Args:
            x: Starts, shape (S, *shape).
            velocity: Velocities there, shape (S, *shape), or None.
            dynamics: What the chains follow.
            steps: Number of steps.
            thin: Steps between two states that are kept.

        Returns:
            The books.
        """
        states = x.new_full((len(x), steps // thin + 1, *x.shape[1:]), torch.nan)
        states[:, 0] = x.detach()
        momentum = velocities = None
        if velocity is not None and dynamics.friction is not None:
            velocities = torch.full_like(states, torch.nan)
            velocities[:, 0] = velocity.detach().to(x)
            momentum = velocities[:, 0] / dynamics.friction
        return Books(
            dynamics=dynamics,
            thin=thin,
            position=x.detach().clone(),
            momentum=momentum,
            states=states,
            velocities=velocities,
            status=[None] * len(x),
            error=torch.zeros(len(x), dtype=torch.float64, device=x.device),
            rounds=[0] * len(x),
        )

    def active(self) -> list[int]:
        """Chains that still run."""
        return [chain for chain, status in enumerate(self.status) if status is None]

    def give_up(self, chains: list[int]) -> None:
        """No rounds are left for these.

        Args:
            chains: Which.
        """
        for chain in chains:
            self.status[chain] = Status.BUDGET_EXHAUSTED
        self.error[chains] = torch.inf

    def enter(self, solution: Solution, chains: list[int], first: int, count: int) -> None:
        """Take in a segment.

        Args:
            solution: Its solution, with all rows.
            chains: The chains that it was solved for.
            first: Steps before it.
            count: Its steps.

        Raises:
            RuntimeError: if the rows were not kept.
        """
        rows = solution.trajectory
        if rows is None:
            raise RuntimeError("expected the trajectory that was asked for")
        positions = rows[:, self.dynamics.positions]
        finite = torch.isfinite(positions.flatten(2)).all(2)
        settled = finite.long().cumprod(1).sum(1)
        # steps first + 1 ... first + count; kept are the multiples of thin
        inside = slice(-(first + 1) % self.thin, None, self.thin)
        kept = slice(first // self.thin + 1, (first + count) // self.thin + 1)
        valid = torch.arange(count, device=rows.device)[None] < settled[:, None]
        valid = valid.reshape(*valid.shape, *(1,) * (rows.ndim - 2))[:, inside]
        self.states[chains, kept] = torch.where(valid, positions[:, inside], torch.nan)
        velocities = rows[:, self.dynamics.velocities]
        if self.velocities is not None and self.dynamics.friction is not None:
            scaled = velocities[:, inside] * self.dynamics.friction
            self.velocities[chains, kept] = torch.where(valid, scaled, torch.nan)
        self.error[chains] += solution.error.to(self.error)
        for index, (chain, last) in enumerate(zip(chains, settled.tolist(), strict=True)):
            self.rounds[chain] += solution.stats.sample_rounds[index]
            if last:
                self.position[chain] = positions[index, last - 1]
                if self.momentum is not None:
                    self.momentum[chain] = velocities[index, last - 1]
            if solution.status[index] is not Status.CONVERGED:
                self.status[chain] = solution.status[index]
            elif last < count:  # the last state of a chain is never evaluated: it may have overflowed unseen
                self.status[chain] = Status.NON_FINITE
                self.error[chain] = torch.inf

    def close(self, stats: Stats, segments: tuple[Segment, ...] | None) -> Chain:
        """The chains.

        Args:
            stats: What they cost.
            segments: The solves, where they are wanted.

        Returns:
            The answer.
        """
        friction = self.dynamics.friction
        return Chain(
            states=self.states,
            velocities=self.velocities,
            last=self.position,
            last_velocity=None if self.momentum is None or friction is None else self.momentum * friction,
            status=tuple(status or Status.CONVERGED for status in self.status),
            error=self.error,
            stats=stats,
            thin=self.thin,
            segments=segments,
        )
