r"""The sequential sampler itself: one node after the other, as lean as a loop written by hand.

A window of one node is the sequential sampler through the code of :mod:`paradrift.solvers.sweep`, which carries slopes,
references and verdicts that such a window never uses. This is the same sum in the same order,

.. math:: z_m = \sum_j c_{mj} \xi_j + \sum_j a_{mj} z_j + \sum_j b_{mj} f_j ,

nearest rows first, so the answers are equal to the last bit. Where no window promises to be faster, the library must
not be slower than the loop it replaces. Noises are drawn for several steps at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from paradrift.noise import Noise
from paradrift.slopes import to_data
from paradrift.solution import Round, Status
from paradrift.solvers.base import Interrupted, Outcome, Request, Solving
from paradrift.solvers.walk import by_row
from paradrift.tableau import Tableau

AHEAD = 1 << 20  # elements of noise that are drawn at once, at most


def plain(table: Tableau) -> bool:
    """Whether every row before the answer is a node, so that the chain can be stepped through.

    Args:
        table: The sampler's table.

    Returns:
        Whether it is so.
    """
    return bool(table.evaluated[:-1].all())


def stepping(  # noqa: DOC403
    table: Tableau,
    start: Tensor,
    noise: Noise,
    max_rounds: int | None = None,
    keep: bool = False,
    ahead: bool = True,
    observe: Callable[[Round], None] | None = None,
) -> Solving:
    """Step through a chain for a batch of samples.

    Args:
        table: The sampler's table, of which :func:`plain` is true.
        start: Starting states, already scaled, shape (S, *shape); their dtype is the dtype of the solve.
        noise: Where noises come from.
        max_rounds: Budget of rounds; None for no limit.
        keep: Whether to keep all rows.
        ahead: Whether noises may be drawn before their step.
        observe: Called after each round.

    Yields:
        Requests, one for each node.

    Returns:
        The outcome: errors are zero, and a sample whose model breaks keeps its last data prediction.
    """
    steps = _Steps(table, start, noise, keep, ahead)
    ending = Status.BUDGET_EXHAUSTED
    try:
        while steps.row < steps.last and len(steps.active) and (max_rounds is None or steps.row < max_rounds):
            answer = yield steps.request()
            steps.take(answer)
            if observe is not None:
                observe(steps.report())
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    return steps.outcome(ending)


class _Steps:
    """The chain so far: the newest rows and outputs, as far back as the table reaches."""

    def __init__(self, table: Tableau, start: Tensor, noise: Noise, keep: bool, ahead: bool) -> None:
        self.table, self.noise, self.shape, self.row, self.last = table, noise, start.shape[1:], 0, table.rows - 1
        flat, device = start.flatten(1), start.device
        samples, elements = flat.shape
        self.weights = {name: by_row(table, name) for name in "abc"}
        self.reach, self.far = table.reach, max([0, *table.lags[2]])
        self.p, self.q = to_data(table)
        self.scheduled = table.alpha is not None
        self.scale = table.scale.tolist()
        times = torch.as_tensor(np.where(table.evaluated, table.t, 0.0)).to(flat)
        self.times = times[:, None].expand(-1, samples)
        self.nodes = torch.arange(table.rows, device=device)[:, None].expand(-1, samples)
        self.chunk = max(1, min(64, AHEAD // max(1, samples * elements))) if ahead else 1
        self.active = torch.arange(samples, device=device)
        self.rows: dict[int, Tensor] = {0: flat}
        self.outputs: dict[int, Tensor] = {}
        self.noises: dict[int, Tensor] = {}
        self.drawn = 0  # columns before this one have been drawn
        self.answers = flat.clone()
        self.status: list[Status | None] = [None] * samples
        self.lost: dict[int, int] = {}  # rounds of samples whose model broke
        self.asked = self.evaluations = 0
        self.path = flat.new_full((samples, table.rows, elements), torch.nan) if keep else None
        if self.path is not None:
            self.path[:, 0] = flat

    def request(self) -> Request:
        """The newest row of every sample that is still going."""
        row, count = self.row, len(self.active)
        self.asked += 1
        self.evaluations += count
        x = self.rows[row]
        if self.scale[row] != 1:
            x = x * self.scale[row]
        return Request(
            x=x.unflatten(1, self.shape), t=self.times[row, :count], sample=self.active, node=self.nodes[row, :count]
        )

    def take(self, answer: Tensor) -> None:
        """One step."""
        output = answer.flatten(1).to(self.answers.dtype)
        finite = torch.isfinite(output)
        if not bool(finite.all()):
            finite = finite.all(1)
            self._drop(finite)
            output = output[finite]
        self.outputs[self.row] = output
        self.row += 1
        row = self.row
        state = torch.zeros_like(output)
        for column, weight in self.weights["c"][row]:
            state += weight * self._noise(column)
        for column, weight in self.weights["a"][row]:
            state += weight * self.rows[column]
        for column, weight in self.weights["b"][row]:
            state += weight * self.outputs[column]
        self.rows[row] = state
        self.rows.pop(row - self.reach, None)
        self.outputs.pop(row - self.reach, None)
        self.noises.pop(row - self.far, None)
        if self.path is not None:
            self.path[self.active, row] = state

    def _noise(self, column: int) -> Tensor:
        """The noise of a column for the samples still going, drawn with those of the steps that follow."""
        if column not in self.noises:
            columns = torch.arange(column, min(column + self.chunk, self.last + 1), device=self.active.device)
            drawn = self.noise.draw(self.active, columns.expand(len(self.active), -1)).flatten(2).to(self.answers.dtype)
            self.noises |= dict(zip(columns.tolist(), drawn.unbind(1), strict=True))
            self.noise.release(max(0, column - self.far))
        return self.noises[column]

    def _drop(self, finite: Tensor) -> None:
        """Let samples go whose model broke."""
        lost = self.active[~finite]
        self.answers[lost] = self._preview()[~finite]
        for sample in lost.tolist():
            self.status[sample], self.lost[sample] = Status.NON_FINITE, self.asked
        self.active = self.active[finite]
        for kept in (self.rows, self.outputs, self.noises):
            for name, tensor in kept.items():
                kept[name] = tensor[finite]

    def _preview(self) -> Tensor:
        """The newest data prediction of the samples still going (their state, for tables without a schedule)."""
        known = max(self.outputs, default=None)
        if not self.scheduled:
            return self.rows[self.row]
        if known is None or known not in self.rows:
            return self.answers[self.active]
        return (self.outputs[known] - float(self.p[known]) * self.rows[known]) / float(self.q[known])

    def report(self) -> Round:
        """What a callback sees."""
        samples = len(self.status)
        settled = torch.full((samples,), self.table.nodes, dtype=torch.int64)
        settled[self.active.cpu()] = self.row
        previews = self.answers.clone()
        previews[self.active] = self._preview()
        answers = torch.full_like(previews, torch.nan)
        if self.row == self.last:
            answers[self.active] = self.rows[self.row]
        return Round(
            index=self.row,
            evaluations=self.evaluations,
            settled=settled,
            nodes=self.table.nodes,
            change=torch.full((samples, self.last + 1), torch.nan, dtype=previews.dtype),
            preview=previews.unflatten(1, self.shape),
            answer=answers.unflatten(1, self.shape),
        )

    def outcome(self, ending: Status) -> Outcome:
        """Everything the machine needs to make a solution."""
        arrived = self.row == self.last
        self.answers[self.active] = self.rows[self.row] if arrived else self._preview()
        status = tuple(one or (Status.CONVERGED if arrived else ending) for one in self.status)
        error = self.answers.new_tensor([0.0 if one is Status.CONVERGED else torch.inf for one in status])
        return Outcome(
            samples=self.answers.unflatten(1, self.shape),
            status=status,
            error=error,
            rounds=tuple(self.lost.get(sample, self.asked) for sample in range(len(status))),
            window=1,
            certifiable=True,
            trajectory=None if self.path is None else self.path.unflatten(2, self.shape),
        )
