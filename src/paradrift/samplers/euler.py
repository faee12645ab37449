"""Euler's rule in the noise level."""

from __future__ import annotations

from dataclasses import dataclass

from paradrift.forms import Array, Form
from paradrift.samplers.base import levels, one_step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Euler:
    r"""Euler's rule on the probability-flow ODE in :math:`\bar x = x/\alpha` and :math:`\varrho = \sigma/\alpha`.

    .. math:: \bar x_s = \bar x_t + (\varrho_s - \varrho_t) \frac{\bar x_t - D}{\varrho_t}
        \quad\Longleftrightarrow\quad x_s = \frac{\sigma_s}{\sigma_t} x_t + \alpha_s (1 - r) D.

    In these variables Euler's rule *is* the deterministic DDIM, for every schedule; both names are kept because people
    look for both. The second form is finite where :math:`\alpha_t = 0`.

    Source: Karras et al. 2022, arXiv 2206.00364, equations 1 and 3, algorithm 1 without its correction. Twins:
    diffusers' ``EulerDiscreteScheduler`` (its states are :math:`\bar x`) and k-diffusion's ``sample_euler``.

    Raises:
        SpecError: if the grid leaves the schedule.

    Cost: N nodes for N steps, reach 1. Order 1.

    Example:
        >>> import numpy as np
        >>> from paradrift.schedules import EDM
        >>> Euler().tableau(EDM(), np.array([80.0, 20.0, 0.0])).band("a", 1).tolist()
        [0.0, 0.25, 0.0]
    """

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        return one_step(grid, Form.DATA, grid.decay, grid.alpha[1:] * (1 - grid.ratio))
