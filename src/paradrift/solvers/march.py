"""Forward substitution: all rows of a window, each from the rows before it."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State


def march(state: State, here: Here, first: int, stop: int, entering: Tensor | None) -> None:
    r"""Compute rows in order, each from the rows and surrogate outputs before it.

    With references :math:`\hat z` and outputs f there, a row is what it would be if all rows before it were their
    references, plus what their distances add:

    .. math:: z_m = \Big[\sum_j c_{mj} \xi_j + \sum_j a_{mj} \hat z_j + \sum_j b_{mj} f_j\Big]
              + \sum_j (a_{mj} + b_{mj} s_j) (z_j - \hat z_j).

    The bracket is one operation for the whole window; only the second sum is sequential. It vanishes exactly where
    rows are their references, so the fixed point is the sequential answer to the last bit: one order of operations,
    whatever the window. Rows that are not nodes have the reference zero. Products and sums are separate operations on
    purpose: fused ones may round differently in vectorised and scalar code.

    Args:
        state: The windows; ``z`` changes in place.
        here: The table under the windows.
        first: First position to compute.
        stop: Position after the last to compute.
        entering: First position that may change for each sample, shape (S,), or None for all.
    """
    reach = max([1, *here.a, *here.b])
    rows = state.noise[first:stop].clone()
    gains: dict[int, Tensor] = {}
    for lag, weight in here.a.items():
        gains[lag] = weight[first:stop]
        rows += gains[lag] * state.ref[first - lag : stop - lag]
    for lag, weight in here.b.items():
        rows += weight[first:stop] * state.f[first - lag : stop - lag]
        gain = weight[first:stop] * state.slope[first - lag : stop - lag]
        gains[lag] = gains[lag] + gain if lag in gains else gain
    away = torch.empty(reach + stop - first, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
    torch.sub(state.z[first - reach : first], state.ref[first - reach : first], out=away[:reach])
    before, references = state.z[first:stop].unbind(), state.ref[first:stop].unbind()
    sequential = [(lag, gain.unbind()) for lag, gain in gains.items()]
    distance = away.unbind()
    for index, row in enumerate(rows.unbind()):
        for lag, gain in sequential:
            row.add_(gain[index] * distance[index + reach - lag])
        if entering is not None:
            row.copy_(torch.where((entering <= first + index)[:, None], row, before[index]))
        torch.sub(row, references[index], out=distance[index + reach])
    state.z[first:stop] = rows
