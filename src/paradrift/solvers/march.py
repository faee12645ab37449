"""Forward substitution: all rows of a window, each from the rows before it."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State


def march(state: State, here: Here, first: int, stop: int, entering: Tensor | None) -> None:
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

    Args:
        state: The windows; ``z`` changes in place.
        here: The table under the windows.
        first: First position to compute.
        stop: Position after the last to compute.
        entering: First position that may change for each sample, shape (S,), or None for all.
    """
    reach, inside = max([1, *here.a, *here.b]), slice(first, stop)
    held = state.noise[inside].clone()
    gains: dict[int, Tensor] = {}
    for lag, weight in here.a.items():
        gains[lag] = weight[inside]
        held += gains[lag] * state.ref[first - lag : stop - lag]
    for lag, weight in here.b.items():
        held += weight[inside] * state.f[first - lag : stop - lag]
        gain = weight[inside] * state.slope[first - lag : stop - lag]
        gains[lag] = gains[lag] + gain if lag in gains else gain
    away = state.z[first - reach : stop] - state.ref[first - reach : stop]
    free = None if entering is None else (torch.arange(first, stop, device=held.device)[:, None] >= entering)[..., None]
    if free is None:
        torch.sub(held, state.ref[inside], out=away[reach:])
    else:
        away[reach:] = torch.where(free, held - state.ref[inside], away[reach:])
        gains = {lag: gain * free for lag, gain in gains.items()}
    sequential = [(lag, gain.unbind()) for lag, gain in gains.items()]
    distance = away.unbind()
    if here.mixed:
        _mixed(state, held, distance, sequential, inside, reach, free)
        return
    for index in range(stop - first):
        for lag, gain in sequential:
            distance[index + reach].add_(gain[index] * distance[index + reach - lag])
    for lag, gain in gains.items():
        held += gain * away[reach - lag : len(away) - lag]
    state.z[inside] = held if free is None else torch.where(free, held, state.z[inside])


def _mixed(
    state: State,
    held: Tensor,
    distance: tuple[Tensor, ...],
    sequential: list[tuple[int, tuple[Tensor, ...]]],
    inside: slice,
    reach: int,
    free: Tensor | None,
) -> None:
    """The substitution in values: what a row that repeats itself adds up to is its reference, to the last bit."""
    value, reference = held.unbind(), state.ref[inside].unbind()
    for index, row in enumerate(value):
        for lag, gain in sequential:
            row.add_(gain[index] * distance[index + reach - lag])
        moved = row - reference[index]
        distance[index + reach].copy_(
            moved if free is None else torch.where(free[index], moved, distance[index + reach])
        )
    state.z[inside] = held if free is None else torch.where(free, held, state.z[inside])
