"""Forward substitution: all rows of a window, each from the rows before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State


def march(state: State, here: Here, first: int, stop: int, entering: Values | None) -> None:
    r"""Compute rows in order, each from the rows and surrogate outputs before it.

    With references :math:`\hat z` and outputs f there, a row is what it would be if all rows before it were their
    references, plus what their distances :math:`d_j = z_j - \hat z_j` add:

    .. math:: z_m = h_m + \sum_j (a_{mj} + b_{mj} s_j)\, d_j, \qquad
              h_m = \sum_j c_{mj} \xi_j + \sum_j a_{mj} \hat z_j + \sum_j b_{mj} f_j .

    Everything but the distances is one operation for the whole window; only
    :math:`d_m = h_m - \hat z_m + \sum_j (a_{mj} + b_{mj} s_j)\, d_j` is sequential. Distances vanish exactly where rows
    are their references, so the fixed point is the sequential answer to the last bit: one order of operations,
    whatever the window. Rows that are not nodes have the reference zero, so their distances are their values, which do
    not vanish: in tables with such rows :math:`z_m` itself is summed up, and :math:`d_m = z_m - \hat z_m` follows, one
    operation a row more. Products and sums are separate operations on purpose: fused ones may round differently in
    vectorised and scalar code.

    Where a row needs one row before it only, the sequential part is done in stretches: see :func:`_stretches`.

    Args:
        state: The windows; ``z`` changes in place.
        here: The table under the windows.
        first: First position to compute.
        stop: Position after the last to compute.
        entering: First position that may change for each sample, shape (S,), or None for all.
    """
    xp, reach, inside = arrays.library(state.z), max([1, *here.a, *here.b]), slice(first, stop)
    held = arrays.copy(state.noise[inside])
    gains: dict[int, Values] = {}
    for lag, weight in here.a.items():
        gains[lag] = weight[inside]
        held += gains[lag] * state.ref[first - lag : stop - lag]
    for lag, weight in here.b.items():
        held += weight[inside] * state.f[first - lag : stop - lag]
        gain = weight[inside] * state.slope[first - lag : stop - lag]
        gains[lag] = gains[lag] + gain if lag in gains else gain
    away = state.z[first - reach : stop] - state.ref[first - reach : stop]
    free = None if entering is None else (arrays.steps(first, stop, held) >= entering)[..., None]
    if free is None:
        xp.subtract(held, state.ref[inside], out=away[reach:])
    else:
        away[reach:] = xp.where(free, held - state.ref[inside], away[reach:])
        gains = {lag: gain * free for lag, gain in gains.items()}
    if here.mixed:
        _mixed(state, held, away, gains, inside, reach, free)
        return
    size = _stretch(len(state.z)) if list(gains) == [1] else 1
    if size > 1:
        away = arrays.as_in(_stretches(arrays.tensor(away), arrays.tensor(gains[1]), first % size, size), held)
    else:
        with np.errstate(all="ignore"):  # what overflows is found where outputs are judged
            _substitute(away, gains, reach, many=len(gains) > 2 and state.slope.shape[-1] == 1)
    for lag, gain in gains.items():
        held += gain * away[reach - lag : len(away) - lag]
    state.z[inside] = held if free is None else xp.where(free, held, state.z[inside])


def _mixed(
    state: State,
    held: Values,
    away: Values,
    gains: dict[int, Values],
    inside: slice,
    reach: int,
    free: Values | None,
) -> None:
    """The substitution in values: what a row that repeats itself adds up to is its reference, to the last bit."""
    xp, reference = arrays.library(held), state.ref[inside]
    for index in range(len(held)):
        for lag, gain in gains.items():
            held[index] += gain[index] * away[index + reach - lag]
        moved = held[index] - reference[index]
        away[index + reach] = moved if free is None else xp.where(free[index], moved, away[index + reach])
    state.z[inside] = held if free is None else xp.where(free, held, state.z[inside])


def _substitute(away: Values, gains: dict[int, Values], reach: int, many: bool) -> None:
    r"""Solve :math:`d_m = h_m + \sum_j g_{mj} d_j` in place, row by row: h stands where the distances will."""
    xp, distance = arrays.library(away), away
    if many:
        far = max(gains)
        every = xp.stack([gains.get(lag, xp.zeros_like(gains[far])) for lag in range(far, 0, -1)], 1)
        # numpy adds rows up in order, but not single numbers: see summing
        in_order = xp is np and distance[0].size > 1
        wide: Any = xp.float64
        for index, gain in enumerate(every, start=reach):
            terms = gain * distance[index - far : index]
            distance[index] += terms.sum(0, dtype=wide) if in_order else terms.cumsum(0, dtype=wide)[-1]
        return
    rows, sequential = list(distance), [(lag, list(gain)) for lag, gain in gains.items()]
    for index in range(reach, len(rows)):
        for lag, gain in sequential:
            rows[index] += gain[index - reach] * rows[index - lag]


def _stretch(positions: int) -> int:
    """Rows of a stretch: about the root of the window; 1 where a plain loop is as fast."""
    return 1 << round(math.log2(positions) / 2) if positions > 32 else 1  # measured: 18 rows lose, 66 gain threefold


def _stretches(away: Tensor, gain: Tensor, skipped: int, size: int) -> Tensor:
    r"""Solve :math:`d_m = h_m + g_m d_{m-1}` in about :math:`2\sqrt W` steps instead of W.

    Inside a stretch, :math:`d_m = l_m + (\prod_{j \le m} g_j)\, d_-`, where :math:`d_-` is the last distance before it
    and l solves the equation from zero. All stretches find l at once, then hand on their last distances one after the
    other. Distances that vanish still do, exactly. Stretches begin at fixed positions of the window, so nothing depends
    on where the other samples of a batch stand.

    Args:
        away: The distance before the first row, then h, shape (1 + K, S, D).
        gain: g, shape (K, S, 1) or (K, S, D).
        skipped: Rows between the beginning of a stretch and the first row.
        size: Rows of a stretch.

    Returns:
        The distances, shape (1 + K, S, D).
    """
    rows = len(gain)
    count = -(-(skipped + rows) // size)
    padded = (0, 0, 0, 0, skipped, count * size - skipped - rows)
    inner = pad(away[1:], padded).unflatten(0, (count, size))
    through = pad(gain, padded).unflatten(0, (count, size))
    if skipped:  # what is before the first row is handed on as it is
        inner[0, skipped - 1] = away[0]
    steps, gains = inner.unbind(1), through.unbind(1)
    for row in range(1, size):
        steps[row].add_(gains[row] * steps[row - 1])
    # a product may overflow where every distance is zero, and infinity times zero is none
    through = through.cumprod(1).clamp(*(torch.finfo(away.dtype).min, torch.finfo(away.dtype).max))
    before = torch.zeros_like(away[0]) if skipped else away[0]
    carried = [before]
    for last, whole in zip(steps[-1].unbind(), through[:, -1].unbind(), strict=True):
        carried.append(last + whole * carried[-1])
    inner += through * torch.stack(carried[:-1])[:, None]
    return torch.cat([away[:1], inner.flatten(0, 1)[skipped : skipped + rows]])
