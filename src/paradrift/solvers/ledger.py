"""The books of a solve: answers, statuses, error estimates, and accepted rows that wait for their verification."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from paradrift.solution import Status
from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values


@dataclass(frozen=True, kw_only=True)
class Check:
    """Accepted nodes to evaluate once more, at their accepted states.

    Args:
        x: States, shape (K, D).
        out: Outputs that the rows after them were computed with, shape (K, D).
        row: Absolute rows, shape (K,).
        sample: Samples, shape (K,).
        weight: Effect of a unit defect on the answer, in units of sqrt(v0), shape (K,).
    """

    x: Values
    out: Values
    row: Values
    sample: Values
    weight: Values


@dataclass(kw_only=True)
class Ledger:
    """Results by sample, over all samples of the solve.

    Args:
        answers: Final states, shape (S, D).
        status: One per sample, None while running.
        bound: Sum of contributions to the error, shape (S,), float64.
        rounds: Rounds in which each sample took part, shape (S,), int64.
        trajectory: All rows, shape (S, R, D), or None.
        outputs: Outputs that the rows were computed with, shape (S, R, D), or None.
        nats: Nats that each node's step has cost, shape (S, M), float64, for verdicts; M is 0 without one.
        llr: Log-likelihood ratio of the settled steps, shape (S,), float64.
        rejected: Drafts that were replaced, shape (S,), int64.
        checks: Accepted nodes that wait.
    """

    answers: Values
    status: list[Status | None]
    bound: Values
    rounds: Values
    trajectory: Values | None
    outputs: Values | None
    nats: Tensor
    llr: Tensor
    rejected: Tensor
    checks: list[Check] = field(default_factory=list)

    @staticmethod
    def open(start: Tensor, keep_rows: int, keep_outputs: int, judged: int, host: bool) -> Ledger:
        """Empty books.

        Args:
            start: Starting states, shape (S, D).
            keep_rows: Rows of the trajectory to keep; 0 for none.
            keep_outputs: Rows whose outputs to keep; 0 for none.
            judged: Nodes whose cost in nats is booked; 0 for none.
            host: Whether the solve holds numpy arrays.

        Returns:
            The ledger.
        """
        samples, elements = start.shape
        trajectory = start.new_full((samples, keep_rows, elements), torch.nan) if keep_rows else None
        outputs = start.new_full((samples, keep_outputs, elements), torch.nan) if keep_outputs else None
        if trajectory is not None:
            trajectory[:, 0] = start
        return Ledger(
            answers=arrays.of(start.clone(), host),
            status=[None] * samples,
            bound=arrays.of(torch.zeros(samples, dtype=torch.float64, device=start.device), host),
            rounds=arrays.of(torch.zeros(samples, dtype=torch.int64, device=start.device), host),
            nats=torch.zeros(samples, judged, dtype=torch.float64, device=start.device),
            llr=torch.zeros(samples, dtype=torch.float64, device=start.device),
            rejected=torch.zeros(samples, dtype=torch.int64, device=start.device),
            trajectory=None if trajectory is None else arrays.of(trajectory, host),
            outputs=None if outputs is None else arrays.of(outputs, host),
        )

    def take_checks(self) -> Check | None:
        """All nodes that wait, as one; the waiting list is empty afterwards.

        Returns:
            The check, or None when nothing waits.
        """
        if not self.checks:
            return None
        parts, self.checks = self.checks, []
        if len(parts) == 1:
            return parts[0]
        names = ("x", "out", "row", "sample", "weight")
        joined = arrays.library(parts[0].x).concatenate
        return Check(**{name: joined([getattr(part, name) for part in parts]) for name in names})

    def verify(self, check: Check, outputs: Values) -> None:
        """Book the true defects of accepted nodes.

        Args:
            check: The nodes.
            outputs: Model outputs at their accepted states, shape (K, D).
        """
        defect = arrays.tensor(outputs - check.out).double().square().mean(1).sqrt()
        self.contribute(check.sample, arrays.as_in(defect, outputs) * check.weight)

    def contribute(self, samples: Values, contributions: Values) -> None:
        """Add contributions to the error of samples.

        They add up as they are: along a smooth path, neighbouring defects point the same way.

        Args:
            samples: Sample of each contribution, shape (K,).
            contributions: In units of sqrt(v0), shape (K,); those that are not a number count as infinite.
        """
        xp, more = arrays.library(contributions), arrays.cast(contributions, self.bound)
        arrays.add_at(self.bound, samples, xp.where(xp.isnan(more), torch.inf, more))

    def spent(self, samples: Tensor) -> Tensor:
        """Nats booked so far.

        Args:
            samples: Which, shape (K,).

        Returns:
            Shape (K,), float64.
        """
        return self.nats[samples].sum(1)

    def spend(self, samples: Tensor, nodes: Tensor, nats: Tensor, product: Tensor) -> None:
        """Book drafts that stand.

        Args:
            samples: Sample of each step, shape (K,).
            nodes: Node of each step, shape (K,).
            nats: Half its squared shift, shape (K,).
            product: Its shift times its noise, shape (K,).
        """
        self.nats[samples, nodes] = nats
        self.llr.index_add_(0, samples, nats + product)

    def reject(self, samples: Tensor, fallen: Tensor) -> None:
        """Count drafts that were replaced.

        Args:
            samples: Which samples, shape (K,).
            fallen: Whether one of theirs was, shape (K,), bool.
        """
        self.rejected[samples] += fallen.long()

    def close(self, samples: Values, answers: Values, status: Status) -> None:
        """Enter the end of some samples.

        Args:
            samples: Which, shape (K,).
            answers: Their final states, shape (K, D).
            status: How they ended.
        """
        self.answers[samples] = answers
        for sample in samples.tolist():
            self.status[sample] = status

    def error(self) -> Tensor:
        """Estimated error of each sample, shape (S,), in units of sqrt(v0)."""
        return arrays.tensor(self.bound).clone()
