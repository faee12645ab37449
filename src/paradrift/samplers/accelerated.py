"""Accelerated samplers with guarantees: of second order by one probe, or by half of the noise before the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import Levels, levels
from paradrift.schedules import Schedule
from paradrift.tableau import Rows, Tableau


@dataclass(frozen=True)
class AcceleratedODE:
    r"""The probability-flow ODE with its second derivative from a probe one step back up in noise.

    In :math:`z = x/\alpha` and :math:`v = (\sigma/\alpha)^2` the score of z is :math:`G = \alpha s` and the ODE is
    :math:`dz = -\tfrac12 G\,dv`. A step from v down by :math:`\Delta`, with the step before of length
    :math:`\Delta_+`, first goes back by Euler's rule and then extrapolates G linearly in v:

    .. math:: z_+ = z - \tfrac12 \Delta_+ G(z, v), \qquad
        z' = z + \tfrac12 \Delta\, G(z, v) + \frac{\Delta^2}{4 \Delta_+}\big(G(z, v) - G(z_+, v + \Delta_+)\big).

    The first step has no time before it and is of first order.

    Source: Li, Huang, Efimov, Wei, Chi and Chen 2024, arXiv 2403.03852, the deterministic sampler. That paper is about
    variance-preserving chains in discrete time; the form above, for any schedule, is derived here. There the
    correction and the probe differ from it by factors of one minus a step's variance, of higher order.

    Raises:
        SpecError: when a table is made, if the grid starts without signal.

    Cost: 2N - 1 nodes for N steps, reach 2. Order 2.

    Example:
        >>> from paradrift.schedules import EDM
        >>> table = AcceleratedODE().tableau(EDM(), np.array([3.0, 2.0, 1.0]))
        >>> table.nodes, table.b[-1].tolist()
        (3, [0.0, 1.95, -0.45, 0.0])
    """

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in score form.

        Raises:
            SpecError: if the grid starts without signal.
        """
        grid = _signal(levels(schedule, times))
        alpha = grid.alpha
        lost = -np.diff((grid.sigma / alpha) ** 2)
        rows = Rows(form=Form.SCORE, start=grid.start)
        here = rows.add(t=grid.t[0], alpha=alpha[0], sigma=grid.sigma[0])
        for step in range(grid.steps):
            # the weight of G in z, times alpha' for x' and alpha at the output for G = alpha s
            b = {here: alpha[step + 1] * alpha[step] * lost[step] / 2}
            source = here
            if step > 0:
                back = alpha[step - 1]
                level = dict(t=grid.t[step - 1], alpha=back, sigma=grid.sigma[step - 1])
                first = -back * alpha[step] * lost[step - 1] / 2
                probe = rows.add(**level, a={here: back / alpha[step]}, b={here: first})
                bend = alpha[step + 1] * lost[step] ** 2 / (4 * lost[step - 1])
                b = {here: b[here] + bend * alpha[step], probe: -bend * back}
            here = rows.add(
                t=grid.t[step + 1],
                alpha=alpha[step + 1],
                sigma=grid.sigma[step + 1],
                a={source: alpha[step + 1] / alpha[step]},
                b=b,
                evaluated=step < grid.steps - 1,
            )
        return rows.build()


@dataclass(frozen=True)
class AcceleratedSDE:
    r"""The reverse diffusion with half of each step's noise before the model is asked.

    In :math:`z = x/\alpha` and :math:`v = (\sigma/\alpha)^2`, with the score :math:`G = \alpha s` of z, the reverse
    diffusion over a step from v down by :math:`\Delta` becomes

    .. math:: z_+ = z + \sqrt{\Delta/2}\,\xi, \qquad z' = z_+ + \Delta\, G(z_+, v) + \sqrt{\Delta/2}\,\xi_+.

    For Gaussian data of variance w at v it turns w into :math:`w - \Delta + \Delta^3/(2 w^2)`, and its mean is exact:
    the law is of second order in the step, DDPM's of first. The last noise does not vanish at a noiseless end: stop
    early, as the theory does.

    Source: Li, Huang, Efimov, Wei, Chi and Chen 2024, arXiv 2403.03852, the stochastic sampler, in the variables above,
    where it holds for any schedule.

    Raises:
        SpecError: when a table is made, if the grid starts without signal.

    Cost: N nodes for N steps; 2N + 1 rows, as states before their half noise are not nodes; reach 1.

    Example:
        >>> from paradrift.schedules import EDM
        >>> table = AcceleratedSDE().tableau(EDM(), np.array([3.0, 1.0]))
        >>> table.evaluated.tolist(), table.band("c", 0).tolist(), table.b[2, 1].tolist()
        ([False, True, False], [0.0, 2.0, 2.0], 8.0)
    """

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in score form.

        Raises:
            SpecError: if the grid starts without signal.
        """
        grid = _signal(levels(schedule, times))
        alpha = grid.alpha
        lost = -np.diff((grid.sigma / alpha) ** 2)
        rows = Rows(form=Form.SCORE, start=grid.start)
        level = dict(t=grid.t[0], alpha=alpha[0], sigma=grid.sigma[0])
        here = rows.add(**level, evaluated=False)
        for step in range(grid.steps):
            fresh = np.sqrt(lost[step] / 2)
            raised = rows.add(**level, a={here: 1.0}, c=alpha[step] * fresh)
            growth = alpha[step + 1] / alpha[step]
            level = dict(t=grid.t[step + 1], alpha=alpha[step + 1], sigma=grid.sigma[step + 1])
            b = {raised: alpha[step + 1] * alpha[step] * lost[step]}
            here = rows.add(**level, a={raised: growth}, b=b, c=alpha[step + 1] * fresh, evaluated=False)
        return rows.build()


def _signal(grid: Levels) -> Levels:
    """Refuse a grid whose first score says nothing about the data."""
    if grid.alpha[0] <= 0:
        raise SpecError(
            f"expected signal at the first time, found alpha = 0 at t={grid.t[0]}: start the grid later or use DDIM"
        )
    return grid
