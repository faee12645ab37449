"""What a solver of its own kind keeps for each sample: whether it is done, its answer, what it cost."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paradrift.solution import Round, Status
from paradrift.solvers.base import Outcome, Request
from paradrift.solvers.diagonal import rms
from paradrift.solvers.method import Problem
from paradrift.solvers.walk import Ask


class Book:
    """The samples of one solve; samples that are done are not asked for any more.

    Args:
        problem: The chain.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.shape = problem, problem.start.shape[1:]
        self.start = problem.start.flatten(1)
        count, device = len(self.start), self.start.device
        self.ids = torch.arange(count, device=device)
        self.active = torch.ones(count, dtype=torch.bool, device=device)
        self.status: list[Status | None] = [None] * count
        self.answers = torch.full_like(self.start, torch.nan)
        self.error = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
        self.rounds = torch.zeros(count, dtype=torch.int64, device=device)
        self.preview = self.start.clone()
        self.round = self.evaluations = self.widest = 0
        table = problem.table
        self.path: Tensor | None = None
        if problem.keep:
            self.path = self.start.new_full((count, table.rows, self.start.shape[1]), torch.nan)
            self.path[:, 0] = self.start

    def request(self, asks: Sequence[Ask]) -> Request:
        """One round.

        Args:
            asks: What is to be evaluated, the furthest row last.

        Returns:
            The request: every row for each active sample.
        """
        ids = self.ids[self.active]
        self.round += 1
        self.rounds += self.active
        self.evaluations += len(asks) * len(ids)
        self.widest = max(self.widest, len(asks))
        times = self.start.new_tensor([ask.t for ask in asks])
        nodes = torch.tensor([ask.node for ask in asks], device=ids.device)
        return Request(
            x=torch.cat([ask.state[ids] * ask.scale for ask in asks]).unflatten(1, self.shape),
            t=times.repeat_interleave(len(ids)),
            sample=ids.repeat(len(asks)),
            node=nodes.repeat_interleave(len(ids)),
        )

    def outputs(self, asks: Sequence[Ask], answer: Tensor) -> Tensor:
        """The outputs of a round.

        Args:
            asks: What was asked.
            answer: The model's answer to the request.

        Returns:
            Shape (K, S, D), zero for samples that are done.
        """
        outputs = self.start.new_zeros(len(asks), *self.start.shape)
        outputs[:, self.active] = answer.flatten(1).to(outputs).unflatten(0, (len(asks), -1))
        last = asks[-1]
        data = last.state if self.problem.table.alpha is None else (outputs[-1] - last.p * last.state) / last.q
        good = self.active & torch.isfinite(data).all(1)
        self.preview = torch.where(good[:, None], data, self.preview)
        return outputs

    def unit(self) -> Tensor:
        """sqrt(v0) of each sample, shape (S,): given, or the rms of its own data prediction."""
        if self.problem.variance is not None:
            return self.start.new_full((len(self.ids),), self.problem.variance**0.5)
        size = rms(self.preview)
        return torch.where(size > 0, size, 1.0)

    def keep(self, row: int, states: Tensor) -> None:
        """Keep the newest states of a row, where rows are kept.

        Args:
            row: The row.
            states: Shape (S, D).
        """
        if self.path is not None:
            self.path[self.active, row] = states[self.active]

    def arrive(self, answers: Tensor, whole: Tensor, tol: float, final: bool, exact: bool) -> None:
        """Take in a new value of the answer, and settle the samples that it is good enough for.

        Args:
            answers: Shape (S, D).
            whole: Whether it was made without any output that was not finite, shape (S,), bool.
            tol: Settle where it has changed by less, rms over elements in units of sqrt(v0).
            final: Settle all the same.
            exact: It is the sequential sampler's own.
        """
        change = rms(answers - self.answers) / self.unit()
        taken = self.active & torch.isfinite(answers).all(1)
        self.answers = torch.where(taken[:, None], answers, self.answers)
        error = torch.zeros_like(self.error) if exact else torch.nan_to_num(change.double(), nan=torch.inf)
        self.error = torch.where(taken, error, self.error)
        self.keep(self.problem.table.rows - 1, self.answers)
        self.settle(taken & whole & ((change < tol) | final), Status.CONVERGED)

    def fail(self, broken: Tensor) -> None:
        """Some samples have no finite output where the sequential sampler has none either.

        Args:
            broken: Which, shape (S,), bool.
        """
        self.error = torch.where(broken & self.active, torch.inf, self.error)
        self.settle(broken, Status.NON_FINITE)

    def outcome(self, ending: Status) -> Outcome:
        """Everything the machine needs to make a solution.

        Args:
            ending: How samples end that are not done.

        Returns:
            The outcome.
        """
        known = torch.isfinite(self.answers).all(1, keepdim=True)
        path = self.path
        return Outcome(
            samples=torch.where(known, self.answers, self.preview).unflatten(1, self.shape),
            status=tuple(status or ending for status in self.status),
            error=self.error.to(self.start.dtype),
            rounds=tuple(self.rounds.tolist()),
            window=self.widest,
            certifiable=False,
            trajectory=None if path is None else path.unflatten(2, self.shape),
        )

    def settle(self, done: Tensor, status: Status) -> None:
        """Some samples are done.

        Args:
            done: Which, shape (S,), bool.
            status: How they ended.
        """
        for index in (done & self.active).nonzero().flatten().tolist():
            self.status[index] = status
        self.active = self.active & ~done

    def report(self, settled: int, change: Tensor) -> Round:
        """What a callback sees.

        Args:
            settled: Nodes that are exact.
            change: Last change of each row in units of sqrt(v0), shape (S, R), NaN where there was none.

        Returns:
            The report.
        """
        nodes = self.problem.table.nodes
        return Round(
            index=self.round,
            evaluations=self.evaluations,
            settled=torch.where(self.active, settled, nodes).cpu(),
            nodes=nodes,
            change=change.cpu().clone(),  # the solver writes the next round into its own
            preview=self.preview.clone().unflatten(1, self.shape),
            answer=self.answers.clone().unflatten(1, self.shape),
        )
