"""Reading a window: what it says about the answer before it is settled."""

from __future__ import annotations

import math

from torch import Tensor

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.lowered import Here
from paradrift.solvers.state import State


def preview(state: State, here: Here, history: int, scheduled: bool, otherwise: Values) -> Values:
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
    xp = arrays.library(state.z)
    at = arrays.at(xp.amax(xp.where(state.known, arrays.steps(0, len(state.known), state.front), history - 1), 0))
    if not scheduled:
        return state.z[at]
    level = here.levels(*at, None)
    data = (state.f[at] - level.p * state.ref[at]) / level.q
    return xp.where(state.known[at][:, None], data, otherwise)


def last_rows(state: State, history: int, limit: Values, last: int) -> Values:
    """The answer as it stands, NaN where a window does not reach it.

    Args:
        state: The windows.
        history: H.
        limit: Last row of each window, shape (S,).
        last: The last row of the table.

    Returns:
        Shape (S, D).
    """
    answers = state.z[arrays.at(history - 1 + limit - state.front)]
    return arrays.library(answers).where((limit == last)[:, None], answers, math.nan)


def laid_out(values: Values, here: Here, history: int, limit: Values, last: int) -> Tensor:
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
    row, inside = arrays.tensor(here.row), arrays.tensor(here.row <= limit)
    inside[:history] = False
    position, column = inside.nonzero(as_tuple=True)
    known = arrays.tensor(values)
    laid = known.new_full((len(limit), last + 1), math.nan)
    laid[column, row[position, column]] = known[position, column]
    return laid
