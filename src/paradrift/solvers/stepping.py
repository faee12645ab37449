r"""The sequential sampler itself: one node after the other, as lean as a loop written by hand.

A window of one node is the sequential sampler through the code of :mod:`paradrift.solvers.sweep`, which carries slopes,
references and verdicts that such a window never uses. This is the same sum in the same order,

.. math:: z_m = \sum_j c_{mj} \xi_j + \sum_j a_{mj} z_j + \sum_j b_{mj} f_j ,

nearest rows first, so the answers are equal to the last bit. Where no window promises to be faster, the library must
not be slower than the loop it replaces: noises are drawn for several steps at a time, weights are tensors made once a
table (which torch multiplies by in a third of the time that a number takes), and states keep the sample's shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.forms import Affine
from paradrift.noise import Noise
from paradrift.slopes import to_data
from paradrift.solution import Round, Status
from paradrift.solvers.base import Interrupted, Outcome, Request, Solving
from paradrift.solvers.walk import by_row
from paradrift.tableau import Tableau

AHEAD = 1 << 20  # elements of noise that are drawn at once, at most
LISTED = 64  # elements that are added up faster as Python numbers than by torch, at most
KEPT = 4  # chains made ready
FEW = 16  # terms a row: beyond, tensors of one number each would take more memory than their table

Term = tuple[int, int, Tensor | float]  # of noises, states or outputs (0, 1 or 2), the column, the weight


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
    steps, ending = _Steps(table, start, noise, keep, ahead), Status.BUDGET_EXHAUSTED
    chain, rows, outputs, noises = steps.chain, steps.rows, steps.outputs, steps.noises
    times, nodes, sources = steps.times, steps.nodes, (noises, rows, outputs)
    dtype, row = start.dtype, 0
    stop = steps.last if max_rounds is None else min(steps.last, max_rounds)
    try:
        while row < stop and steps.count:
            x, scale = rows[row], chain.scales[row]
            steps.asked += 1
            steps.evaluations += steps.count
            answer = yield Request(
                x=x if scale is None else x * scale, t=times[row], sample=steps.active, node=nodes[row]
            )
            output = (answer if answer.dtype is dtype else answer.to(dtype)).contiguous()
            if not math.isfinite(_sum(output)):  # so it is where an element is not, and where the sum overflows
                output = steps.drop(output)
            outputs[row] = output
            row += 1
            state = None
            for source, column, weight in chain.terms[row]:
                if not source and column not in noises:
                    steps.draw(column)
                term = weight * sources[source][column]
                state = chain.zero + term if state is None else state.add_(term)
            rows[row] = torch.zeros_like(output) if state is None else state
            steps.row = row
            rows.pop(row - chain.reach, None)
            outputs.pop(row - chain.reach, None)
            noises.pop(row - chain.far, None)
            if steps.path is not None:
                steps.path[steps.active, row] = rows[row]
            if observe is not None:
                observe(steps.report())
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    return steps.outcome(ending)


@dataclass(frozen=True, kw_only=True)
class _Chain:
    """A table made ready for steps.

    Args:
        terms: Noises, then states, then outputs of each row, the nearest first.
        scales: What the model's input is multiplied by, by row; None for 1.
        zero: What sums begin with.
        times: Model times, shape (R,), float64, zeros where there is no node.
        reach: How many earlier rows a row may use.
        far: How many noises before its own a row may use.
    """

    terms: list[list[Term]]
    scales: list[Tensor | float | None]
    zero: Tensor
    times: Tensor
    reach: int
    far: int


@functools.lru_cache(maxsize=KEPT)
def _chain(table: Tableau, dtype: torch.dtype) -> _Chain:
    """The table's numbers in a precision, rounded as a number is that multiplies a tensor; on the host."""
    with torch.inference_mode(False):

        def numbers(values: list[float]) -> list[Tensor] | list[float]:
            if len(values) > FEW * table.rows:
                return values
            return list(torch.tensor(values, dtype=torch.float64).to(dtype).unbind())

        terms: list[list[Term]] = [[] for _ in range(table.rows)]
        for source, name in enumerate("cab"):
            rows = by_row(table, name)
            ready = iter(numbers([weight for own in rows for _, weight in own]))
            for row, own in enumerate(rows):
                terms[row] += [(source, column, next(ready)) for column, _ in own]
        scales = numbers(table.scale.tolist())
        return _Chain(
            terms=terms,
            scales=[None if one == 1 else scale for one, scale in zip(table.scale.tolist(), scales, strict=True)],
            zero=torch.zeros((), dtype=dtype),
            times=torch.as_tensor(np.where(table.evaluated, table.t, 0.0)),
            reach=table.reach,
            far=max([0, *table.lags[2]]),
        )


def _sum(output: Tensor) -> float:
    """The sum of all elements, whichever way is faster."""
    return sum(output.flatten().tolist()) if output.numel() <= LISTED else output.sum().item()


class _Steps:
    """The chain so far: the newest rows and outputs, as far back as the table reaches."""

    def __init__(self, table: Tableau, start: Tensor, noise: Noise, keep: bool, ahead: bool) -> None:
        self.table, self.noise, self.row, self.last = table, noise, 0, table.rows - 1
        start = start.contiguous()
        samples, device = len(start), start.device
        self.chain = _chain(table, start.dtype)
        self.times = list(self.chain.times.to(start)[:, None].expand(-1, samples).unbind())
        self.nodes = list(torch.arange(table.rows, device=device)[:, None].expand(-1, samples).unbind())
        self.chunk = max(1, min(64, AHEAD // max(1, start.numel()))) if ahead else 1
        self.active = torch.arange(samples, device=device)
        self.count = samples  # of those that are still going
        self.rows: dict[int, Tensor] = {0: start}
        self.outputs: dict[int, Tensor] = {}
        self.noises: dict[int, Tensor] = {}
        self.answers = start.clone()
        self.status: list[Status | None] = [None] * samples
        self.lost: dict[int, int] = {}  # rounds of samples whose model broke
        self.asked = self.evaluations = 0
        self.path = start.new_full((samples, table.rows, *start.shape[1:]), torch.nan) if keep else None
        if self.path is not None:
            self.path[:, 0] = start

    def draw(self, column: int) -> None:
        """Draw the noises of a column for the samples still going, and those of the steps that follow."""
        columns = torch.arange(column, min(column + self.chunk, self.last + 1), device=self.active.device)
        drawn = self.noise.draw(self.active, columns.expand(self.count, -1)).to(self.answers.dtype)
        self.noises |= dict(zip(columns.tolist(), drawn.unbind(1), strict=True))
        self.noise.release(max(0, column - self.chain.far))

    def drop(self, output: Tensor) -> Tensor:
        """Let samples go whose model broke; the outputs of the others."""
        finite = torch.isfinite(output).flatten(1).all(1)
        lost = self.active[~finite]
        self.answers[lost] = self._preview()[~finite]
        for sample in lost.tolist():
            self.status[sample], self.lost[sample] = Status.NON_FINITE, self.asked
        self.active = self.active[finite]
        self.count = len(self.active)
        for kept in (self.rows, self.outputs, self.noises):
            for name, tensor in kept.items():
                kept[name] = tensor[finite]
        for views in (self.times, self.nodes):
            views[:] = [view[: self.count] for view in views]
        return output[finite]

    def _preview(self) -> Tensor:
        """The newest data prediction of the samples still going (their state, for tables without a schedule)."""
        known = max(self.outputs, default=None)
        if self.table.alpha is None:
            return self.rows[self.row]
        if known is None or known not in self.rows:
            return self.answers[self.active]
        p, q = self.levels
        return (self.outputs[known] - float(p[known]) * self.rows[known]) / float(q[known])

    @functools.cached_property
    def levels(self) -> Affine:
        """What turns outputs into data predictions, for those who look on the way."""
        return to_data(self.table)

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
            preview=previews,
            answer=answers,
        )

    def outcome(self, ending: Status) -> Outcome:
        """Everything the machine needs to make a solution."""
        arrived = self.row == self.last
        self.answers[self.active] = self.rows[self.row] if arrived else self._preview()
        status = tuple(one or (Status.CONVERGED if arrived else ending) for one in self.status)
        error = self.answers.new_tensor([0.0 if one is Status.CONVERGED else torch.inf for one in status])
        return Outcome(
            samples=self.answers,
            status=status,
            error=error,
            rounds=tuple(self.lost.get(sample, self.asked) for sample in range(len(status))),
            window=1,
            certifiable=True,
            trajectory=self.path,
        )
