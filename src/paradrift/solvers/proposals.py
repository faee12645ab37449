"""Proposals in a solve: asked for before the first round, and what they make of nodes that were never evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.guesses import Proposal, Proposing
from paradrift.noise import Noise
from paradrift.solvers.lowered import Here
from paradrift.solvers.solver import Solver
from paradrift.solvers.state import State
from paradrift.tableau import Tableau


@dataclass(kw_only=True)
class Asked:
    """What asking for a proposal has cost.

    Args:
        rounds: Rounds so far.
        evaluations: Rows so far.
    """

    rounds: int = 0
    evaluations: int = 0

    def proposal(self, table: Tableau, start: Tensor, noise: Noise, solver: Solver) -> Proposing:  # noqa: DOC403
        """Let the guess propose, unless each window has one node only, and count what it asks.

        Args:
            table: The table of the solve.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from.
            solver: The choices.

        Yields:
            The requests of the guess.

        Returns:
            The proposal, or None.
        """
        nodes = torch.arange(table.nodes)
        if int((solver.window.limit(nodes, table.nodes) - nodes).max()) == 1:
            return None  # the sequential sampler guesses nothing
        proposing = solver.guess.propose(table, start, noise)
        try:
            request = next(proposing)
            while True:
                self.rounds += 1
                self.evaluations += len(request.t)
                answer = yield request
                request = proposing.send(answer)
        except StopIteration as end:
            return end.value


def adopt(state: State, here: Here, proposal: Proposal, active: Tensor, first: int, anchored: bool) -> None:
    r"""Let nodes that were never evaluated answer with what was proposed for them.

    The data prediction is the proposal's, moved by what it got wrong at the last node l before that was evaluated:

    .. math:: D_m = P_m + (D_l - P_l) .

    First it is held, :math:`g(x) = p x + q D_m`, and rows are marched to. Then, anchored at the trajectory found so,
    the surrogate follows changes of the state as the prior slope says, :math:`g(x) = p z + q D_m + s (x - z)`. Where
    nothing finite was proposed nodes stay as they are.

    Args:
        state: The windows; references, outputs and slopes change in place.
        here: The table under the windows.
        proposal: What was proposed.
        active: Samples under the windows, shape (S,).
        first: First position that may change.
        anchored: Whether ``z`` is the trajectory already.
    """
    inside, end = slice(first, None), len(proposal.first) - 1
    positions = torch.arange(len(state.known), device=state.front.device)[:, None]
    last = torch.where(state.known, positions, -1).cummax(0).values[inside]
    at = (last.clamp(min=0), torch.arange(last.shape[1], device=last.device).expand_as(last))
    level, old = here.levels(inside, slice(None), None), here.levels(*at, None)
    there = state.f[at] + state.slope[at] * (state.z[at] - state.ref[at])
    missed = (there - old.p * state.z[at]) / old.q - proposal.at(here.row[at].clamp(max=end), active)
    data = proposal.at(here.row[inside].clamp(max=end), active)
    data = torch.where((last >= 0)[..., None], data + missed, data)
    taken = (here.node[inside] & ~state.known[inside] & torch.isfinite(data.sum(-1)))[..., None]
    reference = state.z[inside] if anchored else torch.zeros_like(data)
    outputs, slope = level.p * reference + level.q * data, level.prior if anchored else level.p
    for tensor, values in ((state.ref, reference), (state.f, outputs), (state.slope, slope)):
        tensor[inside] = torch.where(taken, values, tensor[inside])
