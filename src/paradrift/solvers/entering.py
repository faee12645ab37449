"""What fills rows that enter a window: noises, surrogates continued or proposed, and states marched to or guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.march import march
from paradrift.solvers.proposals import adopt
from paradrift.solvers.references import continue_references

if TYPE_CHECKING:
    from paradrift.solvers.run import Run


def enter(run: Run, entering: Values) -> None:
    """Fill the positions of each sample from some on.

    Args:
        run: The solve.
        entering: The first position of each sample that is new, shape (S,), int64.
    """
    state, here, xp, active = run.state, run.here, arrays.library(entering), arrays.tensor(run.active)
    first, end = int(entering.min()), len(run.positions)
    if first == end:
        return
    if run.width > 1:  # a window of one node is never guessed
        secants, scheduled = run.solver.slopes.measured, run.table.scheduled
        continue_references(state, here, first - 1, secants, scheduled)
        if run.proposal is not None:
            adopt(state, here, run.proposal, run.active, first - 1, anchored=False)
    late = here.row[first:]
    new = run.positions >= entering
    fill = new[first:, :, None]
    together = bool(fill.all())
    if run.table.noisy:
        terms = xp.zeros_like(state.noise[first:])
        for lag, weight in here.c.items():
            drawn = run.noise.draw(active, arrays.tensor(arrays.clip(late - lag, 0, run.last).T))
            drawn = drawn.flatten(2).transpose(0, 1).to(active.device, run.dtype)
            terms += weight[first:] * arrays.as_in(drawn, terms)
        state.noise[first:] = terms if together else xp.where(fill, terms, state.noise[first:])
        run.noise.release(max(0, int(state.front.min()) + 1 - max(here.c)))  # the oldest that a new row may use
    before, rows = state.z[arrays.at(entering - 1)], arrays.clip(late, high=run.last)
    guessed = run.solver.guess.states(active, arrays.tensor(rows), arrays.tensor(before))
    if guessed is None:
        march(state, here, first, end, None if together else entering)
        if run.proposal is not None:
            adopt(state, here, run.proposal, run.active, first - 1, anchored=True)
    else:
        found = arrays.as_in(guessed.to(active.device, run.dtype), before)
        state.z[first:] = xp.where(fill, found, state.z[first:])
    run.moved, run.marched = run.moved | new, xp.where(new, guessed is None, run.marched)
