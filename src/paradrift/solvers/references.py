"""Surrogates of nodes that have not been evaluated, or not often enough to show a slope: continued from others."""

from __future__ import annotations

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State

STEEPEST = 0.95  # slopes of the data prediction above this are not extrapolated: the continuation divides by 1 - s


def carry_slopes(state: State, here: Here, nearest: Values, first: int) -> None:
    """Give every node without a measured slope that of the nearest measured node before it, as a Gaussian would.

    Slopes of the data prediction change quickly with the noise level, the variance that they imply does not.

    Args:
        state: The windows; slopes change in place.
        here: The table under the windows, which has a noise schedule.
        nearest: Nearest position with a measured slope, at or before each position, -1 where there is none; shape
            (B, S), int64.
        first: First position that may change.
    """
    xp = arrays.library(state.slope)
    level = here.levels(slice(None), slice(None), None)
    steep = arrays.clip(level.gain * (state.slope - level.p), 0.0, STEEPEST)
    variance = (level.variance * steep / (1 - steep))[arrays.at(arrays.clip(nearest, low=0))]
    spread = level.variance + variance
    slope = level.p + xp.where(spread > 0, variance / spread, 0.0) / level.gain
    borrow = (state.known & (state.rest < 0) & (nearest >= 0))[..., None]
    borrow[:first] = False
    state.slope = xp.where(borrow, slope, state.slope)


def continue_references(state: State, here: Here, first: int, measured: bool, scheduled: bool) -> None:
    r"""Give every node that was never evaluated a surrogate: the continuation of the last node before it that was.

    The data prediction of one Gaussian is :math:`D_\rho(\bar x) = \mu + s_\rho (\bar x - \mu)` with
    :math:`s_\rho = v/(v+\rho^2)`, :math:`\bar x = x/\alpha`, :math:`\rho = \sigma/\alpha`. The last known node's
    prediction and slope determine :math:`\mu` and v, so they determine D at every other noise level: exact inside a
    Gaussian mode, and a second-order extrapolation elsewhere. With fixed slopes the data prediction is held instead.
    Where nothing is known yet, the data are taken to be centred, with the prior slope. Rows that are not nodes have
    the reference zero.

    Args:
        state: The windows; changed in place.
        here: The table under the windows.
        first: First position that may need a surrogate, the front or one after it.
        measured: Whether slopes are measured, so that they can be continued.
        scheduled: Whether the table has a noise schedule.
    """
    xp = arrays.library(state.z)
    # A later node may be known where an evaluation failed in between: looking at it would not be causal.
    last = arrays.running_max(xp.where(state.known, arrays.steps(0, len(state.known), state.front), -1))[first:]
    at = arrays.at(arrays.clip(last, low=0))
    f, ref, slope = state.f[at], state.ref[at], state.slope[at]
    late, old = here.levels(slice(first, None), slice(None), None), here.levels(*at, None)
    # 0: the reference is zero, the slope the prior
    usable = arrays.cast((here.node[first:] & (last >= 0))[..., None], f)
    if not scheduled:  # nothing to continue with: hold the output and its slope
        reference, outputs, slopes = usable * ref, usable * f, slope if measured else late.prior
    else:
        centre, slopes = ref / old.alpha, late.prior
        data = (f - old.p * ref) / old.q
        if measured:
            steep = arrays.clip(old.gain * (slope - old.p), 0.0, STEEPEST)
            odds = steep / (1 - steep)
            variance = old.variance * odds
            spread = late.variance + variance
            slopes = late.p + xp.where(spread > 0, variance / spread, steep) / late.gain
            data = centre = data + odds * (data - centre)
        reference = usable * late.alpha * centre
        outputs = late.p * reference + usable * late.q * data
    slopes = xp.where(usable > 0, slopes, late.prior)
    unknown = ~state.known[first:, :, None]
    for kept, values in ((state.ref, reference), (state.f, outputs), (state.slope, slopes)):
        kept[first:] = xp.where(unknown, values, kept[first:])
