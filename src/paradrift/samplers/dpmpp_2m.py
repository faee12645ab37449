"""DPM-Solver++ (2M): second order from one earlier output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.forms import Array, Form
from paradrift.samplers.base import Levels, levels, multistep
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class DPMpp2M:
    r"""The second-order multistep data-prediction integrator.

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} x_t + \alpha_s (1 - e^{-h}) \Big[D_0 + \frac{h}{2 h_0}(D_0 - D_1)\Big],

    h the step in log-SNR, :math:`h_0` the step before, :math:`D_1` the output before. The first step and a step to a
    noiseless end are of first order (DDIM).

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2. Twins: diffusers' ``DPMSolverMultistepScheduler``
    ("dpmsolver++", order 2, midpoint) and k-diffusion's ``sample_dpmpp_2m``.

    Args:
        short: Grids of fewer steps end with a first-order step, for stability; 15 is diffusers' ``lower_order_final``,
            0 turns this off.

    Raises:
        SpecError: if the grid leaves the schedule.

    Cost: N nodes for N steps, reach 2. Order 2.

    Example:
        >>> from paradrift.schedules import EDM
        >>> table = DPMpp2M(short=0).tableau(EDM(), np.array([4.0, 2.0, 1.0]))
        >>> table.b.tolist()
        [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-0.25, 0.75, 0.0]]
    """

    short: int = 15

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        gain = grid.alpha[1:] * (1 - grid.ratio)
        slope = gain / 2 * step_ratio(grid, self.short)
        return multistep(grid, Form.DATA, grid.decay, np.stack([gain + slope, -slope]))


def step_ratio(grid: Levels, short: int) -> Array:
    """The ratio h / h_0 of each step to the one before, zero where the step is of first order.

    Args:
        grid: The levels of the grid.
        short: Grids of fewer steps end with a first-order step.

    Returns:
        Shape (N,).
    """
    h = grid.log_steps
    ratio = np.zeros(grid.steps)
    finite = np.isfinite(h[1:])
    ratio[1:][finite] = h[1:][finite] / h[:-1][finite]  # a first step from no signal is infinitely long: ratio 0
    if grid.steps < short:
        ratio[-1] = 0.0
    return ratio
