"""Reading a window: what it says about the answer before it is settled."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.solvers.lowered import Lowered
from paradrift.solvers.state import State, rows_of


def preview(state: State, table: Lowered, history: int, otherwise: Tensor) -> Tensor:
    """The most advanced data prediction of each sample (its state, for tables without a schedule).

    Args:
        state: The windows.
        table: The lowered table.
        history: H.
        otherwise: What stands for a sample of which no node is known, shape (S, D).

    Returns:
        Shape (S, D).
    """
    positions = torch.arange(len(state.known), device=state.front.device)[:, None]
    last = torch.where(state.known, positions, history - 1).amax(0)
    at = (last, torch.arange(len(last), device=last.device))
    if not table.scheduled:
        return state.z[at]
    row = rows_of(state, history)[at]
    data = (state.f[at] - table.p[row][:, None] * state.ref[at]) / table.q[row][:, None]
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


def relative_change(state: State, history: int, limit: Tensor, change: Tensor, last: int) -> Tensor:
    """Changes by position, laid out by row.

    Args:
        state: The windows.
        history: H.
        limit: Last row of each window, shape (S,).
        change: Change at each position, shape (B, S).
        last: The last row of the table.

    Returns:
        Shape (S, last + 1), NaN outside the windows.
    """
    rows = rows_of(state, history)
    positions = torch.arange(len(rows), device=rows.device)[:, None]
    inside = (positions >= history) & (rows <= limit)
    where = inside.nonzero(as_tuple=True)
    laid = change.new_full((len(limit), last + 1), torch.nan)
    laid[where[1], rows[where]] = change[where]
    return laid
