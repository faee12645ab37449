"""UniPC: a multistep predictor, and a corrector that costs no evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.base import Levels, levels
from paradrift.schedules import Schedule
from paradrift.tableau import Rows, Tableau

_POINTS, _SHARES = np.polynomial.legendre.leggauss(32)
_INNER, _SHARES = (1 + _POINTS) / 2, _SHARES / 2  # from 0 to 1


@dataclass(frozen=True, kw_only=True)
class UniPC:
    r"""The unified predictor-corrector in data prediction: the output found at a prediction corrects it afterwards.

    A step of length h in log-SNR goes from the *corrected* state :math:`x^c_t` to a prediction :math:`x_s`, where the
    model is evaluated, and then once more, with that output, to the corrected state :math:`x^c_s`. Both have the shape

    .. math:: \frac{\sigma_s}{\sigma_t} x^c_t + \alpha_s (1 - e^{-h}) D_0 + \sum_i \frac{y_i}{r_i} (D_i - D_0), \qquad
        \sum_i y_i r_i^{k-1} = \alpha_s h \int_0^1 e^{-h(1-u)} u^k\,du, \quad k = 1, 2, \dots

    :math:`D_0` is the output at t, the :math:`D_i` of a predictor of order p are the p - 1 outputs before, at distances
    :math:`r_i h` in log-SNR (negative), and the corrector has one more, the new one at r = 1. So the integral of the
    interpolating polynomial is exact. Only where one :math:`D_i` is left, in a predictor of order 2 and in a corrector
    of order 1, the published rule takes :math:`y = \alpha_s B / 2` instead, with B = h ("bh1") or
    :math:`B = 1 - e^{-h}` ("bh2"): the two variants differ nowhere else.

    Prediction and corrected state share their first term, so :math:`x^c_s = x_s + \sum (b^c_i - b_i) D_i`: the table
    has one row a step, one state column, and one more column of b for the corrector.

    The first steps have as many outputs as there are; a step to a noiseless end is of first order; an output without
    any signal is at an infinite distance and counts for nothing. The answer is a prediction, not corrected.

    Source: Zhao et al. 2023, arXiv 2302.04867, UniP and UniC for data predictions, multistep. Twin: diffusers'
    ``UniPCMultistepScheduler`` (``predict_x0``).

    Args:
        order: p, the predictor's order: 2 or 3.
        variant: "bh2" or "bh1".
        lower_order_final: Whether the last step is of order 1 and the one before of order 2, for stability.

    Raises:
        SpecError: if the order or the variant is another, or the grid leaves the schedule.

    Cost: N nodes for N steps, reach p + 1. Order p + 1 with ``lower_order_final=False`` where the first steps are
    short, else 2.

    Example:
        >>> from paradrift.schedules import EDM
        >>> table = UniPC().tableau(EDM(), np.array([8.0, 4.0, 2.0, 1.0]))
        >>> table.nodes, table.b[1].tolist(), table.band("a", 1).tolist()
        (3, [0.5, 0.0, 0.0, 0.0], [0.0, 0.5, 0.5, 0.5])
    """

    order: Literal[2, 3] = 2
    variant: Literal["bh1", "bh2"] = "bh2"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise SpecError(f"expected order 2 or 3, found {self.order}: choose one, or DDIM for order 1")
        if self.variant not in ("bh1", "bh2"):
            raise SpecError(f"expected variant 'bh1' or 'bh2', found {self.variant!r}: choose one")

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table on a grid.

        Args:
            schedule: The noise schedule.
            times: Model times, shape (N + 1,).

        Returns:
            A table in data form.
        """
        grid = levels(schedule, times)
        h = grid.log_steps
        rows = Rows(form=Form.DATA, start=grid.start)
        rows.add(t=grid.t[0], alpha=grid.alpha[0], sigma=grid.sigma[0])
        correction = {}  # of the state at hand, by output
        for step, order in enumerate(self._orders(grid)):
            last = step == grid.steps - 1
            alpha, decay = grid.alpha[step + 1], grid.decay[step]
            gain = alpha * (1 - grid.ratio[step])
            half = (alpha * h[step] if self.variant == "bh1" else gain) / 2
            distances = [-h[step - back : step].sum() / h[step] for back in range(1, order)]
            ahead = _outputs(step, gain, distances, _weights(alpha, h[step], distances, half))
            b = _sum(ahead, correction, decay)
            level = dict(t=grid.t[step + 1], alpha=alpha, sigma=grid.sigma[step + 1])
            rows.add(**level, a={step: decay}, b=b, evaluated=not last)
            correction = {}
            if np.isfinite(h[step]):
                distances = [1.0, *distances]
                correction = _outputs(step, gain, distances, _weights(alpha, h[step], distances, half), newest=1)
                correction = _sum(correction, ahead, -1.0)
        return rows.build()

    def _orders(self, grid: Levels) -> list[int]:
        """The predictor's order in each step."""
        without = int(grid.alpha[0] == 0)
        left = grid.steps - np.arange(grid.steps) if self.lower_order_final else np.full(grid.steps, self.order)
        known = np.maximum(np.arange(grid.steps) + 1 - without, 1)
        return np.where(np.isfinite(grid.log_steps), np.minimum(np.minimum(left, known), self.order), 1).tolist()


def _outputs(step: int, gain: float, distances: Sequence[float], weights: Array, newest: int = -1) -> dict[int, float]:
    """The columns of b, from weights of the divided differences (D_i - D_0) / r_i; the newest is at step + newest."""
    b = {step: gain}
    others = [node for node in range(step + newest, -1, -1) if node != step]
    for node, distance, weight in zip(others, distances, weights, strict=False):
        b[node] = weight / distance
        b[step] -= weight / distance
    return b


def _sum(one: dict[int, float], other: dict[int, float], times: float) -> dict[int, float]:
    """``one + times other``, column by column."""
    return {node: one.get(node, 0.0) + times * other.get(node, 0.0) for node in {**one, **other}}


def _weights(alpha: float, h: float, distances: Sequence[float], half: float) -> Array:
    """The y of the docstring: exact moments, or the published half where one difference is left."""
    if len(distances) < 2:
        return np.full(len(distances), half)
    powers = np.arange(len(distances))
    moments = alpha * h * (_SHARES * np.exp(-h * (1 - _INNER))) @ _INNER[:, None] ** (powers + 1)
    return np.asarray(np.linalg.solve(np.asarray(distances) ** powers[:, None], moments), np.float64)
