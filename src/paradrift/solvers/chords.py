r"""CHORDS: several cores walk the same chain at once, the later ahead of the earlier, and are put right by them.

Core k (from 0) walks the sampler's own steps, one a round, from step :math:`s_k` on, :math:`0 = s_0 < s_1 < \dots`.
Where it starts is known once core k - 1 has made its first evaluation: a jump from :math:`s_{k-1}` with that output
held. So core k first evaluates in round k + 1, is at step :math:`s_k + n - k` after round n, and at the end, step M,
after round

.. math:: n_k = M - s_k + k ;

the jump of the last of K cores to the end, known after round K, is an answer too, the first of all. For M = 50 and
starts 0, 2, 4, 8, 16, 24, 32, 40 answers arrive after rounds 8, 17, 24, 31, 38, 45, 48, 49 and 50.

When core k - 1 evaluates at the step b where core k's *segment* began, core k is rectified in the same round: with
:math:`J_{b \to m}(x, f)` the jump with f held,

.. math:: x^k_m = F(x^k_{m-1}) + J_{b\to m}(x^{k-1}_b, f^{k-1}_b) - J_{b\to m}(x^{b,k}, f^{b,k}),

:math:`x^{b,k}, f^{b,k}` where its segment began and the output there; its next segment begins at m. Both outputs are
known, so this costs nothing. Core k - 1 is at b in round :math:`b - s_{k-1} + k`, when core k has come to
:math:`m = b + d_k` with :math:`d_k = s_k - s_{k-1}`: so core k is rectified in rounds :math:`k + j d_k`, :math:`j = 1,
2, \dots`, at steps :math:`s_k + j d_k`. Core 0 is the sequential sampler.

A jump is the sampler's steps with their output held (:mod:`paradrift.solvers.holding`), in the sampler's own form; for
DDIM and Euler that is their own single step.

An output that is not finite loses a core until it is next rectified, from the slower core alone; a lost core's answer
is not taken.

Source: Han, Ye, Li, Xu, Zou, Ermon 2025, arXiv 2507.15260.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.slopes import to_data
from paradrift.solution import Status
from paradrift.solvers.base import Interrupted, Solving
from paradrift.solvers.book import Book
from paradrift.solvers.diagonal import rms
from paradrift.solvers.holding import held
from paradrift.solvers.method import Problem
from paradrift.solvers.walk import Ask
from paradrift.tableau import Tableau

PUBLISHED = (0, 2, 4, 8, 16, 24, 32, 40)


@dataclass(frozen=True, kw_only=True)
class Chords:
    """The choices of CHORDS; see :mod:`paradrift.solvers.chords`.

    Args:
        starts: Step at which each core starts, ascending from 0.
        tol: A sample is settled when its answer differs by less from the one that arrived before it, rms over elements
            in units of sqrt(v0). The published rule divides the Euclidean norm by the number of elements instead, so
            that its threshold means something else for every size. The difference is no bound of the error. 0: only
            when core 0 has arrived.
        arrivals: Settle at the latest when so many cores have arrived, 1 for the fastest alone; None for all.
        max_rounds: Budget of rounds; None for no limit.

    Raises:
        SpecError: if a number is out of range.
    """

    starts: tuple[int, ...] = PUBLISHED
    tol: float = 1e-2
    arrivals: int | None = None
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        starts = self.starts
        if not starts or starts[0] != 0 or any(b <= a for a, b in pairwise(starts)):
            raise SpecError(f"expected ascending steps for the cores to start at, the first 0, found {starts}")
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")
        for name in ("arrivals", "max_rounds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SpecError(f"expected {name} of at least 1, found {value}")

    @property
    def causal(self) -> bool:
        """False: its samplers have no noise."""
        return False

    def within(self, max_rounds: int) -> Chords:
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
            SpecError: if the chain is not of deterministic one-step maps, or shorter than the starts.
        """
        table = problem.own
        if table.noisy or table.reach > 1 or table.nodes != table.rows - 1:
            raise SpecError(
                "expected a deterministic sampler of one evaluation a step that uses nothing older, found another: "
                "choose DDIM, Euler or FlowEuler"
            )
        if self.starts[-1] >= table.nodes:
            raise SpecError(f"expected cores that start before step {table.nodes}, the end, found {self.starts}")
        return _solve(self, problem)


@dataclass
class _Core:
    """One core: where it is, where its segment began, and of which samples it has lost the way."""

    step: int
    state: Tensor
    lost: Tensor
    begin: int
    origin: Tensor  # state where the segment began
    output: Tensor  # and the output there


class _Jumps:
    """Jumps between steps, with the output of the first held."""

    def __init__(self, own: Tableau, table: Tableau) -> None:
        self.own, self.form = own, table.form
        self.made: dict[tuple[int, int], tuple[float, float]] = {}

    def __call__(self, first: int, last: int, state: Tensor, output: Tensor) -> Tensor:
        if (first, last) not in self.made:
            step = held(self.own, (first, last)).table.reform(self.form)
            self.made[first, last] = float(step.a[1, 0]), float(step.b[1, 0])
        a, b = self.made[first, last]
        return a * state + b * output


def _solve(method: Chords, problem: Problem) -> Solving:
    """Rounds of one step by every core, until no sample is left."""
    book, ending = Book(problem), Status.BUDGET_EXHAUSTED
    run = _Run(method, problem, book)
    try:
        while bool(book.active.any()) and (method.max_rounds is None or book.round < method.max_rounds):
            asks = run.asks()
            answer = yield book.request(asks)
            run.step(book.outputs(asks, answer))
            if problem.observe is not None:
                problem.observe(book.report(run.cores[0].step, run.change))
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    return book.outcome(ending)


class _Run:
    """One solve in progress."""

    def __init__(self, method: Chords, problem: Problem, book: Book) -> None:
        self.method, self.book, self.table = method, book, problem.table
        self.end = problem.table.nodes
        self.p, self.q = to_data(problem.table)
        self.jump = _Jumps(problem.own, problem.table)
        self.cores: list[_Core] = []
        self.start(0, book.start, torch.zeros_like(book.active), book.start)
        self.arrived = 0
        self.change = book.start.new_full((len(book.start), problem.table.rows), torch.nan)

    def asks(self) -> list[Ask]:
        """What the cores want to know, the fastest last."""
        table = self.table
        return [
            Ask(
                node=core.step,
                t=float(table.t[core.step]),
                scale=float(table.scale[core.step]),
                p=float(self.p[core.step]),
                q=float(self.q[core.step]),
                state=core.state,
            )
            for core in self.cores
        ]

    def start(self, step: int, state: Tensor, lost: Tensor, otherwise: Tensor) -> None:
        """A core starts, from another state where its own is not finite."""
        good = _finite(state)
        state = torch.where(good[:, None], state, otherwise)
        if self.cores:
            self.book.keep(step, state)
        self.cores.append(_Core(step, state, lost | ~good, step, state, state))

    def step(self, outputs: Tensor) -> None:
        """Every core makes a step.

        Args:
            outputs: Of each core at its state, shape (K, S, D).
        """
        self.change[:] = torch.nan
        was = [(core.step, core.state, output, core.lost) for core, output in zip(self.cores, outputs, strict=True)]
        for number, (core, (step, state, output, lost)) in enumerate(zip(list(self.cores), was, strict=True)):
            if core.begin == step:
                core.origin, core.output = state, output
            if self.book.round == number + 1:
                self.launch(number, step, state, output, lost)
            new = float(self.table.a[step + 1, step]) * state + float(self.table.b[step + 1, step]) * output
            good = _finite(new)
            if number == 0:
                self.book.fail(~good)
            core.lost, core.step, core.state = lost | ~good, step + 1, torch.where(good[:, None], new, state)
            if number and core.begin == was[number - 1][0]:
                self.rectify(core, new, lost, *was[number - 1][1:])
        for core in reversed(self.cores):
            self.book.keep(core.step, core.state)
        for core in [core for core in reversed(self.cores) if core.step == self.end]:
            self.arrived += 1
            self.arrive(core.state, ~core.lost, core is self.cores[0])
        self.cores[1:] = [core for core in self.cores[1:] if core.step < self.end]  # core 0 stays, for reports

    def launch(self, number: int, step: int, state: Tensor, output: Tensor, lost: Tensor) -> None:
        """After a core's first evaluation: start the next, or jump to the end from the last."""
        if number + 1 < len(self.method.starts):
            goal = self.method.starts[number + 1]
            self.start(goal, self.jump(step, goal, state, output), lost, state)
        else:
            shot = self.jump(step, self.end, state, output)
            self.arrive(shot, torch.zeros_like(lost), False)

    def rectify(self, core: _Core, new: Tensor, lost: Tensor, state: Tensor, output: Tensor, astray: Tensor) -> None:
        """Put a core right by the slower one, which has just been evaluated where its segment began.

        Args:
            core: The core, after its step.
            new: The step as it came out.
            lost: Samples that it had lost before.
            state: State of the slower core where the segment began.
            output: The output there.
            astray: Samples that the slower core has lost.
        """
        slower = self.jump(core.begin, core.step, state, output)
        fixed = new + (slower - self.jump(core.begin, core.step, core.origin, core.output))
        better = torch.where((_finite(fixed) & ~lost)[:, None], fixed, slower)
        good = _finite(better) & ~astray
        core.state = torch.where(good[:, None], better, core.state)
        core.lost = core.lost & ~good
        core.begin = core.step

    def arrive(self, answers: Tensor, whole: Tensor, exact: bool) -> None:
        """A core has arrived, or the jump to the end."""
        first = self.arrived == 0
        final = exact or (self.method.arrivals is not None and self.arrived >= self.method.arrivals)
        self.change[:, -1] = rms(answers - self.book.answers) / self.book.unit()
        answers = torch.where((whole | first)[:, None], answers, torch.nan)
        self.book.arrive(answers, whole, self.method.tol, final, exact)


def _finite(values: Tensor) -> Tensor:
    """Whether all elements are finite, shape (S,)."""
    return torch.isfinite(values).all(1)
