"""What a round enters into the books of a solve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from paradrift.solvers.ledger import Check
from paradrift.stopping import View

if TYPE_CHECKING:
    from paradrift.solvers.run import Run


def book(run: Run, view: View, accepted: Tensor) -> None:
    """Enter contributions to the error, and checks for later.

    Args:
        run: The solve.
        view: What the stop has seen.
        accepted: Rows settled in this round, shape (S,).
    """
    history, state, here = run.history, run.state, run.here
    nodes = slice(history - 1, history - 1 + len(view.effect))
    inner = run.positions[: len(view.effect)] < accepted  # nodes whose outputs are now final
    inner[0] = False  # the front's output is its own
    if not run.verify:
        predicted = torch.where(inner, view.effect, 0.0) / view.unit
        run.ledger.contribute(run.active.expand_as(predicted).flatten(), predicted.flatten())
    else:
        which = (inner & here.checked[nodes] & run.moved[nodes]).nonzero(as_tuple=True)
        if len(which[0]):
            at = (which[0] + history - 1, which[1])
            x = state.z[at]
            run.ledger.checks.append(
                Check(
                    x=x,
                    out=state.f[at] + state.slope[at] * (x - state.ref[at]),
                    row=here.row[at],
                    sample=run.active[which[1]],
                    weight=run.table.stride * (view.weight / view.unit)[which].double(),
                )
            )


def record(run: Run, accepted: Tensor) -> None:
    """Enter rows of the trajectory, and the outputs that they were computed with.

    Args:
        run: The solve, before its windows move.
        accepted: Rows settled in this round, shape (S,).
    """
    ledger, state = run.ledger, run.state
    if ledger.trajectory is None and ledger.outputs is None:
        return
    settled = (run.positions >= run.history) & (run.positions < run.history + accepted)
    position, column = settled.nonzero(as_tuple=True)
    sample = run.active[column]
    if ledger.trajectory is not None:
        ledger.trajectory[sample, run.here.row[position, column]] = state.z[position, column]
    if ledger.outputs is not None:  # of the rows that the settled ones leave from
        which = position - 1, column
        away = state.z[which] - state.ref[which]
        used = torch.where(away == 0, state.f[which], state.f[which] + state.slope[which] * away)
        ledger.outputs[sample, run.here.row[which]] = used
