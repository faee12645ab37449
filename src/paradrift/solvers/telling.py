"""What the outside is told of a solve: after each round, and at its end."""

from __future__ import annotations

import numpy as np
import torch

from paradrift.solution import Round, Status
from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.base import Outcome
from paradrift.solvers.reading import laid_out, last_rows
from paradrift.solvers.run import Run
from paradrift.verdicts import Verdict


def outcome(run: Run) -> Outcome:
    """Everything the machine needs to make a solution.

    Args:
        run: A solve at its end.

    Returns:
        The outcome.
    """
    ledger, rule = run.ledger, run.solver.stop
    paths = ledger.trajectory, ledger.outputs
    trajectory, outputs = (None if kept is None else arrays.tensor(kept) for kept in paths)
    reflects = isinstance(rule, Verdict) and rule.reflects
    return Outcome(
        samples=arrays.tensor(ledger.answers).unflatten(1, run.shape),
        status=tuple(status or Status.BUDGET_EXHAUSTED for status in ledger.status),
        error=ledger.error().to(run.dtype),
        rounds=tuple(ledger.rounds.tolist()),
        window=run.widest,
        certifiable=isinstance(rule, Verdict) or rule.causal,
        trajectory=None if trajectory is None else trajectory.unflatten(2, run.shape),
        nats=ledger.nats if run.verdict else None,
        llr=ledger.llr if run.verdict else None,
        rejected=tuple(ledger.rejected.tolist()) if reflects else None,
        outputs=None if outputs is None else outputs.unflatten(2, run.shape),
    )


@np.errstate(all="ignore")  # what is not finite is told as it is
def report(run: Run, index: int, accepted: Values) -> Round:
    """What a callback sees.

    Args:
        run: A solve after a sweep, before its windows move.
        index: The round, from 1.
        accepted: Rows that were settled in it, shape (S,).

    Returns:
        The report.
    """
    active = arrays.tensor(run.active)
    settled = torch.full((len(run.ledger.status),), run.nodes, dtype=torch.int64)
    settled[active.cpu()] = arrays.tensor(run.table.before[run.state.front + accepted]).cpu()
    previews, answers = (arrays.tensor(run.ledger.answers).clone() for _ in range(2))
    previews[active] = arrays.tensor(run.preview())
    answers[active] = arrays.tensor(last_rows(run.state, run.history, run.limit, run.last))
    change = previews.new_full((len(settled), run.last + 1), torch.nan)
    relative = run.change / (run.here.levels().alpha * run.unit[run.active])
    change[active] = laid_out(relative, run.here, run.history, run.limit, run.last)
    return Round(
        index=index,
        evaluations=run.evaluations,
        settled=settled,
        nodes=run.nodes,
        change=change.cpu(),
        preview=previews.unflatten(1, run.shape),
        answer=answers.unflatten(1, run.shape),
    )
