"""What a round has taught: new references, secant slopes, and how wrong the surrogates were."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.growth import LEVELS
from paradrift.solvers.lowered import Lowered
from paradrift.solvers.state import State, Where

UNSEEN = 1.0  # slope left unexplained, of D against x / alpha, assumed where nothing was measured
FLOOR = 2  # growth is never taken below that of 16 times the data variance: errors are smooth, and data vary most there


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Measured at every position, shape (B, S) unless said otherwise.

    Args:
        miss: True defect of the surrogate's last answer, rms of f; infinite where a node has none.
        rest: Slope left unexplained, of D against x / alpha; measured, or carried from the nearest earlier node.
        level: Index into the ladder of growths that the slopes up to here call for, int64.
        steepest: Largest variance shown by slopes up to here; 0 where none was measured.
        broken: Samples whose front has no finite output, shape (S,), bool.
        spoiled: Whether any node came back non-finite.
    """

    miss: Tensor
    rest: Tensor
    level: Tensor
    steepest: Tensor
    broken: Tensor
    spoiled: bool


def measure(
    state: State,
    table: Lowered,
    rows: Tensor,
    where: Where,
    outputs: Tensor,
    *,
    variance: float,
    groups: Tensor | None,
    secants: bool,
    history: int,
) -> Facts:
    r"""Take in the outputs of a round.

    Per node, with the change since its last evaluation :math:`dx, df`:

    .. math:: s = \frac{\langle dx, df\rangle}{\langle dx, dx\rangle}, \qquad
              R^2 = \frac{|df|^2 - s \langle dx, df\rangle}{|dx|^2},

    and the miss :math:`|f - g(x)|` of the old surrogate g. Non-finite outputs are not taken in: their nodes become
    unknown and are guessed again.

    Args:
        state: The windows; references, outputs, slopes and known change in place.
        table: The lowered table.
        rows: Absolute rows, shape (B, S).
        where: Positions and samples of the outputs: two int64 vectors of length N, or two slices of lengths W and S.
        outputs: Model outputs, shape (N, D) or (W, S, D).
        variance: Data variance per element, the bottom of the ladder of growths.
        groups: Group of each element, shape (D,), or None.
        secants: Whether slopes follow the measurements.
        history: H.

    Returns:
        The facts.
    """
    if len(state.z) == history + 1:
        return _front(state, rows, where, outputs, history)
    x, row = state.z[where], rows[where]
    before = state.slope[where].double()
    dx, df = (x - state.ref[where]).double(), (outputs - state.f[where]).double()
    xx, xf, ff = dx * dx, dx * df, df * df
    if groups is None:
        xx, xf, ff = (product.sum(-1, keepdim=True) for product in (xx, xf, ff))
        secant = xf / xx
    else:
        empty = xx.new_zeros(*xx.shape[:-1], int(groups.max()) + 1)
        secant = (empty.index_add(-1, groups, xf) / empty.index_add(-1, groups, xx))[..., groups]
    size = xx.sum(-1)
    finite = torch.isfinite(ff.sum(-1))
    spoiled = not bool(finite.all())
    known = state.known[where] & finite
    valid = (
        known[..., None] & torch.isfinite(secant.to(x.dtype)) if secants else torch.zeros_like(secant, dtype=torch.bool)
    )
    after = torch.where(valid, secant, before)
    missed = (ff - 2 * before * xf + before * before * xx).clamp(min=0).sum(-1).div(outputs.shape[-1]).sqrt()
    left = ((ff - 2 * after * xf + after * after * xx).clamp(min=0).sum(-1) / size).sqrt()
    slope = after.to(x.dtype)
    scale = table.alpha[row] / table.q[row].abs()  # a slope of f against x, as one of D against x / alpha
    state.rest[where] = torch.where(known & torch.isfinite(left), left.to(x.dtype) * scale, state.rest[where])
    if spoiled:
        taken = finite[..., None]
        outputs, x = torch.where(taken, outputs, state.f[where]), torch.where(taken, x, state.ref[where])
        slope = torch.where(taken, slope, state.slope[where])
    state.f[where], state.ref[where], state.slope[where], state.known[where] = outputs, x, slope, finite

    miss = torch.where(state.known, 0.0, torch.inf).to(x.dtype)
    miss[where] = torch.where(finite, missed.to(x.dtype), torch.inf)
    broken = torch.zeros_like(state.known[0])
    if spoiled:
        lost = torch.zeros_like(state.known)
        lost[where] = ~finite
        broken = lost[history - 1]
    rest = _carry(state.rest, state.rest >= 0, UNSEEN)
    steep = (table.alpha[row][..., None] * (slope - table.p[row][..., None]) / table.q[row][..., None]).amax(-1)
    shown = table.ratio[row] ** 2 * steep / (1 - steep).clamp(min=1e-9)
    shown = torch.where(steep >= 1, torch.inf, shown).clamp(min=variance)
    seen = valid.any(-1)
    variances = torch.zeros_like(miss)
    variances[where] = torch.where(seen, shown, 0.0)
    variances[history - 1] = torch.maximum(variances[history - 1], state.steepest)
    steepest = variances[history - 1 :].cummax(0).values
    steepest = torch.cat([torch.zeros_like(variances[: history - 1]), steepest])
    if secants:
        ladder = torch.log2(torch.where(steepest > 0, steepest / variance, torch.inf)) / 2
        level = ladder.clamp(FLOOR, LEVELS - 1).ceil().long()
    else:
        level = torch.full_like(rows, LEVELS - 1)
    return Facts(miss=miss, rest=rest, level=level, steepest=steepest, broken=broken, spoiled=spoiled)


def _front(state: State, rows: Tensor, where: Where, outputs: Tensor, history: int) -> Facts:
    """A window of one node: its state is exact, so there is nothing to measure."""
    finite = torch.isfinite(outputs).all(-1)
    state.f[where], state.ref[where], state.known[where] = outputs, state.z[where], finite
    lost = torch.zeros_like(state.known)
    lost[where] = ~finite
    nothing = torch.zeros_like(state.rest)
    level = torch.full_like(rows, LEVELS - 1)
    broken = lost[history - 1]
    return Facts(miss=nothing, rest=nothing, level=level, steepest=nothing, broken=broken, spoiled=False)


def _carry(values: Tensor, measured: Tensor, default: float) -> Tensor:
    """Each unmeasured entry takes the nearest measured one before it, down the first dimension."""
    positions = torch.arange(len(values), device=values.device)[:, None].expand_as(values)
    last = torch.where(measured, positions, -1).cummax(0).values
    return torch.where(last >= 0, values.gather(0, last.clamp(min=0)), default)
