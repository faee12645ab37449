"""DDPM: ancestral sampling of the discrete Markov chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import levels, one_step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class DDPM:
    r"""Denoising diffusion probabilistic models.

    .. math:: x_s = \frac{\sigma_s}{\sigma_t} r\, x_t + \alpha_s (1 - r^2) D + c\,\xi, \qquad
        c^2 = \begin{cases} \sigma_s^2 (1 - r^2) & \text{small} \\ \sigma_t^2 (1 - r^2) & \text{large} \end{cases}

    The mean is that of the posterior :math:`q(x_s | x_t, x_0 = D)`, the small variance is the posterior's, the large
    one is that of the forward step. The data form is exact and finite where :math:`\alpha_t = 0`. A step to a noiseless
    end is the mean: no noise is drawn. (A grid that stops early ends with an ordinary, noisy step.)

    Source: Ho, Jain and Abbeel 2020, arXiv 2006.11239, equations 6, 7 and section 3.2. Twin: diffusers'
    ``DDPMScheduler`` with ``clip_sample=False`` (clipping belongs to the denoiser); it skips the last noise only where
    the last listed time is 0, and so returns a noisy sample from "trailing" grids with the large variance.

    Args:
        variance: "small" or "large", diffusers' fixed_small and fixed_large.

    Raises:
        SpecError: if the variance has another name, or the grid leaves the schedule.

    Cost: N nodes for N steps, reach 1.

    Example:
        >>> from paradrift.schedules import Discrete
        >>> table = DDPM().tableau(Discrete([0.8, 0.2]), np.array([1, 0, -1]))
        >>> table.nodes, table.draws.tolist(), table.band("b", 1)[-1].item()
        (2, [False, True, False], 1.0)
    """

    variance: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise SpecError(
                f"expected variance 'small' or 'large', found {self.variance!r}: learned variances are not of this form"
            )

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        fresh = 1 - grid.ratio**2
        level = grid.sigma[1:] if self.variance == "small" else grid.sigma[:-1]
        c = level * np.sqrt(fresh)
        if grid.sigma[-1] == 0:
            c[-1] = 0.0
        return one_step(grid, Form.DATA, grid.decay * grid.ratio, grid.alpha[1:] * fresh, c)
