"""What a method beside the sweep is: choices of its own, a whole problem to solve, and the same protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from torch import Tensor

from paradrift.noise import Noise
from paradrift.schedules import Schedule
from paradrift.solution import Round
from paradrift.solvers.base import Solving
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One chain for a batch of samples.

    Args:
        own: The sampler's own table.
        table: The same sampler, written for the outputs of the model.
        schedule: The noise schedule of the model, for methods that make further tables on it; None where it has none.
        start: Starting states, already scaled, shape (S, *shape); their dtype is the dtype of the solve.
        noise: Where noises come from.
        variance: Data variance per element v0; None to take the mean square of each sample's own data prediction.
        keep: Whether to keep all rows.
        observe: Called after each round, or None.
    """

    own: Tableau
    table: Tableau
    schedule: Schedule | None
    start: Tensor
    noise: Noise
    variance: float | None
    keep: bool
    observe: Callable[[Round], None] | None


@runtime_checkable
class Method(Protocol):
    """A parallel method with choices of its own, given to :func:`paradrift.sample` as ``solver=``."""

    @property
    def causal(self) -> bool:
        """Whether no row of its paths looks at noises after its own, so that they may have a certificate."""
        ...

    def within(self, max_rounds: int) -> Self:
        """The same method with a budget.

        Args:
            max_rounds: Most rounds.

        Returns:
            The method.
        """
        ...

    def solve(self, problem: Problem) -> Solving:
        """Solve a problem.

        Args:
            problem: The chain.

        Returns:
            A solver that has not been started.
        """
        ...
