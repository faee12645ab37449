"""Theorems 3.3 and 3.5 as arithmetic: from a horizon, blocks, steps and sweeps to errors, rounds and memory."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from paradrift import presets
from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.planned import Arguments
from paradrift.plans import blocks as chain
from paradrift.plans.constants import Constants, Terms
from paradrift.plans.words import table
from paradrift.samplers import Corrected, Exponential, Sampler, Underdamped
from paradrift.schedules import OU, Schedule
from paradrift.solvers.solver import Solver
from paradrift.windows import Cut

MOST_ROWS = 10_000  # of a plan that is to be run: a sampler's table is a dense matrix


@dataclass(frozen=True, kw_only=True)
class Corrector:
    """Underdamped Langevin dynamics after each block of the ODE, in one block of Picard sweeps.

    Args:
        time: How long it runs after each block, in its own time, that of a score of Lipschitz constant L.
        steps: Steps of one run, and points held while it lasts.
        sweeps: Sweeps of one run.
    """

    time: float
    steps: int
    sweeps: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an accuracy costs; made by :func:`paradrift.plan`, printed as a table.

    ``dataclasses.replace(plan, sweeps=3)`` is another plan, with its own terms.

    Args:
        dim: Dimension d of one sample.
        kl: Budget, in nats. For the ODE the budget is the squared total variation ``kl / 2``.
        lipschitz: Lipschitz constant of the score.
        second_moment: E|x|^2 of the data, a sum over the elements.
        early_stop: Forward time eta at which sampling stops; the plan speaks of the data noised that long.
        blocks: Number N of blocks.
        length: Forward time h of a block.
        step: Step size epsilon in forward time, where the remaining time is at least 1; in proportion to it after.
        sweeps: Picard sweeps K of a block.
        score: Error of the network that fits the budget. SDE: expected squared error of the score (summed over the
            elements), times the length of the step, added up over the steps. ODE: the same at the worst single time.
        constants: The factors that the theorems leave open.
        corrector: The corrector of the ODE; None for the SDE.
    """

    dim: int
    kl: float
    lipschitz: float
    second_moment: float
    early_stop: float
    blocks: int
    length: float
    step: float
    sweeps: int
    score: float
    constants: Constants
    corrector: Corrector | None

    @property
    def horizon(self) -> float:
        """Forward time T at which sampling starts from pure noise."""
        return self.early_stop + self.blocks * self.length

    @property
    def clock(self) -> float:
        """Length of the grid in steps of epsilon, as the theorems count it: T, or log(1/eta) where that is more."""
        return max(self.horizon, -math.log(self.early_stop))

    @property
    def orders(self) -> Terms:
        """The four terms as the theorem writes them, with every hidden factor 1."""
        truncation = (self.dim + self.second_moment) / 2 * math.exp(-self.horizon)
        decay = math.exp(-self.sweeps)
        if self.corrector is None:
            return Terms(
                truncation=truncation,
                discretisation=self.dim * self.step * self.clock,
                score=self.score,
                picard=self.dim * self.horizon * decay,
            )
        return Terms(
            truncation=truncation,
            discretisation=self.dim * (self.step * self.clock) ** 2,
            score=(self.horizon**2 + self.blocks**2) * self.score,
            picard=self.dim * self.blocks**2 * decay,
        )

    @property
    def terms(self) -> Terms:
        """The four terms: nats of KL (SDE) or squared total variation (ODE). Picard's is 0 once blocks are exact."""
        orders, factors = self.orders, self.constants
        later = factors.picard * math.exp((1 - factors.contraction) * self.sweeps)
        exact = self.sweeps >= self.steps.max()
        if self.corrector is not None:
            exact = exact and self.corrector.sweeps >= self.corrector.steps
        return Terms(
            truncation=factors.truncation * orders.truncation,
            discretisation=factors.discretisation * orders.discretisation,
            score=factors.score * orders.score,
            picard=0.0 if exact else later * orders.picard,
        )

    @cached_property
    def steps(self) -> chain.Counts:
        """Steps of each block, shape (N,)."""
        equal, geometric = chain.counts(chain.edges(self.blocks, self.length, self.early_stop), self.step)
        return equal + geometric

    @property
    def solver_rounds(self) -> int:
        """Rounds of the blocks: K each, or fewer where a block has fewer steps and so is exact before."""
        return int(np.minimum(self.steps, self.sweeps).sum())

    @property
    def rounds(self) -> int:
        """Batches of evaluations that wait for each other, the corrector's included."""
        return self.solver_rounds + (self.blocks * self.corrector.sweeps if self.corrector else 0)

    @property
    def points(self) -> int:
        """Most states held, and evaluated in one batch, at a time; d numbers each."""
        return max(int(self.steps.max()), self.corrector.steps if self.corrector else 0)

    @property
    def sequential(self) -> int:
        """Steps, and so rounds, of the same discretisation one step after the other: one point in memory."""
        return int(self.steps.sum()) + (self.blocks * self.corrector.steps if self.corrector else 0)

    @property
    def blur(self) -> float:
        """Bound on the Wasserstein distance W2 between the data and the data noised for eta, in units of the data."""
        shrunk = math.expm1(-self.early_stop / 2) ** 2 * self.second_moment
        return math.sqrt(shrunk - self.dim * math.expm1(-self.early_stop))

    def grid(self, schedule: Schedule | None = None) -> Array:
        """The times of the steps.

        Args:
            schedule: The denoiser's, which must preserve variance; ``OU`` unless given. Times are those at which it
                has the noise levels of the plan.

        Returns:
            Decreasing model times, shape (steps + 1,).

        Raises:
            SpecError: if the schedule adds variance, or does not reach the plan's noise levels.
        """
        schedule = OU(horizon=self.horizon, last=self.early_stop) if schedule is None else schedule
        left = chain.remaining(chain.edges(self.blocks, self.length, self.early_stop), self.step)
        times = schedule.time(-0.5 * np.log(np.expm1(left)))
        unit = schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2
        if not np.allclose(unit, 1.0, atol=1e-9):
            raise SpecError(
                "expected a schedule with alpha^2 + sigma^2 = 1, such as OU or VP, found another: its exponential "
                "integrator is not the one of the theorem"
            )
        slack = 1e-9 * schedule.first
        if times[0] > schedule.first + slack or times[-1] < schedule.last - slack:
            raise SpecError(
                f"expected a schedule that reaches from time {times[0]:.6g} to {times[-1]:.6g}, found {schedule.first} "
                f"to {schedule.last}: use OU(horizon={self.horizon:.6g}, last={self.early_stop})"
            )
        return np.clip(times, schedule.last, schedule.first)

    def sampler(self) -> Sampler:
        """The sequential method: the exponential integrator, for the ODE with its corrector after each block.

        Returns:
            The sampler, for the grid of this plan only: its blocks are equal in time, not in steps.
        """
        if self.corrector is None:
            return Exponential(form=Form.SCORE, stochasticity=1.0)
        root = math.sqrt(self.lipschitz)
        corrector = Underdamped(time=self.corrector.time * root, steps=self.corrector.steps, lipschitz=self.lipschitz)
        return Corrected(blocks=tuple(self.steps.tolist()), corrector=corrector)

    def solver(self) -> Solver:
        """The preset with the plan's blocks and sweeps: :func:`paradrift.piadm_sde`, or ``piadm_ode``.

        Returns:
            The solver, for the grid of this plan only.
        """
        sampler = self.sampler()
        if self.corrector is not None and isinstance(sampler, Corrected):
            return presets.piadm_ode(sampler, self.sweeps, self.corrector.sweeps)
        ends = tuple(int(end) for end in np.cumsum(self.steps))
        return dataclasses.replace(presets.piadm_sde(self.blocks, self.sweeps), window=Cut(ends))

    def arguments(self, schedule: Schedule | None = None) -> Arguments:
        """What a plan is to :func:`paradrift.sample`, which asks for it itself: ``sample(denoiser, shape, plan=plan)``.

        Args:
            schedule: The denoiser's, if it is another than ``OU``.

        Returns:
            The sampler, the times and the solver.

        Raises:
            SpecError: if the plan has more steps than a table can hold, or does not fit the schedule.
        """
        rows = self.steps.sum() + 1 + (self.blocks * (2 * self.corrector.steps + 1) if self.corrector else 0)
        if rows > MOST_ROWS:
            raise SpecError(
                f"expected a plan of at most {MOST_ROWS} rows to be run, found {rows}: fit the constants to a pilot "
                "run, or ask for less accuracy"
            )
        return Arguments(sampler=self.sampler(), times=self.grid(schedule), solver=self.solver())

    def __str__(self) -> str:
        return table(self)
