r"""The sweep solver: one batched evaluation, one forward substitution, one verdict, again.

A sweep evaluates the model at all nodes of a window at once and solves

.. math:: z^{new} = e z_0 + a z^{new} + b\,(f + S (z^{new} - z^{old})) + c \xi

row by row. The first node of a window sees its exact state, so at least one row settles in every sweep, at most M
sweeps are needed, and the fixed point is the sequential sampler for any slopes S; a window of one node *is* the
sequential sampler, and is left to :mod:`paradrift.solvers.stepping`. Named methods are choices of window, slopes, guess
and stop: see :mod:`paradrift.presets`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from paradrift.noise import Noise
from paradrift.solution import Round, Status
from paradrift.solvers import arrays
from paradrift.solvers.base import Interrupted, Solving
from paradrift.solvers.proposals import Asked
from paradrift.solvers.run import Run
from paradrift.solvers.solver import Solver as Solver
from paradrift.solvers.stepping import plain, stepping
from paradrift.solvers.telling import outcome, report
from paradrift.tableau import Tableau
from paradrift.verdicts import Verdict
from paradrift.windows import Sliding


def sweep(  # noqa: DOC403
    table: Tableau,
    start: Tensor,
    noise: Noise,
    solver: Solver,
    *,
    variance: float | None = None,
    keep: bool = False,
    lead: int | None = None,
    observe: Callable[[Round], None] | None = None,
    keep_outputs: bool = False,
    dismissed: Callable[[], Tensor] | None = None,
) -> Solving:
    """Solve a chain for a batch of samples.

    Args:
        table: The sampler's table.
        start: Starting states, already scaled, shape (S, *shape); their dtype is the dtype of the solve.
        noise: Where noises come from.
        solver: The choices.
        variance: Data variance per element v0, the unit of tolerances; None to take the mean square of each sample's
            own data prediction.
        keep: Whether to keep all rows.
        lead: Windows that a sample may be ahead of the slowest, for noise sources that must hold everything between;
            None for no limit.
        observe: Called after each round.
        keep_outputs: Whether to keep the outputs that all rows were computed with; windows of one node do not.
        dismissed: Asked after each round which of all samples need not be solved to the end, shape (S,), bool.

    Yields:
        Requests, one a round.

    Returns:
        The outcome.
    """
    if solver.window == Sliding(1) and not isinstance(solver.stop, Verdict) and plain(table):
        return (yield from stepping(table, start, noise, solver.max_rounds, keep, lead is None, observe))
    asked, proposal, ending = Asked(), None, Status.BUDGET_EXHAUSTED
    try:
        proposal = yield from asked.proposal(table, start, noise, solver)
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    run = Run(table, start, noise, solver, variance, keep, lead, proposal, keep_outputs)
    rounds = asked.rounds
    run.ledger.rounds += rounds
    run.evaluations += asked.evaluations
    try:
        while (
            ending is Status.BUDGET_EXHAUSTED
            and len(run.active)
            and (solver.max_rounds is None or rounds < solver.max_rounds)
        ):
            request, where, check = run.ask()
            if request is None:
                outputs = run.state.z[:0, 0]
            else:
                answer = yield request
                rounds += 1
                outputs = run.receive(answer, check)
            facts, view, accepted = run.digest(where, outputs)
            if observe is not None:
                observe(report(run, rounds, accepted))
            run.advance(facts, view, accepted)
            if dismissed is not None:
                run.dismiss(dismissed())
        check = run.ledger.take_checks()
        if check is not None and not len(run.active):
            answer = yield run.request(check.x, check.row, check.sample)
            run.ledger.rounds[arrays.library(check.sample).unique(check.sample)] += 1
            run.receive(answer, check)
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    run.give_up(ending)
    return outcome(run)
