r"""What errors grow to where a path is steeper than any Gaussian: between two modes.

Along a path without noise, with :math:`\bar x = x / \alpha`, a row is followed by
:math:`h \bar x + (1 - h) D(\bar x)`, :math:`h = (\sigma'/\alpha') / (\sigma/\alpha)`, so an error there is multiplied
by :math:`h + (1 - h) \kappa`, :math:`\kappa` the slope of the data prediction D in its direction. Gaussian data have
:math:`\kappa < 1`; across the border between two modes it is larger, and an error that is small at its row decides
where the path ends.

The secant :math:`s = \langle dx, dD\rangle / \langle dx, dx\rangle` hides this, as it is a mean over the directions of
the change. The other secant, of the same two vectors, weighs each direction with its slope once more,

.. math:: \kappa = \frac{\langle dD, dD\rangle}{\langle dx, dD\rangle} = s + \frac{R^2}{s},
          \qquad R = \frac{|dD - s\,dx|}{|dx|},

and so is nearer to the steepest. Where the cosine of dx and dD is below :math:`1 / \sqrt d`, d the number of elements,
as it is between unrelated vectors, what was measured is taken for rounding. Later rows of the window are looked at,
which is why paths with noise, whose acceptance may have to be causal, do without.
"""

from __future__ import annotations

import math

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.lowered import Levels

LIMIT = 100.0  # growth is taken for at most this: what is beyond has decided the answer anyway


def growing(slope: Values, rest: Values, level: Levels, size: int) -> Values | None:
    r"""How much an error that enters the row after each node grows on its way through the window.

    Args:
        slope: Slopes of the outputs of W rows, shape (W, S, 1), or (W, S, D) where elements differ.
        rest: R of each, shape (W, S); negative where it was not measured: nothing is known to grow there.
        level: Levels of these rows and of the one after them, shapes (W + 1, S).
        size: Number of elements d.

    Returns:
        The largest product of multipliers from that row to any later one, at least 1, shape (W, S); None where nothing
        grows.
    """
    xp, here = arrays.library(rest), Levels(*(values[:-1] for values in level))
    secant = xp.amax(here.gain[..., None] * (slope - here.p[..., None]), -1)
    told = (rest >= 0) & (secant > 0) & (rest <= math.sqrt(size) * secant)
    steepest = xp.where(told, secant + rest * rest / secant, 0.0)
    ratio = level.variance[1:] / here.variance
    held = arrays.root(xp.where(here.variance > 0, ratio, 1.0))
    times = held + (1 - held) * arrays.clip(steepest, high=LIMIT)
    if not bool((times > 1).any()):
        return None
    grown = xp.ones_like(times)
    for row in range(len(times) - 2, -1, -1):
        grown[row] = arrays.clip(times[row + 1] * grown[row + 1], low=1.0, high=LIMIT)
    return grown
