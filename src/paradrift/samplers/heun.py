"""Heun's rule in the noise level, with churn: the sampler of EDM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import levels
from paradrift.schedules import Schedule, log_snr
from paradrift.tableau import Rows, Tableau


@dataclass(frozen=True, kw_only=True)
class Heun:
    r"""The trapezoidal rule on the probability-flow ODE, after an optional step back up in noise ("churn").

    With :math:`\bar x = x/\alpha` and :math:`\varrho = \sigma/\alpha`,

    .. math:: \hat\varrho = (1+\gamma)\varrho_t, \qquad \hat x = \bar x_t + \nu \sqrt{\hat\varrho^2-\varrho_t^2}\,\xi,
        \qquad d = (\hat x - D(\hat x))/\hat\varrho, \qquad x' = \hat x + (\varrho_s - \hat\varrho) d,

    .. math:: \bar x_s = \hat x + (\varrho_s - \hat\varrho) \tfrac12\big(d + (x' - D(x'))/\varrho_s\big), \qquad
        \gamma = \min(\text{churn}/N, \sqrt2 - 1)\ \text{where low} \le \varrho_t \le \text{high}.

    A step to a noiseless end is Euler's. The rows of a step are :math:`\bar x_t` (a node only without churn),
    :math:`\hat x` and :math:`x'`. Noise is drawn only where :math:`\gamma > 0` (the authors' code draws and multiplies
    by zero elsewhere).

    Source: Karras et al. 2022, arXiv 2206.00364, algorithm 2 (algorithm 1 without churn).

    Args:
        churn: S_churn of the paper, >= 0; 0 is deterministic.
        low: S_tmin, the smallest noise level sigma/alpha at which churn acts.
        high: S_tmax, the largest.
        inflation: S_noise, the standard deviation of churn's noise; the paper uses 1.003 to 1.007.

    Raises:
        SpecError: if churn or inflation is negative, the grid starts without signal, or churn leaves the schedule.

    Cost: 2N nodes for N steps, 2N - 1 to a noiseless end; reach 2. Order 2 without churn.

    Example:
        >>> from paradrift.schedules import EDM
        >>> Heun().tableau(EDM(), np.array([80.0, 2.5, 0.002, 0.0])).nodes
        5
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = float("inf")
    inflation: float = 1.0

    def __post_init__(self) -> None:
        if not (self.churn >= 0 and self.inflation >= 0):
            raise SpecError(
                f"expected churn >= 0 and inflation >= 0, found churn={self.churn} and inflation={self.inflation}: "
                "0 turns churn off"
            )

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.

        Raises:
            SpecError: if the grid starts without signal, or churn leaves the schedule.
        """
        grid = levels(schedule, times)
        if grid.alpha[0] <= 0:
            raise SpecError(
                f"expected signal at the first time, found alpha = 0 at t={grid.t[0]}: use FlowHeun or DDIM"
            )
        relative = grid.sigma / grid.alpha
        gamma = np.where(
            (relative >= self.low) & (relative <= self.high), min(self.churn / grid.steps, 2**0.5 - 1), 0.0
        )[:-1]
        raised = relative[:-1] * (1 + gamma)
        t, alpha = grid.t[:-1].copy(), grid.alpha[:-1].copy()
        up = gamma > 0
        t[up] = schedule.time(-np.log(raised[up]))
        alpha[up] = schedule.alpha(t[up])
        if not np.allclose(log_snr(schedule, t), -np.log(raised), rtol=0, atol=1e-6):
            raise SpecError(
                f"expected churned noise levels inside the schedule, found {raised.max()} above its first: "
                "start the grid lower or set high= below the first level"
            )
        rows = Rows(form=Form.DATA, start=grid.start)
        here = rows.add(t=grid.t[0], alpha=grid.alpha[0], sigma=grid.sigma[0], evaluated=not up[0])
        for step in range(grid.steps):
            if up[step]:
                gain = alpha[step] / grid.alpha[step]
                fresh = alpha[step] * self.inflation * np.sqrt(raised[step] ** 2 - relative[step] ** 2)
                sigma = alpha[step] * raised[step]
                here = rows.add(t=t[step], alpha=alpha[step], sigma=sigma, a={here: gain}, c=fresh, draw=True)
            final = step == grid.steps - 1
            level = dict(t=grid.t[step + 1], alpha=grid.alpha[step + 1], sigma=grid.sigma[step + 1])
            ratio, alpha_s = relative[step + 1] / raised[step], grid.alpha[step + 1]
            gain = alpha_s / alpha[step]
            if relative[step + 1] == 0:
                here = rows.add(**level, b={here: alpha_s}, evaluated=False)
                break
            ahead = rows.add(**level, a={here: gain * ratio}, b={here: alpha_s * (1 - ratio)})
            half = (1 - ratio) / 2  # (rho_hat - rho_s) / (2 rho_hat); divided by ratio: the same over rho_s
            here = rows.add(
                **level,
                a={here: gain * (1 - half), ahead: -half / ratio},
                b={here: alpha_s * half, ahead: alpha_s * half / ratio},
                evaluated=not (final or up[min(step + 1, grid.steps - 1)]),
            )
        return rows.build()
