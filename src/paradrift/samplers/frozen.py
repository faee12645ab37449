r"""What an exponential integrator does between two grid points: its own step, cut anywhere.

Over a step from level t to s the integrator solves a linear stochastic equation with one model output f held fixed.
Solved from t to any level r in between, and from r on to s with the same f, it gives the same law of the end:

.. math:: x_r = a_1 x_t + b_1 f + c_1 \zeta_1, \quad x_s = a_2 x_r + b_2 f + c_2 \zeta_2, \qquad
          a = a_2 a_1, \quad b = a_2 b_1 + b_2, \quad c^2 = a_2^2 c_1^2 + c_2^2 .

So the step's own noise :math:`\xi = (a_2 c_1 \zeta_1 + c_2 \zeta_2) / c` leaves one direction free, and given both
ends the state in between is, with a fresh standard normal :math:`z'`,

.. math:: x_r = a_1 x_t + b_1 f + c_1 \Big(\frac{a_2 c_1}{c}\,\xi + \frac{c_2}{c}\,z'\Big).

The maps are those of :class:`paradrift.Exponential`, here for any pairs of levels at once instead of a grid.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.samplers.exponential import Exponential
from paradrift.samplers.held import Levels, step
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau

_CLOSE = 1e-6  # relative: tables read from schedulers are float32


class Bridge(NamedTuple):
    """The state at a level r inside a step, given the step's start, its held output and its noise.

    Args:
        a: Weight of the state at the start.
        b: Weight of the held output.
        known: Weight of the step's own noise.
        fresh: Weight of a fresh standard normal.
    """

    a: Array
    b: Array
    known: Array
    fresh: Array


def bridge(sampler: Exponential, schedule: Schedule, start: Levels, between: Levels, end: Levels) -> Bridge:
    """The law of the state between the ends of a step; see the chapter.

    Args:
        sampler: Its form and stochasticity, above 0.
        schedule: The noise schedule.
        start: Levels at the start of each step.
        between: Levels in between.
        end: Levels at the end, with noise.

    Returns:
        The four weights; ``known**2 + fresh**2`` is the variance with only the start given.
    """
    first, second = (
        step(sampler.form, sampler.stochasticity, schedule, *ends) for ends in ((start, between), (between, end))
    )
    through = second.a * first.c
    whole = np.hypot(through, second.c)
    return Bridge(first.a, first.b, first.c * through / whole, first.c * second.c / whole)


def recognise(table: Tableau, schedule: Schedule) -> Exponential:
    """The exponential integrator that a table is, whatever it was made by and whichever form it is written in.

    DDPM with the small variance, and DDIM with eta = 1, are the data form with stochasticity 1.

    Args:
        table: A sampler's table, in any form.
        schedule: The noise schedule.

    Returns:
        The integrator with the same table.

    Raises:
        SpecError: if it is none, or has no noise.
    """
    if table.reach == 1 and table.alpha is not None and table.sigma is not None and np.all(table.scale == 1):
        for form in (Form.DATA, Form.NOISE, Form.SCORE, Form.RESIDUAL):
            share = _stochasticity(table, Levels(table.alpha, table.sigma), form)
            if not 0 < share <= 1 + _CLOSE:
                continue
            sampler = Exponential(form=form, stochasticity=min(share, 1.0))
            try:
                other = sampler.tableau(schedule, table.t).reform(table.form)
            except SpecError:  # a form that cannot be integrated or written on this grid
                continue
            if all(np.allclose(getattr(table, name), getattr(other, name), _CLOSE, 1e-9) for name in "abc"):
                return sampler
    raise SpecError(
        "expected an exponential integrator with noise, found another table: the divergence from the continuous "
        "dynamics is known for DDPM(), DDIM(eta=1.0) and Exponential(form=..., stochasticity above 0)"
    )


def _stochasticity(table: Tableau, levels: Levels, form: Form) -> float:
    """The stochasticity that the noises of a table have if its form is this one; NaN if none."""
    c = np.diagonal(table.c)[1:]
    start, end = (Levels(levels.alpha[part], levels.sigma[part]) for part in (slice(-1), slice(1, None)))
    with np.errstate(all="ignore"):
        fallen = np.log(start.alpha * end.sigma) - np.log(end.alpha * start.sigma)
        match form:
            case Form.DATA:
                square = np.log1p(-((c / end.sigma) ** 2)) / (2 * fallen)
            case Form.RESIDUAL:
                square = -np.log1p(-(c**2)) / (2 * np.log(end.alpha / start.alpha))
            case _:
                square = (c * start.alpha / (end.alpha * start.sigma)) ** 2 / -np.expm1(2 * fallen)
        known = square[np.isfinite(square)]
        return float(np.sqrt(np.median(known))) if len(known) else float("nan")
