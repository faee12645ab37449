"""Heun's rule on the velocity of a straight path."""

from __future__ import annotations

from dataclasses import dataclass

from paradrift.forms import Array, Form
from paradrift.samplers.flow_euler import straight
from paradrift.schedules import Schedule
from paradrift.tableau import Rows, Tableau


@dataclass(frozen=True, kw_only=True)
class FlowHeun:
    r"""The trapezoidal rule for flow matching and rectified flow.

    .. math:: x' = x_t + (\sigma_s - \sigma_t) u_t, \qquad
        x_s = x_t + \tfrac12 (\sigma_s - \sigma_t)\big(u_t + u(x', s)\big).

    A step to the noiseless end is Euler's, because there the velocity has no data form to compare with.

    Source: the trapezoidal rule of Karras et al. 2022, arXiv 2206.00364, algorithm 1, with the velocity as derivative.
    Twin: diffusers' ``FlowMatchHeunDiscreteScheduler``.

    Raises:
        SpecError: if the schedule is not a straight path, or the grid leaves it.

    Cost: 2N nodes for N steps, 2N - 1 to the noiseless end; reach 2. Order 2.

    Example:
        >>> import numpy as np
        >>> from paradrift.schedules import Flow
        >>> FlowHeun().tableau(Flow(), np.array([1.0, 0.5, 0.0])).nodes
        3
    """

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in flow form.
        """
        grid = straight(schedule, times)
        rows = Rows(form=Form.FLOW, start=grid.start)
        here = rows.add(t=grid.t[0], alpha=grid.alpha[0], sigma=grid.sigma[0])
        for step in range(grid.steps):
            length = grid.sigma[step + 1] - grid.sigma[step]
            level = dict(t=grid.t[step + 1], alpha=grid.alpha[step + 1], sigma=grid.sigma[step + 1])
            if grid.sigma[step + 1] == 0:
                rows.add(**level, a={here: 1.0}, b={here: length}, evaluated=False)
                break
            ahead = rows.add(**level, a={here: 1.0}, b={here: length})
            weights = {here: length / 2, ahead: length / 2}
            here = rows.add(**level, a={here: 1.0}, b=weights, evaluated=step < grid.steps - 1)
        return rows.build()
