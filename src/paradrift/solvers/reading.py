"""Reading a window: what it says about the answer before it is settled."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State


def preview(state: State, here: Here, history: int, scheduled: bool, otherwise: Tensor) -> Tensor:
    """The most advanced data prediction of each sample (its state, for tables without a schedule).

    Args:
        state: The windows.
        here: The table under the windows.
        history: H.
        scheduled: Whether the table has a noise schedule.
        otherwise: What stands for a sample of which no node is known, shape (S, D).

    Returns:
        Shape (S, D).
    """
    positions = torch.arange(len(state.known), device=state.front.device)[:, None]
    last = torch.where(state.known, positions, history - 1).amax(0)
    at = (last, torch.arange(len(last), device=last.device))
    if not scheduled:
        return state.z[at]
    level = here.levels(*at, None)
    data = (state.f[at] - level.p * state.ref[at]) / level.q
    return torch.where(state.known[at][:, None], data, otherwise)


def last_rows(state: State, history: int, limit: Tensor, last: int) -> Tensor:
    """The answer as it stands, NaN where a window does not reach it.

    Args:
        state: The windows.
        history: H.
        limit: Last row of each window, shape (S,).
        last: The last row of the table.

    Returns:
        Shape (S, D).
    """
    at = (history - 1 + limit - state.front, torch.arange(len(limit), device=limit.device))
    return torch.where((limit == last)[:, None], state.z[at], torch.nan)


def laid_out(values: Tensor, here: Here, history: int, limit: Tensor, last: int) -> Tensor:
    """Values by position, laid out by row.

    Args:
        values: One at each position, shape (B, S).
        here: The table under the windows.
        history: H.
        limit: Last row of each window, shape (S,).
        last: The last row of the table.

    Returns:
        Shape (S, last + 1), NaN outside the windows.
    """
    positions = torch.arange(len(values), device=values.device)[:, None]
    where = ((positions >= history) & (here.row <= limit)).nonzero(as_tuple=True)
    laid = values.new_full((len(limit), last + 1), torch.nan)
    laid[where[1], here.row[where]] = values[where]
    return laid
