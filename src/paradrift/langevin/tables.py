r"""Langevin chains as tables: the score is the model, its outputs are bare values.

Overdamped, one row a step (Euler-Maruyama):

.. math:: x_{m+1} = x_m + h\, s(x_m) + \sqrt{2h}\, \xi_{m+1}.

Underdamped, two rows a step, the velocity before its position (:mod:`paradrift.samplers.kinetic`):

.. math::
    v_{m+1} = E v_m + \psi_v s(u_m) + \sigma_v \xi_{2m+3}, \qquad
    u_{m+1} = u_m + \tfrac{1-E}{\gamma} v_m + \psi_u s(u_m) + \rho\, \xi_{2m+3} + \sigma_u \xi_{2m+4}.

Rows of velocities hold :math:`w = v / \gamma`, the distance that a velocity still goes if nothing pushes it: a defect
of w moves the position by at most as much, so that one tolerance measures both kinds of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.samplers.kinetic import kinetic_step
from paradrift.tableau import Tableau

LEAD = 2  # rows before the first node of an underdamped table: the position as given, and the velocity


@dataclass(frozen=True)
class Dynamics:
    """Which of the two, and where its tables hold what.

    Args:
        step_size: h > 0.
        friction: gamma > 0, or None for overdamped chains.
    """

    step_size: float
    friction: float | None

    @property
    def steepest(self) -> float:
        """The steepest force that a step follows without overshooting: its change per unit of the position.

        1 / h overdamped; with a friction, that of the overdamped chain of step h / gamma, which it is close to.
        """
        return (self.friction or 1.0) / self.step_size

    @property
    def columns(self) -> int:
        """Noise columns of a step."""
        return 1 if self.friction is None else 2

    @property
    def positions(self) -> slice:
        """Rows of the positions after each step."""
        return slice(1, None) if self.friction is None else slice(LEAD + 2, None, 2)

    @property
    def velocities(self) -> slice:
        """Rows of the velocities after each step, of underdamped chains."""
        return slice(LEAD + 1, None, 2)

    def table(self, steps: int) -> Tableau:
        """The table of some steps.

        Args:
            steps: Number of steps.

        Returns:
            A checked table.
        """
        if self.friction is None:
            return overdamped(steps, self.step_size)
        return underdamped(steps, self.step_size, self.friction)


def overdamped(steps: int, step_size: float) -> Tableau:
    """The table of an overdamped chain: row m is the state after m steps, and m the column of its noise.

    Args:
        steps: Number of steps N, at least 1.
        step_size: h > 0, in the time of the dynamics.

    Returns:
        A table of N + 1 rows.

    Raises:
        SpecError: if there is no step, or the step size is not a positive number.
    """
    check("step_size", step_size)
    _check_steps(steps)
    rows = steps + 1
    ones = np.ones(steps)
    return Tableau(
        t=np.zeros(rows),
        a=np.diag(ones, -1),
        b=np.diag(step_size * ones, -1),
        c=np.diag(np.append(0.0, math.sqrt(2 * step_size) * ones)),
        form=Form.VALUE,
        evaluated=np.arange(rows) < steps,
        scale=np.ones(rows),
        draws=np.arange(rows) > 0,
    )


def underdamped(steps: int, step_size: float, friction: float) -> Tableau:
    """The table of an underdamped chain: after m steps the velocity is row 2m + 1 and the position row 2m + 2.

    Row 0 is the position as given; row 1 is w at the start, which comes as the noise of column 1 (see
    :class:`paradrift.langevin.streams.Continued`). Row 2 repeats row 0, so that every step looks the same.

    Args:
        steps: Number of steps N, at least 1.
        step_size: h > 0, in the time of the dynamics.
        friction: gamma > 0.

    Returns:
        A table of 2 N + 3 rows, N of them nodes.

    Raises:
        SpecError: if there is no step, or the step size or the friction is not a positive number.
    """
    check("step_size", step_size)
    check("friction", friction)
    _check_steps(steps)
    step = kinetic_step(step_size, friction)
    rows = 2 * steps + LEAD + 1
    a, b, c = np.zeros((rows, rows)), np.zeros((rows, rows)), np.zeros((rows, rows))
    c[1, 1] = a[2, 0] = 1.0
    w, u = np.arange(3, rows, 2), np.arange(4, rows, 2)  # the rows of velocities and of positions
    a[w, w - 2], b[w, w - 1], c[w, w] = step.v_v, step.v_s / friction, step.v_noise / friction
    a[u, u - 2], a[u, u - 3], b[u, u - 2] = 1.0, step.u_v * friction, step.u_s
    c[u, u - 1], c[u, u] = step.u_shared, step.u_noise
    row = np.arange(rows)
    evaluated = (row >= LEAD) & (row % 2 == 0)
    evaluated[-1] = False
    draws = (row == 1) | (row > LEAD)
    return Tableau(
        t=np.zeros(rows), a=a, b=b, c=c, form=Form.VALUE, evaluated=evaluated, scale=np.ones(rows), draws=draws
    )


def check(name: str, value: float) -> None:
    """Refuse what is not a positive number.

    Args:
        name: What it is called.
        value: What was given.

    Raises:
        SpecError: if it is not.
    """
    if not isinstance(value, int | float) or not (value > 0 and math.isfinite(value)):
        raise SpecError(f"expected a positive {name}, found {value}")


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int) or steps < 1:
        raise SpecError(f"expected a positive number of steps, found {steps}")
