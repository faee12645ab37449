r"""The wavefront: all blocks of a chain in flight, each one sweep behind the block before it.

PIADM sweeps a block K times and hands its end to the next block only then. But the next block can start from an end
that is still moving, and start again from a better one in every round: round k makes, all at once, every update (n, j)
with n + j = k, the j-th of block n, from two things made in the round before: the end of block n - 1 after its j-th
update, and the outputs at the block's own rows after j - 1 updates.

.. math:: z^j_m = \sum_{i} a_{mi} z^j_i + \sum_{i} b_{mi} \bigl(f(z^{j-1}_i) + s_i (z^j_i - z^{j-1}_i)\bigr)
          + \sum_{i} c_{mi} \xi_i ,

for rows m of block n; rows i before the block hold still within the round, at their newest value with the output there,
and so does the left end, a node of the block itself. With :math:`s = 0` in the form of the exponential integrator this
is Picard iteration as published, one sweep an update (P = 1); any other slopes of the library will do.

Block n (from 0) enters in round n + 1, when the block before it has an end to repeat, and is frozen after round n + J.
So there are N + J - 1 rounds, against J N for blocks one after the other. The published method fills all blocks before
its first update, one after the other with one evaluation each: N rounds more.

After round k the first k nodes are exact, whatever the blocks, so J = M - N + 1 gives the sequential sampler's answer,
in M rounds. Row m of every iterate depends on noises up to m only, and J is fixed: the kept path is causal. All rows
are held to the end: four numbers for each element of a row, or five with a secant for each group.

Source: Zhou and Sugiyama 2025, arXiv 2412.07435, Algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from paradrift.errors import SpecError
from paradrift.noise import Noise
from paradrift.solution import Round, Status
from paradrift.solvers.base import Interrupted, Solving
from paradrift.solvers.diagonal import Diagonal
from paradrift.solvers.harvest import outcome, report, verified
from paradrift.solvers.solver import Solver
from paradrift.stopping import Sweeps
from paradrift.tableau import Tableau
from paradrift.windows import Wavefront


def wavefront(  # noqa: DOC403
    table: Tableau,
    start: Tensor,
    noise: Noise,
    solver: Solver,
    *,
    variance: float | None = None,
    keep: bool = False,
    lead: int | None = None,
    observe: Callable[[Round], None] | None = None,
) -> Solving:
    """Solve a chain for a batch of samples.

    Args:
        table: The sampler's table.
        start: Starting states, already scaled, shape (S, *shape); their dtype is the dtype of the solve.
        noise: Where noises come from.
        solver: A window ``Wavefront(blocks)``, a stop ``Sweeps(J)`` with one number, and a guess that gives states.
        variance: Data variance per element v0, the unit of the error; None to take the mean square of each sample's own
            data prediction.
        keep: Whether to keep all rows.
        lead: Without effect: no sample is ahead of another.
        observe: Called after each round.

    Yields:
        Requests, one a round; none for rounds in which no node has moved.

    Returns:
        The outcome.

    Raises:
        SpecError: if the solver is of another kind.
    """
    window, stop = solver.window, solver.stop
    if not isinstance(window, Wavefront):
        raise SpecError(f"expected the window Wavefront(blocks), found {window}: use sweep for other windows")
    if not isinstance(stop, Sweeps) or not isinstance(stop.count, int):
        raise SpecError(
            f"expected one number of sweeps for all blocks of a wavefront, found {stop}: choose stop=Sweeps(J), or the "
            "preset wavefront(blocks, sweeps)"
        )
    run = Diagonal(table, start, noise, solver, window.edges(table.nodes), variance)
    blocks, sweeps, rounds = run.blocks, stop.count, 0
    ending, error = Status.BUDGET_EXHAUSTED, None
    try:
        for index in range(1, blocks + sweeps):
            if solver.max_rounds is not None and rounds >= solver.max_rounds:
                break
            active = range(max(0, index - sweeps), min(blocks, index))
            request, places = run.ask(active, entering=index <= blocks)
            if request is not None:
                answer = yield request
                rounds += 1
                run.receive(places, answer)
            run.update(active, frozen=index >= sweeps)
            if observe is not None:
                observe(report(run, rounds, active))
            if bool(run.failed.all()):
                break
        if run.frozen == blocks and solver.verify:
            request, places = run.check()
            answer = run.start[:0] if request is None else (yield request)
            error = verified(run, places, answer)
    except (Interrupted, KeyboardInterrupt):
        ending = Status.INTERRUPTED
    return outcome(run, ending, error, keep)
