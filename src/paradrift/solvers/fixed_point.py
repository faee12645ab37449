r"""Fixed points: the whole chain as one equation Y = F(Y), and any update that is known for such.

A round evaluates the nodes of the window at the iterate, which gives the defect of every row. Rows whose defects are
small enough are settled, from the front on; then the row after the front is made as the sequential sampler would, from
settled states and their own outputs, so every round settles one row at least and M rounds are enough, whatever the
update does to the other rows. These are moved by the update: the plain iteration, a relaxed one, or Anderson's method,
on equations of any order; see :mod:`paradrift.solvers.equations` and :mod:`paradrift.solvers.updates`.

The kept path of a causal update has a certificate. A row is moved first by the plain update, to a drift made of rows
before it and its own noise, :math:`Y_m = \mu_m + c\,\xi_m`, and is not settled before. From then on its noise cancels
in its residual :math:`R_m = F_m - Y_m` and in the differences of F that are combined, so neither the weights of the
combination, nor the moment at which it is settled, know it: what changes is the drift. With differences to the first
guess, which does not hold the row's noise, this would be wrong; they are not used.

All rows are held to the end: 6 + 2 (memory - 1) numbers for each element of a row.

Source: Tang et al. 2024, arXiv 2402.09970 (ParaTAA); Pokle, Geng and Kolter 2022, arXiv 2210.12867 (the whole chain as
a fixed point).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.guesses import Guess, Repeat
from paradrift.solution import Round, Status
from paradrift.solvers.base import Interrupted, Outcome, Solving
from paradrift.solvers.equations import Equations
from paradrift.solvers.iterate import Iterate
from paradrift.solvers.method import Problem
from paradrift.solvers.residuals import Residual
from paradrift.solvers.updates import TriangularAnderson, Update
from paradrift.windows import Whole, Window


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """The choices of a fixed-point solver, given to :func:`paradrift.sample` as ``solver=``.

    Args:
        update: How rows are moved.
        order: k, how many rows an equation looks back; None for all of the window.
        form: What is frozen in an equation: outputs in this form; None for the sampler's own. All have the same
            solution.
        window: Which nodes are worked on; not ``Auto()``, whose planner knows sweeps only.
        stop: When rows are settled.
        start: States of entering rows: ``Repeat()``, or ``Given(trajectory)`` for that of a similar sample.
        max_rounds: Budget of rounds; None for no limit: M are always enough.

    Raises:
        SpecError: if the order or the budget is below 1.

    Example:
        >>> import numpy as np
        >>> from paradrift import DDIM, Gaussian, Sliding, sample
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> method = FixedPoint(update=TriangularAnderson(memory=3), order=20, window=Sliding(30))
        >>> solution = sample(toy, (3, 2), sampler=DDIM(), steps=50, solver=method)
        >>> solution.converged, solution.stats.rounds < 25
        (True, True)
    """

    update: Update = field(default_factory=TriangularAnderson)
    order: int | None = None
    form: Form | None = None
    window: Window = field(default_factory=Whole)
    stop: Residual = field(default_factory=Residual)
    start: Guess = field(default_factory=Repeat)
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        if self.order is not None and self.order < 1:
            raise SpecError(f"expected an order of at least 1, found {self.order}: None looks back over the window")
        if self.max_rounds is not None and self.max_rounds < 1:
            raise SpecError(f"expected max_rounds of at least 1, found {self.max_rounds}")

    @property
    def causal(self) -> bool:
        """Whether the update is."""
        return self.update.causal

    def within(self, max_rounds: int) -> Self:
        """The same method with a budget.

        Args:
            max_rounds: Most rounds.

        Returns:
            The method.
        """
        return dataclasses.replace(self, max_rounds=max_rounds)

    def solve(self, problem: Problem) -> Solving:  # noqa: DOC403
        """Solve a problem.

        Args:
            problem: The chain.

        Yields:
            Requests, one a round; none for rounds in which no node has moved.

        Returns:
            The outcome.
        """
        frozen = problem.own if self.form is None else problem.own.reform(self.form)
        equations = Equations.of(problem.table, frozen, self.order, problem.start.dtype, problem.start.device)
        run = Iterate(
            problem.table,
            equations,
            problem.start,
            problem.noise,
            window=self.window,
            update=self.update,
            guess=self.start,
            thresholds=self.stop.thresholds(problem.table),
            variance=problem.variance,
        )
        return (yield from driven(run, problem, self.max_rounds, self.causal))


def driven(run: Iterate, problem: Problem, max_rounds: int | None, causal: bool) -> Solving:  # noqa: DOC403
    """Rounds of an iterate until every sample is settled.

    Args:
        run: The iterate.
        problem: The chain.
        max_rounds: Budget of rounds; None for no limit.
        causal: Whether rows are moved by what rows up to them have done only.

    Yields:
        Requests, one a round; none for rounds in which no node has moved.

    Returns:
        The outcome.
    """
    rounds, ending = 0, Status.BUDGET_EXHAUSTED
    try:
        while bool(run.active.any()) and (max_rounds is None or rounds < max_rounds):
            request, where = run.ask()
            if request is not None:
                answer = yield request
                rounds += 1
                run.receive(where, answer)
            run.advance()
            if problem.observe is not None:
                problem.observe(_report(run, rounds))
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    return _outcome(run, ending, causal, problem.keep)


def _unit(run: Iterate) -> Tensor:
    """sqrt(v0) of each sample, shape (S,): given, or the rms of its own data prediction."""
    if run.variance is not None:
        return run.start.new_full((len(run.start),), run.variance**0.5)
    size = torch.linalg.vector_norm(run.preview(), dim=1) / run.start.shape[1] ** 0.5
    return torch.where(size > 0, size, 1.0)


def _reached(run: Iterate) -> Tensor:
    """Samples whose window holds the answer, shape (S,), bool."""
    return (run.limit == run.last) & torch.isfinite(run.z[-1]).all(1)


def _report(run: Iterate, index: int) -> Round:
    """What a callback sees."""
    alpha = run.alpha[:, None]
    answer = torch.where(_reached(run)[:, None], run.z[-1], torch.nan)
    return Round(
        index=index,
        evaluations=run.evaluations,
        settled=torch.where(run.failed, run.table.nodes, run.before[run.front]).cpu(),
        nodes=run.table.nodes,
        change=(run.change / alpha / _unit(run)).T.contiguous().cpu(),
        preview=run.preview().unflatten(1, run.shape),
        answer=answer.unflatten(1, run.shape),
    )


def _outcome(run: Iterate, ending: Status, causal: bool, keep: bool) -> Outcome:
    """Everything the machine needs to make a solution."""
    done = run.front == run.last
    status = [
        Status.NON_FINITE if failed else Status.CONVERGED if arrived else ending
        for failed, arrived in zip(run.failed.tolist(), done.tolist(), strict=True)
    ]
    usable = (done | _reached(run)) & ~run.failed
    trajectory = None
    if keep:
        rows = torch.where((run.row <= run.limit)[..., None], run.z, torch.nan)
        trajectory = rows.transpose(0, 1).contiguous().unflatten(2, run.shape)
    return Outcome(
        samples=torch.where(usable[:, None], run.z[-1], run.preview()).unflatten(1, run.shape),
        status=tuple(status),
        error=torch.where(usable, run.felt_defects() / _unit(run), torch.inf).to(run.start.dtype),
        rounds=tuple(run.rounds.tolist()),
        window=run.widest,
        certifiable=causal,
        trajectory=trajectory,
    )
