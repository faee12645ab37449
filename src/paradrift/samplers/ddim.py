"""DDIM: from the deterministic sampler to DDPM in one number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.forms import Array, Form
from paradrift.samplers.base import fraction, levels, one_step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


@dataclass(frozen=True, kw_only=True)
class DDIM:
    r"""Denoising diffusion implicit models.

    .. math:: x_s = \alpha_s D + \sqrt{\sigma_s^2 - c^2}\,\hat\epsilon + c\,\xi, \qquad
        c^2 = \eta^2 \sigma_s^2 (1 - r^2), \qquad r = \frac{\alpha_t\sigma_s}{\alpha_s\sigma_t}.

    The data prediction D is the natural unknown: with :math:`\hat\epsilon = (x_t - \alpha_t D)/\sigma_t` the row is
    :math:`x_s = a x_t + (\alpha_s - \alpha_t a) D + c \xi` with :math:`a = \sqrt{\sigma_s^2 - c^2}/\sigma_t`, which
    stays finite where :math:`\alpha_t = 0`. The formula holds for every schedule, not only variance-preserving ones.

    Source: Song, Meng and Ermon 2021, arXiv 2010.02502, equations 12 and 16. Twin: diffusers' ``DDIMScheduler``, whose
    steps lead to ``t - n // steps`` where ours lead to the next listed time (the same for "leading" spacing).

    Args:
        eta: Stochasticity: 0 is deterministic, 1 is DDPM with the small variance. With ``eta > 0`` a noise is drawn at
            every step, the last one included, where its weight is zero at a noiseless end.

    Raises:
        SpecError: if eta is not in [0, 1], or the grid leaves the schedule.

    Cost: N nodes for N steps, reach 1.

    Example:
        >>> from paradrift.schedules import Flow
        >>> table = DDIM().tableau(Flow(), np.array([1.0, 0.5, 0.0]))
        >>> table.nodes, table.band("a", 1).tolist(), table.band("b", 1).tolist()
        (2, [0.0, 0.5, 0.0], [0.0, 0.5, 1.0])
    """

    eta: float = 0.0

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
        fresh = self.eta**2 * (1 - grid.ratio**2)  # the share of the new noise in sigma_s^2
        kept = np.sqrt(1 - fresh)
        a = grid.decay * kept
        b = grid.alpha[1:] * (1 - grid.ratio * kept)
        return one_step(grid, Form.DATA, a, b, grid.sigma[1:] * np.sqrt(fresh), self.eta > 0)
