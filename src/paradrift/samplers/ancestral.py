"""Euler's rule with ancestral noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.forms import Array, Form
from paradrift.samplers.base import fraction, levels, one_step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class Ancestral:
    r"""Euler's rule to a lower noise level, then noise back up.

    .. math:: \bar x_s = \bar x_t + (\varrho_\downarrow - \varrho_t)\frac{\bar x_t - D}{\varrho_t} + \varrho_\uparrow
        \xi, \qquad \varrho_\uparrow^2 = \eta^2 \varrho_s^2 (1 - \varrho_s^2/\varrho_t^2), \quad
        \varrho_\downarrow^2 = \varrho_s^2 - \varrho_\uparrow^2,

    with :math:`\bar x = x/\alpha` and :math:`\varrho = \sigma/\alpha`. This is the map of :class:`DDIM` with the same
    eta; with ``eta = 1`` it is DDPM with the small variance. Like diffusers, a noise is drawn at the last step too.

    Source: k-diffusion's ``sample_euler_ancestral`` (Crowson 2022). Twin: diffusers'
    ``EulerAncestralDiscreteScheduler``.

    Args:
        eta: Share of ancestral noise, 0 to 1.

    Raises:
        SpecError: if eta is not in [0, 1], or the grid leaves the schedule.

    Cost: N nodes for N steps, reach 1.

    Example:
        >>> from paradrift.schedules import EDM
        >>> table = Ancestral().tableau(EDM(), np.array([2.0, 1.0, 0.0]))
        >>> table.band("a", 1).round(6).tolist(), table.draws.tolist()
        ([0.0, 0.25, 0.0], [False, True, True])
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        fraction("eta", self.eta)

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        up = self.eta * np.sqrt(1 - grid.ratio**2)  # in units of the noise level at s
        down = np.sqrt(1 - up**2)
        a = grid.decay * down
        b = grid.alpha[1:] * (1 - grid.ratio * down)
        return one_step(grid, Form.DATA, a, b, grid.sigma[1:] * up, self.eta > 0)
