"""SDE-DPM-Solver++ (2M): the second-order multistep rule for the reverse SDE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.forms import Array, Form
from paradrift.samplers.base import fraction, levels, multistep
from paradrift.samplers.dpmpp_2m import step_ratio
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class DPMppSDE:
    r"""The second-order multistep data-prediction integrator of the reverse diffusion.

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} e^{-\lambda^2 h} x_t + \alpha_s (1 - e^{-(1+\lambda^2) h})
        \Big[D_0 + \frac{h}{2 h_0}(D_0 - D_1)\Big] + \sigma_s \sqrt{1 - e^{-2 \lambda^2 h}}\,\xi.

    With :math:`\lambda = 0` it is :class:`~paradrift.samplers.dpmpp_2m.DPMpp2M`; its first-order steps are DDPM's with
    the small variance at :math:`\lambda = 1`. Like diffusers, a noise is drawn at every step, the last one included.

    Source: Lu et al. 2022, arXiv 2211.01095, its part on diffusion SDEs (SDE-DPM-Solver++). Twins: diffusers'
    ``DPMSolverMultistepScheduler`` ("sde-dpmsolver++", order 2, midpoint); k-diffusion's ``sample_dpmpp_2m_sde`` with
    ``eta`` = :math:`\lambda^2`.

    Args:
        stochasticity: lambda, 0 to 1.
        short: Grids of fewer steps end with a first-order step, 0 turns this off.

    Raises:
        SpecError: if the stochasticity is not in [0, 1], or the grid leaves the schedule.

    Cost: N nodes for N steps, reach 2. Weak order 2 in the smooth part, strong order 1.

    Example:
        >>> from paradrift.schedules import VE
        >>> DPMppSDE().tableau(VE(), np.linspace(1, 0, 21)).noisy
        True
    """

    stochasticity: float = 1.0
    short: int = 15

    def __post_init__(self) -> None:
        fraction("stochasticity", self.stochasticity)

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        square = self.stochasticity**2
        gain = grid.alpha[1:] * (1 - grid.ratio ** (1 + square))
        slope = gain / 2 * step_ratio(grid, self.short)
        a = grid.decay * grid.ratio**square
        c = grid.sigma[1:] * np.sqrt(1 - grid.ratio ** (2 * square))
        return multistep(grid, Form.DATA, a, np.stack([gain + slope, -slope]), c, square > 0)
