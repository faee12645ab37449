"""What a round has taught: new references, secant slopes, and how wrong the surrogates were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from paradrift.growth import FLOOR, LEVELS
from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State, Where

UNSEEN = 1.0  # slope left unexplained, of D against x / alpha, assumed where nothing was measured


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Measured at every position, shape (B, S) unless said otherwise.

    Args:
        miss: True defect of the surrogate's last answer, rms of f; infinite where a node has none.
        rest: Slope left unexplained, of D against x / alpha; measured, or carried from the nearest earlier node.
        level: Index into the ladder of growths that the slopes up to here call for, int64.
        steepest: Largest variance shown by slopes up to here; 0 where none was measured.
        broken: Samples whose front has no finite output, shape (S,), bool.
        nearest: Nearest position with a measured slope, at or before each position; -1 where there is none, int64.
        spoiled: Whether any node came back non-finite.
    """

    miss: Values
    rest: Values
    level: Values
    steepest: Values
    broken: Values
    nearest: Values
    spoiled: bool


def measure(
    state: State,
    here: Here,
    where: Where,
    outputs: Values,
    *,
    variance: float,
    groups: Values | None,
    bounds: tuple[float, float] | None,
    secants: bool,
    history: int,
) -> Facts:
    r"""Take in the outputs of a round.

    Per node, with the change since its last evaluation :math:`dx, df`:

    .. math:: s = \frac{\langle dx, df\rangle}{\langle dx, dx\rangle}, \qquad
              R = \frac{|df - s\,dx|}{|dx|},

    and the miss :math:`|f - g(x)|` of the old surrogate g. Non-finite outputs are not taken in: their nodes become
    unknown and are guessed again.

    Args:
        state: The windows; references, outputs, slopes and known change in place.
        here: The table under the windows.
        where: Positions and samples of the outputs: two int64 vectors of length N, or two slices of lengths W and S.
        outputs: Model outputs, shape (N, D) or (W, S, D).
        variance: Data variance per element, the bottom of the ladder of growths.
        groups: Group of each element, shape (D,), or None.
        bounds: Least and largest slope that is taken; None for any.
        secants: Whether slopes follow the measurements.
        history: H.

    Returns:
        The facts.
    """
    if len(state.z) == history + 1:
        return _front(state, where, outputs, history)
    xp = arrays.library(outputs)
    x, old = state.z[where], state.slope[where]
    dx, df = x - state.ref[where], outputs - state.f[where]
    xx, xf = _dot(dx, dx, groups), _dot(dx, df, groups)
    finite = xp.isfinite(outputs.sum(-1))
    spoiled = not bool(finite.all())
    known = state.known[where] & finite
    slope = arrays.cast(xf / xx, x) if secants else old
    if groups is not None:
        slope, xx = slope[..., groups], xx.sum(-1)[..., None]
    valid = known[..., None] & xp.isfinite(slope)
    if secants:
        slope = xp.where(valid, slope if bounds is None else arrays.clip(slope, *bounds), old)
    missed = arrays.norm(df - old * dx) / outputs.shape[-1] ** 0.5
    left = arrays.norm(df - slope * dx) / arrays.cast(arrays.root(xx[..., 0]), x)
    level = here.levels(*where)
    rest = xp.where(known & xp.isfinite(left), left * abs(level.gain), state.rest[where])
    if spoiled:
        taken = finite[..., None]
        outputs, x = xp.where(taken, outputs, state.f[where]), xp.where(taken, x, state.ref[where])
        slope = xp.where(taken, slope, old)
    state.f[where], state.ref[where], state.slope[where] = outputs, x, slope
    state.known[where], state.rest[where] = finite, rest

    miss = arrays.cast(xp.where(state.known, 0.0, math.inf), x)
    miss[where] = xp.where(finite, missed, math.inf)
    broken = xp.zeros_like(state.known[0])
    if spoiled:
        lost = xp.zeros_like(state.known)
        lost[where] = ~finite
        broken = lost[history - 1]
    nearest = arrays.running_max(xp.where(state.rest >= 0, arrays.steps(0, len(miss), miss), -1))
    rest = xp.where(nearest >= 0, state.rest[arrays.at(arrays.clip(nearest, low=0))], UNSEEN)
    steepest, grade = xp.zeros_like(miss), xp.full_like(nearest, LEVELS - 1)
    if secants:
        steep = xp.amax(level.gain[..., None] * (slope - level.p[..., None]), -1)
        shown = arrays.clip(xp.where(steep < 1, level.variance * steep / (1 - steep), math.inf), low=variance)
        steepest[where] = xp.where(valid.any(-1), shown, 0.0)  # zero before the front, where nothing is asked
        front = steepest[history - 1]
        xp.maximum(front, state.steepest, out=front)
        steepest = arrays.running_max(steepest)
        ladder = arrays.log2(xp.where(steepest > 0, steepest / variance, math.inf)) / 2
        grade = arrays.whole(xp.ceil(arrays.clip(ladder, FLOOR, LEVELS - 1)))
    return Facts(miss=miss, rest=rest, level=grade, steepest=steepest, broken=broken, nearest=nearest, spoiled=spoiled)


def _dot(u: Values, v: Values, groups: Values | None) -> Values:
    """<u, v> in float64, over all elements or those of each group: shape (..., 1) or (..., G)."""
    if groups is None:
        return arrays.total(u * v)
    product = arrays.tensor(u * v)
    empty = product.new_zeros(*product.shape[:-1], int(groups.max()) + 1, dtype=torch.float64)
    return arrays.as_in(empty.index_add(-1, arrays.tensor(groups), product.double()), u)


def _front(state: State, where: Where, outputs: Values, history: int) -> Facts:
    """A window of one node: its state is exact, so there is nothing to measure."""
    xp = arrays.library(outputs)
    finite = xp.isfinite(outputs).all(-1)
    state.f[where], state.ref[where], state.known[where] = outputs, state.z[where], finite
    lost = xp.zeros_like(state.known)
    lost[where] = ~finite
    nothing = xp.zeros_like(state.rest)
    level = arrays.whole(xp.full_like(nothing, LEVELS - 1))
    return Facts(
        miss=nothing,
        rest=nothing,
        level=level,
        steepest=nothing,
        broken=lost[history - 1],
        nearest=level,
        spoiled=False,
    )
