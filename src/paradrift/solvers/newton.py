r"""Newton's method for the whole chain: every round solves all rows at once, with the model linearised at each node.

.. math:: z^{new} = z_0 e + a\, z^{new} + b\, \bigl(f(z) + J\,(z^{new} - z)\bigr) + c\, \xi ,

J the derivative of the output at each node. This is the sweep of :mod:`paradrift.slopes` with a matrix for a slope. On
a chain whose outputs are affine in the state one round is enough; near the answer the error is squared in each round
(with the whole Jacobian). How many rounds come before that is decided by how the chain amplifies: where it contracts,
few; where it does not, an error made early grows through the linearisation, and rows come one by one from the front.

=========================================  ============================================================
choices                                    method
=========================================  ============================================================
``Newton(jacobian=Full())``                DEER, DeepPCR
``Newton(jacobian=Diagonal(probes))``      quasi-DEER, the diagonal estimated
``Newton(..., damping=lambda)``            ELK, quasi-ELK: Levenberg's damping, no more causal
``Newton(..., damping=..., fading=True)``  the same, less and less near the answer
``Newton(..., update=Relaxed(w))``         shorter steps; any update of :mod:`paradrift.solvers.updates`
=========================================  ============================================================

The linear system is solved by one pass over the rows; the published methods use a parallel scan, which gives the same
in a number of operations that grows like the logarithm of the rows. A constant damping slows the end: the singular
values of I - a - b J that matter are of the order of one over the rows, so it must be small beside their square, or
fade. An output with its P products counts as 2 P
evaluations, so ``Full()`` costs 2 D for each node and round. Rows are settled as in
:mod:`paradrift.solvers.fixed_point`, by the defects of their own equations, one at least in a round.

Source: Lim et al. 2024, arXiv 2309.12252 (DEER); Danieli et al. 2023, arXiv 2309.16318 (DeepPCR); Gonzalez et al.
2024, arXiv 2407.19115 (quasi-DEER, ELK); Gonzalez et al. 2025, arXiv 2508.16817, for the Lyapunov exponent and the
number of rounds; Yamashita and Fukushima 2001, "On the rate of convergence of the Levenberg-Marquardt method" (fading).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Self

from paradrift.errors import SpecError
from paradrift.guesses import Guess, Repeat
from paradrift.solvers.base import Solving
from paradrift.solvers.equations import Equations
from paradrift.solvers.fixed_point import driven
from paradrift.solvers.iterate import Iterate
from paradrift.solvers.jacobians import Diagonal, Jacobian
from paradrift.solvers.linearised import Linearised
from paradrift.solvers.method import Problem
from paradrift.solvers.residuals import Residual
from paradrift.solvers.updates import Plain, Update
from paradrift.windows import Whole, Window


@dataclass(frozen=True, kw_only=True)
class Newton:
    """The choices of Newton's method, given to :func:`paradrift.sample` as ``solver=``.

    The model must have forward-mode derivatives: torch operations of its state throughout.

    Args:
        jacobian: What is taken of the derivatives: ``Diagonal(probes)``, or ``Full()`` for states of few elements.
        damping: lambda in :mod:`paradrift.solvers.linearised`; 0 for Newton's own step. With damping rows look ahead,
            and there is no certificate.
        fading: Whether lambda is multiplied by the mean square of the defects.
        update: What is made of the step.
        window: Which nodes are worked on; not ``Auto()``, whose planner knows sweeps only.
        stop: When rows are settled.
        start: States of entering rows: ``Repeat()``, or ``Given(trajectory)`` for that of a similar sample.
        max_rounds: Budget of rounds; None for no limit: M are always enough.

    Raises:
        SpecError: if the damping is negative or the budget below 1.

    Example:
        >>> import numpy as np
        >>> from paradrift import DDIM, Gaussian, sample
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> solution = sample(toy, (3, 2), sampler=DDIM(), steps=50, solver=Newton())
        >>> solution.converged, solution.stats.rounds
        (True, 2)
    """

    jacobian: Jacobian = field(default_factory=Diagonal)
    damping: float = 0.0
    fading: bool = False
    update: Update = field(default_factory=Plain)
    window: Window = field(default_factory=Whole)
    stop: Residual = field(default_factory=Residual)
    start: Guess = field(default_factory=Repeat)
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.damping < float("inf"):
            raise SpecError(f"expected a damping of at least 0, found {self.damping}: 0 is Newton's own step")
        if self.max_rounds is not None and self.max_rounds < 1:
            raise SpecError(f"expected max_rounds of at least 1, found {self.max_rounds}")

    @property
    def causal(self) -> bool:
        """Whether the update is, and nothing is damped."""
        return self.update.causal and self.damping == 0

    def within(self, max_rounds: int) -> Self:
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
        """
        table, start = problem.table, problem.start
        equations = Equations.of(table, table, 1, start.dtype, start.device)
        run = Iterate(
            table,
            Linearised(
                equations=equations,
                jacobian=self.jacobian,
                damping=self.damping,
                fading=self.fading,
                rows=table.rows,
                samples=len(start),
            ),
            start,
            problem.noise,
            window=self.window,
            update=self.update,
            guess=self.start,
            thresholds=self.stop.thresholds(table),
            variance=problem.variance,
        )
        return driven(run, problem, self.max_rounds, self.causal)
