"""What a round has taught: new references, secant slopes, and how wrong the surrogates were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.growth import FLOOR, LEVELS
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

    miss: Tensor
    rest: Tensor
    level: Tensor
    steepest: Tensor
    broken: Tensor
    nearest: Tensor
    spoiled: bool


def measure(
    state: State,
    here: Here,
    where: Where,
    outputs: Tensor,
    *,
    variance: float,
    groups: Tensor | None,
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
    x, old = state.z[where], state.slope[where]
    dx, df = x - state.ref[where], outputs - state.f[where]
    xx, xf = _dot(dx, dx, groups), _dot(dx, df, groups)
    finite = torch.isfinite(outputs.sum(-1))
    spoiled = not bool(finite.all())
    known = state.known[where] & finite
    slope = (xf / xx).to(x.dtype) if secants else old
    if groups is not None:
        slope, xx = slope[..., groups], xx.sum(-1, keepdim=True)
    valid = known[..., None] & torch.isfinite(slope)
    if secants:
        slope = torch.where(valid, slope if bounds is None else slope.clamp(*bounds), old)
    missed = torch.linalg.vector_norm(df - old * dx, dim=-1) / outputs.shape[-1] ** 0.5
    left = torch.linalg.vector_norm(df - slope * dx, dim=-1) / xx.squeeze(-1).sqrt().to(x.dtype)
    level = here.levels(*where)
    rest = torch.where(known & torch.isfinite(left), left * level.gain.abs(), state.rest[where])
    if spoiled:
        taken = finite[..., None]
        outputs, x = torch.where(taken, outputs, state.f[where]), torch.where(taken, x, state.ref[where])
        slope = torch.where(taken, slope, old)
    state.f[where], state.ref[where], state.slope[where] = outputs, x, slope
    state.known[where], state.rest[where] = finite, rest

    miss = torch.where(state.known, 0.0, torch.inf).to(x.dtype)
    miss[where] = torch.where(finite, missed, torch.inf)
    broken = torch.zeros_like(state.known[0])
    if spoiled:
        lost = torch.zeros_like(state.known)
        lost[where] = ~finite
        broken = lost[history - 1]
    positions = torch.arange(len(miss), device=miss.device)[:, None]
    nearest = torch.where(state.rest >= 0, positions, -1).cummax(0).values
    rest = torch.where(nearest >= 0, state.rest.gather(0, nearest.clamp(min=0)), UNSEEN)
    steepest, grade = torch.zeros_like(miss), torch.full_like(nearest, LEVELS - 1)
    if secants:
        steep = (level.gain[..., None] * (slope - level.p[..., None])).amax(-1)
        shown = torch.where(steep < 1, level.variance * steep / (1 - steep), torch.inf).clamp(min=variance)
        steepest[where] = torch.where(valid.any(-1), shown, 0.0)  # zero before the front, where nothing is asked
        front = steepest[history - 1]
        torch.maximum(front, state.steepest, out=front)
        steepest = steepest.cummax(0).values
        ladder = torch.log2(torch.where(steepest > 0, steepest / variance, torch.inf)) / 2
        grade = ladder.clamp(FLOOR, LEVELS - 1).ceil().long()
    return Facts(miss=miss, rest=rest, level=grade, steepest=steepest, broken=broken, nearest=nearest, spoiled=spoiled)


def _dot(u: Tensor, v: Tensor, groups: Tensor | None) -> Tensor:
    """<u, v> in float64, over all elements or those of each group: shape (..., 1) or (..., G)."""
    product = u * v
    if groups is None:
        return product.sum(-1, keepdim=True, dtype=torch.float64)
    empty = product.new_zeros(*product.shape[:-1], int(groups.max()) + 1, dtype=torch.float64)
    return empty.index_add(-1, groups, product.double())


def _front(state: State, where: Where, outputs: Tensor, history: int) -> Facts:
    """A window of one node: its state is exact, so there is nothing to measure."""
    finite = torch.isfinite(outputs).all(-1)
    state.f[where], state.ref[where], state.known[where] = outputs, state.z[where], finite
    lost = torch.zeros_like(state.known)
    lost[where] = ~finite
    nothing = torch.zeros_like(state.rest)
    level = torch.full(nothing.shape, LEVELS - 1, device=nothing.device)
    return Facts(
        miss=nothing,
        rest=nothing,
        level=level,
        steepest=nothing,
        broken=lost[history - 1],
        nearest=level,
        spoiled=False,
    )
