r"""Parareal, which the literature on diffusion models calls SRDS: coarse steps one after the other, fine ones at once.

The chain is cut into B blocks. F is the sampler's own way through a block, G a coarse one, :math:`x_i` the state where
block i begins:

.. math:: x^0_{i+1} = G(x^0_i), \qquad x^{p+1}_{i+1} = F(x^p_i) + G(x^{p+1}_i) - G(x^p_i) .

After p iterations the first p blocks are exact, whatever G is: after B iterations the answer is the sequential
sampler's. Blocks that are exact are not computed again. Memory is that of the B states, not of the chain (the noises of
a generator aside).

**Coarse steps** are either the sampler's own steps with one output held over them (:mod:`paradrift.solvers.holding`),
or another sampler on the times where they begin and end. **Noise** is frozen: F sees the addressed noises of the
sequential sampler in every iteration, and G sees what they add up to within each coarse step with the output held,
scaled to unit variance; nothing, where F has none. For exponential integrators G is then the same integrator with
larger steps, driven by the same noise.

**Rounds.** Let every block have L fine and q <= L coarse evaluations. An iterate is known at round

.. math:: T_0(i) = i q, \qquad T_p(i+1) = \max\bigl(T_{p-1}(i) + L,\; T_p(i) + q\bigr), \qquad
          T_p(B) = p L + (B - p) q ,

when everything starts as soon as what it needs is known (pipelined); a round is one batch of all that is ready. The
published Algorithm 1 waits for the end of each iteration before the next begins, which takes
:math:`B q + \sum_{r=1}^{p} (L + (B - r) q)` rounds, and evaluates nothing that turns out not to be needed. Blocks of
different sizes follow the recursion with :math:`L_i, q_i`, with :math:`T_{p-1}(B)` for :math:`T_{p-1}(i)` if not
pipelined.

A value that is not finite is replaced: by F alone, by G alone, or by the state before it; the answers of such an
iteration are not accepted, unless they are exact.

Source: Selvam, Merchant, Ermon 2024, arXiv 2412.08292 (SRDS); Lions, Maday, Turinici 2001 (parareal).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.samplers import Sampler
from paradrift.solution import Status
from paradrift.solvers.base import Interrupted, Solving
from paradrift.solvers.blocks import Block, blocks
from paradrift.solvers.book import Book
from paradrift.solvers.diagonal import rms
from paradrift.solvers.method import Problem
from paradrift.solvers.walk import Ask, Lane


@dataclass(frozen=True, kw_only=True)
class Parareal:
    """The choices of parareal; see :mod:`paradrift.solvers.parareal`.

    Args:
        blocks: Number of blocks B; None for the root of the number of nodes, as published.
        coarse: The coarse sampler; None to hold one output of the sampler's own over each coarse step.
        coarse_steps: Coarse steps in a block, at least 1; no more than the block has steps.
        tol: A sample is settled when its answer changes by less in an iteration, rms over elements in units of
            sqrt(v0): what the published rule looks at, no bound of the error. 0: only when it is exact.
        iterations: Most iterations; None for as many as make it exact.
        pipelined: Whether an iteration begins before the one before it has reached the end.
        max_rounds: Budget of rounds; None for no limit.

    Raises:
        SpecError: if a number is out of range.
    """

    blocks: int | None = None
    coarse: Sampler | None = None
    coarse_steps: int = 1
    tol: float = 1e-2
    iterations: int | None = None
    pipelined: bool = True
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        for name in ("blocks", "coarse_steps", "iterations", "max_rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"expected {name} of at least 1, found {value}")
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")

    @property
    def causal(self) -> bool:
        """False: earlier blocks are put right after later ones have been seen."""
        return False

    def within(self, max_rounds: int) -> Parareal:
        """The same method with a budget.

        Args:
            max_rounds: Most rounds.

        Returns:
            The method.
        """
        return dataclasses.replace(self, max_rounds=max_rounds)

    def solve(self, problem: Problem) -> Solving:
        """Solve a problem.

        Args:
            problem: The chain.

        Returns:
            A solver that has not been started.

        Raises:
            SpecError: if the chain cannot be cut, or the coarse sampler does not fit it.
        """
        count = math.isqrt(problem.table.nodes) if self.blocks is None else self.blocks
        cut = blocks(problem, count, self.coarse, self.coarse_steps)  # refusals come now, not in the first round
        return _solve(self, problem, cut)


class _Task(NamedTuple):
    """A walk through a block on behalf of an iteration."""

    fine: bool
    block: int
    iteration: int
    walk: Generator[Ask, Tensor, Tensor]


def _solve(method: Parareal, problem: Problem, cut: tuple[Block, ...]) -> Solving:
    """Rounds of everything that is ready, until no sample is left."""
    run, ending = _Run(method, problem, cut), Status.BUDGET_EXHAUSTED
    book = run.book
    try:
        run.begin()
        while bool(book.active.any()) and (method.max_rounds is None or book.round < method.max_rounds):
            run.waiting.sort(key=lambda pair: (pair[0].block, pair[0].fine, pair[1].node))
            tasks, asks = zip(*run.waiting, strict=True)
            answer = yield book.request(asks)
            run.waiting = []
            run.change[:] = torch.nan
            for task, outputs in zip(tasks, book.outputs(asks, answer), strict=True):
                run.step(task, outputs)
            run.release()
            if problem.observe is not None:
                problem.observe(book.report(run.exact, run.change))
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    return book.outcome(ending)


class _Run:
    """One solve in progress."""

    def __init__(self, method: Parareal, problem: Problem, cut: tuple[Block, ...]) -> None:
        self.method, self.problem, self.cut = method, problem, cut
        self.book = Book(problem)
        self.limit = min(method.iterations or len(cut), len(cut))
        self.lanes = [(self._coarse(block), self._fine(block)) for block in cut]
        self.waiting: list[tuple[_Task, Ask]] = []
        self.states: dict[tuple[int, int], Tensor] = {}  # x[i, p], until F has started from it
        self.done: dict[tuple[bool, int, int], Tensor] = {}  # ends of F and G by (fine, i, p)
        self.newest: dict[int, Tensor] = {}
        self.whole = [torch.ones_like(self.book.active) for _ in range(len(cut) + 1)]
        self.reached = -1  # the last iterate whose end is known
        self.exact = 0  # nodes
        self.change = self.book.start.new_full((len(self.book.start), problem.table.rows), torch.nan)

    def begin(self) -> None:
        """The start is known, in every iteration."""
        self._know(0, 0, self.book.start)

    def step(self, task: _Task, outputs: Tensor) -> None:
        """Let a walk go on.

        Args:
            task: The walk.
            outputs: What it was waiting for, shape (S, D).
        """
        try:
            self.waiting.append((task, task.walk.send(outputs)))
        except StopIteration as end:
            self.done[task.fine, task.block, task.iteration] = end.value
            self._combine(task.block, task.iteration)

    def release(self) -> None:
        """Forget the noises of blocks through which no walk will lead any more."""
        busy = [task.block for task, _ in self.waiting] + [block for block, _ in self.states]
        if busy:
            self.problem.noise.release(self.cut[min(busy)].first + 1)

    def _coarse(self, block: Block) -> Lane:
        """The coarse way through a block, with noises added up from the fine ones."""
        mix = block.mix

        def noise(column: int) -> Tensor:
            total = torch.zeros_like(self.book.start)
            for fine in mix[column].nonzero()[0].tolist():
                total += float(mix[column, fine]) * self._drawn(fine)
            return total

        return Lane(block.coarse, list(block.nodes), noise)

    def _fine(self, block: Block) -> Lane:
        """The sampler's own way through a block."""
        rows = list(range(block.first, block.last + 1))
        return Lane(block.fine, rows, lambda column: self._drawn(block.first + column))

    def _drawn(self, column: int) -> Tensor:
        """A noise of the sequential sampler, shape (S, D)."""
        columns = torch.full((len(self.book.ids), 1), column)
        return self.problem.noise.draw(self.book.ids, columns).flatten(1).to(self.book.start)

    def _start(self, fine: bool, block: int, iteration: int, state: Tensor) -> None:
        """Begin a walk."""
        first = self.cut[block].first
        see = (lambda row, value: self.book.keep(first + row, value)) if fine and self.problem.keep else None
        walk = self.lanes[block][fine].walk(state, see)
        self.waiting.append((_Task(fine, block, iteration, walk), next(walk)))

    def _know(self, block: int, iteration: int, state: Tensor) -> None:
        """x[i, p] is known: start what waits for it."""
        if block in self.newest and block < len(self.cut):
            row = self.cut[block].first
            level = 1.0 if self.problem.table.alpha is None else max(float(self.problem.table.alpha[row]), 1e-3)
            self.change[:, row] = rms(state - self.newest[block]) / level / self.book.unit()
        self.newest[block] = state
        if block == len(self.cut):
            self._end(iteration, state)
            return
        self.book.keep(self.cut[block].first, state)
        self.states[block, iteration] = state
        self._start(False, block, iteration, state)
        self._refine()

    def _refine(self) -> None:
        """Start fine walks from all states that may be used now."""
        for block, iteration in self._ready():
            self._start(True, block, iteration + 1, self.states.pop((block, iteration)))

    def _ready(self) -> Iterator[tuple[int, int]]:
        """States whose fine walks may begin."""
        for block, iteration in sorted(self.states):
            if iteration < self.limit and (self.method.pipelined or iteration <= self.reached):
                yield block, iteration

    def _combine(self, block: int, iteration: int) -> None:
        """x[i + 1, p], once everything that it is made of is known."""
        fine, new = self.done.get((True, block, iteration)), self.done.get((False, block, iteration))
        if iteration == block + 1 and fine is not None:  # from an exact state
            for way in (True, False):
                self.done.pop((way, block, block + way), None)
            self.exact += int(self.cut[block].fine.nodes)
            self.book.fail(~torch.isfinite(fine).all(1))
            self._know(block + 1, iteration, fine)
        elif iteration == 0 and new is not None:
            self._know(block + 1, 0, self._repaired(block, iteration, new))
        elif fine is not None and new is not None:
            del self.done[True, block, iteration]
            old = self.done.pop((False, block, iteration - 1))
            self._know(block + 1, iteration, self._repaired(block, iteration, fine + (new - old), fine, new))

    def _repaired(self, block: int, iteration: int, *values: Tensor) -> Tensor:
        """The first value that is finite, else the newest state where the block begins; and a note that it is not."""
        best = self.newest[block]
        for value in reversed(values):
            best = torch.where(torch.isfinite(value).all(1, keepdim=True), value, best)
        self.whole[iteration] &= torch.isfinite(values[0]).all(1)
        return best

    def _end(self, iteration: int, answers: Tensor) -> None:
        """An iterate has reached the answer."""
        self.reached = iteration
        final = iteration > 0 and iteration >= self.limit
        exact = iteration == len(self.cut)
        tol = self.method.tol if iteration else 0.0
        self.change[:, -1] = rms(answers - self.book.answers) / self.book.unit()
        self.book.arrive(answers, self.whole[iteration] | exact, tol, final, exact)
        if final and bool(self.book.active.any()):
            self.limit += 1  # an answer that was not whole is not accepted: go on towards the exact one
        self._refine()
