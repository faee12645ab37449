"""What a round enters into the books of a solve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.ledger import Check
from paradrift.stopping import View

if TYPE_CHECKING:
    from paradrift.solvers.run import Run


def book(run: Run, view: View, accepted: Values) -> None:
    """Enter contributions to the error, and checks for later.

    Args:
        run: The solve.
        view: What the stop has seen.
        accepted: Rows settled in this round, shape (S,).
    """
    history, state, here, xp = run.history, run.state, run.here, arrays.library(accepted)
    nodes = slice(history - 1, history - 1 + len(view.effect))
    inner = run.positions[: len(view.effect)] < accepted  # nodes whose outputs are now final
    inner[0] = False  # the front's output is its own
    if not run.verify:
        predicted = xp.where(inner, view.effect, 0.0) / view.unit
        run.ledger.contribute(xp.broadcast_to(run.active, predicted.shape).flatten(), predicted.flatten())
    else:
        which = arrays.places(inner & here.checked[nodes] & run.moved[nodes])
        if len(which[0]):
            at = (which[0] + history - 1, which[1])
            x = state.z[at]
            run.ledger.checks.append(
                Check(
                    x=x,
                    out=state.f[at] + state.slope[at] * (x - state.ref[at]),
                    row=here.row[at],
                    sample=run.active[which[1]],
                    weight=run.table.stride * arrays.cast((view.weight / view.unit)[which], run.ledger.bound),
                )
            )


def record(run: Run, accepted: Values) -> None:
    """Enter rows of the trajectory, and the outputs that they were computed with.

    Args:
        run: The solve, before its windows move.
        accepted: Rows settled in this round, shape (S,).
    """
    ledger, state = run.ledger, run.state
    if ledger.trajectory is None and ledger.outputs is None:
        return
    settled = (run.positions >= run.history) & (run.positions < run.history + accepted)
    position, column = arrays.places(settled)
    sample = run.active[column]
    if ledger.trajectory is not None:
        ledger.trajectory[sample, run.here.row[position, column]] = state.z[position, column]
    if ledger.outputs is not None:  # of the rows that the settled ones leave from
        which = position - 1, column
        away = state.z[which] - state.ref[which]
        used = arrays.library(away).where(away == 0, state.f[which], state.f[which] + state.slope[which] * away)
        ledger.outputs[sample, run.here.row[which]] = used
