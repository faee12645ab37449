"""What a thinned chain must tell, whatever it skips: which nodes, what else it wants to ask, and how far it is off."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from paradrift.averaging import average, averageable
from paradrift.guesses import Proposal
from paradrift.nodes import Every
from paradrift.noise import Noise
from paradrift.solvers.averages import Averages
from paradrift.solvers.base import Request
from paradrift.solvers.heard import Heard
from paradrift.solvers.solver import Solver
from paradrift.solvers.traces import Trace
from paradrift.stopping import Tolerance
from paradrift.tableau import Tableau
from paradrift.thinning import thin, thinnable
from paradrift.windows import Sliding, Whole

Wanted = tuple[Request, Callable[[Tensor], None]]  # in rows of the whole chain, and who takes the answer
Errors = Callable[[Tensor], Tensor]  # from the answer to a request to the error of each sample, in units of sqrt(v0)


class Skipping(Protocol):
    """A thinned chain of some samples while it is solved."""

    @property
    def table(self) -> Tableau:
        """Its table, K nodes."""
        ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of the whole chain that its nodes are asked at, and the answer, shape (K + 1,)."""
        ...

    @property
    def noise(self) -> Noise:
        """The noises of its table."""
        ...

    @property
    def heard(self) -> Heard:
        """What its nodes have answered."""
        ...

    def of(self, which: Tensor) -> Skipping:
        """The same of some samples, where their chain is solved.

        Args:
            which: Which, shape (S,), bool.

        Returns:
            Theirs.
        """
        ...

    def wanted(self, ended: Tensor | None) -> Wanted | None:
        """What must be asked beside the chain to know how far it is off.

        Args:
            ended: Samples whose chain is solved, shape (S,), bool: no others are asked for; None before the end.

        Returns:
            A request, and who takes the answer; or None.
        """
        ...

    def known(self) -> Tensor:
        """Samples whose :meth:`doubts` say what there is at least, shape (S,), bool."""
        ...

    def final(self) -> Tensor:
        """Samples whose doubts tell all that they will before the chain is solved, shape (S,), bool."""
        ...

    def doubts(self) -> Tensor:
        """The error that skipped nodes may make, shape (S,), float64, in units of sqrt(v0)."""
        ...

    def check(self, verify: int) -> tuple[Request, Errors]:
        """A request that measures the error of the path once more.

        Args:
            verify: Rows that may be asked of each sample, about.

        Returns:
            The request, in rows of the whole chain, and what its answer says.
        """
        ...

    def path(self, answers: Tensor) -> Tensor:
        """All rows of the whole chain.

        Args:
            answers: Shape (S, *shape).

        Returns:
            Shape (S, R, *shape).
        """
        ...

    def proposal(self, rows: NDArray[np.int64], whole: bool) -> Proposal:
        """Data predictions for a finer chain.

        Args:
            rows: Rows of the whole chain at which they are told, ascending.
            whole: Whether they are proposed to the whole chain, between them interpolated; else to a thinned chain of
                these rows.

        Returns:
            The proposal.
        """
        ...


def begin(table: Tableau, solver: Solver) -> int:
    """How many nodes of a chain are asked at first.

    Args:
        table: The sampler's table.
        solver: The choices.

    Returns:
        Their number; M for all: with several steps or stages, at tolerance 0, under other stops than a tolerance (with
        noise, one that settles prefixes only), and in windows that stand for blocks of the chain.
    """
    window, stop = solver.window, solver.stop
    if not isinstance(window, Whole | Sliding) or not isinstance(stop, Tolerance):
        return table.nodes
    width = window.width if isinstance(window, Sliding) else table.nodes
    count = solver.nodes.first(table.nodes, stop.tol, width, table.noisy)
    if count == table.nodes or (table.noisy and stop.finish is False):
        return table.nodes
    return count if _skippable(table) else table.nodes


@functools.lru_cache(maxsize=8)
def _skippable(table: Tableau) -> bool:
    """Whether nodes of a chain can be skipped; the planner asks for every width, in every solve."""
    return thinnable(table) or averageable(table)


def able(table: Tableau, solver: Solver, keep: bool, drawn: bool) -> Solver:
    """A solver that may thin a chain where it can be.

    Args:
        table: The sampler's table.
        solver: The choices.
        keep: Whether all rows are kept. With noise only rows that were asked one by one are a path of the sampler, and
            have a certificate.
        drawn: Whether noises come from a generator, which draws each of them once.

    Returns:
        The solver; one that asks every node of a chain with noise where it must.
    """
    return dataclasses.replace(solver, nodes=Every()) if table.noisy and (keep or drawn) else solver


def asks(table: Tableau, solver: Solver, width: int) -> tuple[int, int]:
    """How many nodes a window of some width asks at first, and once more to measure the error.

    Args:
        table: The sampler's table.
        solver: The other choices.
        width: Nodes of the window; 1 for a chain that is thinned and then stepped through.

    Returns:
        The two numbers.
    """
    nodes = solver.nodes.serial() if width == 1 else solver.nodes
    count = begin(table, dataclasses.replace(solver, window=Sliding(width), nodes=nodes))
    return count, solver.verified(count)


def skipping(table: Tableau, count: int, start: Tensor, noise: Noise, variance: float | None) -> Skipping:
    """Thin a chain for some samples.

    Args:
        table: A chain that :func:`begin` thins.
        count: How many nodes, about.
        start: Their starting states, shape (S, *shape).
        noise: Where noises of the whole chain come from, for these samples.
        variance: Data variance per element; None if it is not known.

    Returns:
        The thinned chain.
    """
    if table.noisy:
        return Averages(average(table, count, variance or 1.0), start, noise, variance)
    return Trace(thin(table, count, variance or 1.0), start, noise, variance)


def rows_of(table: Tableau, count: int, variance: float | None) -> NDArray[np.int64]:
    """Rows that a thinned chain would ask.

    Args:
        table: A chain that :func:`begin` thins.
        count: How many nodes, about.
        variance: Data variance per element; None if it is not known.

    Returns:
        Shape (K,), int64.
    """
    made = average if table.noisy else thin
    return made(table, count, variance or 1.0).kept[:-1]
