"""Proposals in a solve: asked for before the first round, and what they make of nodes that were never evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paradrift.guesses import Guess, Model, Proposal, Proposing
from paradrift.noise import Noise
from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
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


def between(data: Tensor, rows: NDArray[np.int64], size: int) -> Proposal:
    """Propose data predictions that are known at some rows, interpolated at the rows between them.

    Args:
        data: The predictions, shape (K, S, D).
        rows: The rows at which they are, ascending, shape (K,).
        size: Rows R of the chain that they are proposed to; K + 1 for a chain of these rows and an answer.

    Returns:
        The proposal.
    """
    place = (
        np.arange(len(rows) + 1.0) if size == len(rows) + 1 else np.interp(np.arange(size), rows, np.arange(len(rows)))
    )
    first = np.minimum(np.floor(place), len(rows) - 1)
    return Proposal(
        data=data,
        first=torch.as_tensor(first, dtype=torch.int64, device=data.device),
        share=torch.as_tensor(np.where(first < len(rows) - 1, place - first, 0.0)).to(data),
    )


def adopt(state: State, here: Here, proposal: Proposal, active: Values, first: int, anchored: bool) -> None:
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
    xp, inside, end = arrays.library(state.z), slice(first, None), len(proposal.first) - 1

    def proposed(rows: Values) -> Values:
        found = proposal.at(arrays.tensor(arrays.clip(rows, high=end)), arrays.tensor(active))
        return arrays.cast(arrays.as_in(found, rows), state.z)

    last = arrays.running_max(xp.where(state.known, arrays.steps(0, len(state.known), state.front), -1))[inside]
    at = arrays.at(arrays.clip(last, low=0))
    level, old = here.levels(inside, slice(None), None), here.levels(*at, None)
    there = state.f[at] + state.slope[at] * (state.z[at] - state.ref[at])
    missed = (there - old.p * state.z[at]) / old.q - proposed(here.row[at])
    data = proposed(here.row[inside])
    data = xp.where((last >= 0)[..., None], data + missed, data)
    taken = (here.node[inside] & ~state.known[inside] & xp.isfinite(data.sum(-1)))[..., None]
    reference = state.z[inside] if anchored else xp.zeros_like(data)
    outputs, slope = level.p * reference + level.q * data, level.prior if anchored else level.p
    for kept, values in ((state.ref, reference), (state.f, outputs), (state.slope, slope)):
        kept[inside] = xp.where(taken, values, kept[inside])


@dataclass(frozen=True, eq=False)
class Mapped:
    """A guess for the whole of a problem, as a guess for some of its samples and rows.

    Args:
        guess: The guess.
        samples: The samples, shape (N,), int64.
        rows: The rows, ascending, int64.
    """

    guess: Guess
    samples: Tensor
    rows: Tensor

    @property
    def models(self) -> tuple[Model, ...]:
        """Those of the guess."""
        return self.guess.models

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:
        """What the guess proposes for these rows' own table.

        Args:
            table: The table of the rows.
            start: Starting states of the samples.
            noise: Where noises come from.

        Returns:
            The guess's generator; its requests speak of these samples.
        """
        return self.guess.propose(table, start, noise)

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """What the guess has for them.

        Args:
            samples: Which of these samples, shape (S,).
            rows: Which of these rows, shape (K, S).
            last: The last state of each window, shape (S, D).

        Returns:
            Shape (K, S, D), or None.
        """
        return self.guess.states(self.samples[samples], self.rows[rows], last)


@dataclass(frozen=True, eq=False)
class Proposed:
    """A proposal that is known already, as a guess.

    Args:
        proposal: The proposal.
    """

    proposal: Proposal

    models = ()

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:  # noqa: DOC405
        """The proposal, without a request.

        Args:
            table: The table of the solve.
            start: Starting states.
            noise: Where noises come from.

        Yields:
            Nothing.

        Returns:
            The proposal.
        """
        return self.proposal
        yield  # what makes it a generator

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """None: march with what was proposed.

        Args:
            samples: Sample indices, shape (S,).
            rows: Entering rows, shape (K, S).
            last: Last states, shape (S, D).

        Returns:
            None.
        """
        return None
