"""Euler's rule on the velocity of a straight path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import Levels, levels, one_step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class FlowEuler:
    r"""Euler's rule for flow matching and rectified flow.

    .. math:: x_s = x_t + (\sigma_s - \sigma_t)\, u, \qquad u = \hat\epsilon - \hat x_0, \qquad \alpha + \sigma = 1.

    The table is in flow form; in data form it is DDIM's, as on every schedule.

    Source: Lipman et al. 2023, arXiv 2210.02747, equation 1. Twin: diffusers'
    ``FlowMatchEulerDiscreteScheduler``; its shift of the times belongs to the grid.

    Raises:
        SpecError: if the schedule is not a straight path, or the grid leaves it.

    Cost: N nodes for N steps, reach 1. Order 1.

    Example:
        >>> from paradrift.schedules import Flow
        >>> FlowEuler().tableau(Flow(), np.array([1.0, 0.25, 0.0])).band("b", 1).tolist()
        [0.0, -0.75, -0.25]
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
        return one_step(grid, Form.FLOW, np.ones(grid.steps), np.diff(grid.sigma))


def straight(schedule: Schedule, times: Array) -> Levels:
    """The levels of a grid on a straight path.

    Args:
        schedule: The noise schedule.
        times: Model times, shape (N + 1,).

    Returns:
        The levels.

    Raises:
        SpecError: unless alpha + sigma = 1 at every time.
    """
    grid = levels(schedule, times)
    off = np.abs(grid.alpha + grid.sigma - 1)
    if np.any(off > 1e-9):
        raise SpecError(
            f"expected a straight path, alpha + sigma = 1, found {float(grid.alpha[0] + grid.sigma[0])} at "
            f"t={grid.t[0]}: use Euler or Heun, which hold for every schedule"
        )
    return grid
