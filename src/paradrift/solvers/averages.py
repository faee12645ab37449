"""What the averages of a thinned chain with noise have answered, and what their halves say of the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paradrift.averaging import Average, Averaged
from paradrift.forms import Affine, Array, Form, preconditioned
from paradrift.guesses import Proposal
from paradrift.noise import Chosen, Gathered, Noise, gather
from paradrift.solvers.base import Request
from paradrift.solvers.heard import Heard
from paradrift.solvers.proposals import between
from paradrift.solvers.solver import stride
from paradrift.summing import over_rows
from paradrift.tableau import Tableau

ASKED = 2  # times that a node must have been asked before the halves of its gap are: sooner, they lie elsewhere
GAPS = 16  # gaps whose halves are asked, at most


class Averages:
    """The outputs of a thinned chain with noise, in the form that changes slowly; see :mod:`paradrift.averaging`.

    Args:
        averaged: The thinned chain, K nodes.
        start: Starting states, shape (S, *shape).
        noise: Where the noises of the whole chain come from, for these samples.
        variance: Data variance per element; None to take the mean square of each sample's last data prediction.
    """

    def __init__(self, averaged: Averaged, start: Tensor, noise: Noise, variance: float | None) -> None:
        flat = start.flatten(1)
        self.averaged, self.variance, self._shape, self._fine = averaged, variance, start.shape[1:], noise
        columns, shares = (torch.as_tensor(one, device=flat.device) for one in (averaged.columns, averaged.shares))
        self.noise: Noise = Gathered(noise, columns, shares, flat.shape[1])
        self._measured = averaged.measured(np.arange(averaged.fine.rows - 1))
        measured = Affine(*(one[averaged.kept[:-1]] for one in self._measured))
        self.heard = Heard(averaged.table, measured, averaged.felt, averaged.variance, flat)
        chosen, self._every = _spread(averaged, GAPS)
        self._chosen = chosen.to(flat.device)
        self._told = torch.zeros(len(self._chosen), len(flat), dtype=torch.bool, device=flat.device)
        self._squares = torch.zeros(len(flat), dtype=torch.float64, device=flat.device)

    @property
    def table(self) -> Tableau:
        """That of the averages."""
        return self.averaged.table

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows in the middle of their gaps, and the answer."""
        return self.averaged.kept

    def of(self, which: Tensor) -> Averages:
        """The same of some samples.

        Args:
            which: Which, shape (S,), bool.

        Returns:
            Theirs.
        """
        start = self.heard.states[0][which].unflatten(1, self._shape)
        part = Averages(self.averaged, start, Chosen(self._fine, which.nonzero().flatten()), self.variance)
        part.heard.inherit(self.heard, which)
        part._told, part._squares = self._told[:, which], self._squares[which]
        return part

    def wanted(self, ended: Tensor | None) -> tuple[Request, Callable[[Tensor], None]] | None:
        """The halves of a few gaps, each as soon as its node has been asked often enough to lie about where it will.

        Args:
            ended: Samples whose chain is solved, shape (S,), bool: no others are asked for; None before the end.

        Returns:
            The request, and who takes the answer; None where there is nothing to ask.
        """
        due = (self.heard.asked[self._chosen] >= ASKED if ended is None else ended) & ~self._told
        if not bool(due.any()):
            return None
        which, sample = due.nonzero(as_tuple=True)
        request, defects = self._halves(self._chosen[which], sample)

        def take(answer: Tensor) -> None:
            self._squares.index_add_(0, sample, defects(answer))
            self._told |= due

        return request, take

    def known(self) -> Tensor:
        """Samples some of whose halves have answered, shape (S,), bool."""
        return self._told.any(0)

    def final(self) -> Tensor:
        """Samples all of whose chosen halves have answered, shape (S,), bool."""
        return self._told.all(0)

    def doubts(self) -> Tensor:
        """What the halves said so far, a root sum of squares over gaps; infinite where none was asked.

        Returns:
            Shape (S,), float64, in units of sqrt(v0).
        """
        total = (self._every * self._squares).sqrt() / self._unit()
        return torch.where(self.known(), torch.nan_to_num(total, nan=torch.inf), torch.inf)

    def check(self, verify: int) -> tuple[Request, Callable[[Tensor], Tensor]]:
        """The halves of some gaps at the path as it stands: sizes, added up, to be on the safe side.

        Args:
            verify: Rows that may be asked of each sample, at least 2.

        Returns:
            The request, in rows of the whole chain, and the error of each sample from its answer.
        """
        chosen, every = _spread(self.averaged, max(1, verify // 2))
        samples = torch.arange(len(self._squares), device=self._squares.device)
        sample = samples.repeat(len(chosen))
        request, defects = self._halves(chosen.to(samples.device).repeat_interleave(len(samples)), sample)

        def errors(answer: Tensor) -> Tensor:
            sizes = over_rows(defects(answer).sqrt().unflatten(0, (len(chosen), len(samples))))
            return torch.nan_to_num(every * sizes / self._unit(), nan=torch.inf)

        return request, errors

    def _halves(self, gap: Tensor, sample: Tensor) -> tuple[Request, Callable[[Tensor], Tensor]]:
        r"""Ask the halves of gaps: :math:`w_1 F_1 + w_2 F_2 - (w_1 + w_2) F` is their error.

        Args:
            gap: Which gaps, shape (N,).
            sample: Of which samples, shape (N,).

        Returns:
            The request, and from its answer the squares of what the errors do to the answers, shape (N,), float64.
        """
        averaged, gaps = self.averaged, self.averaged.table.nodes
        host = gap.cpu().numpy()
        halves, both = averaged.halves.of(np.concatenate([host, host + gaps])), sample.repeat(2)
        states = self._at(halves, both)
        request = Request(
            x=(states * self._column(averaged.fine.scale[halves.row])).unflatten(1, self._shape),
            t=torch.as_tensor(averaged.fine.t[halves.row]).to(states),
            sample=both,
            node=torch.as_tensor(halves.row, device=states.device),
        )
        whole, weight = self.heard.outputs[gap.repeat(2), both], self._column(halves.weight)

        def squares(answer: Tensor) -> Tensor:
            p, q = (self._column(one[halves.row]) for one in self._measured)
            parts = weight * (p * request.x.flatten(1) + q * answer.flatten(1).to(states) - whole)
            first, second = parts.double().chunk(2)
            return self.heard.steepness.felt()[gap, sample].square() * (first + second).square().mean(1)

        return request, squares

    def path(self, answers: Tensor) -> Tensor:
        """All rows of the whole chain, as they follow from the averages, and the answers.

        Args:
            answers: Shape (S, *shape).

        Returns:
            Shape (S, R, *shape). Its rows have seen the noises of their gap, later ones too.
        """
        states = self._states(np.arange(self.averaged.fine.rows - 1))
        return torch.cat([states, answers.flatten(1)[None]]).transpose(0, 1).unflatten(2, self._shape)

    def proposal(self, rows: NDArray[np.int64], whole: bool) -> Proposal:
        """Data predictions for a finer chain, at the states of the path.

        Args:
            rows: Rows of the whole chain at which they are told, ascending.
            whole: Whether they are proposed to the whole chain, between them interpolated; else to a thinned chain of
                these rows.

        Returns:
            The proposal.
        """
        p, q = (self._column(one)[..., None] for one in self._to_data(rows))
        outputs = self.heard.outputs[torch.as_tensor(self.averaged.inside.gap[rows], device=self._squares.device)]
        data = (outputs - p * self._states(rows)) / q
        return between(data, rows, self.averaged.fine.rows if whole else len(rows) + 1)

    def _states(self, rows: NDArray[np.int64]) -> Tensor:
        """States of rows of the whole chain, shape (N, S, D)."""
        samples = len(self._squares)
        which, each = np.repeat(rows, samples), torch.arange(samples, device=self._squares.device)
        return self._at(self.averaged.inside.of(which), each.repeat(len(rows))).unflatten(0, (len(rows), samples))

    def _at(self, some: Average, sample: Tensor) -> Tensor:
        """Where states of samples are, shape (N, D), on a path through the averages of their gaps.

        The path begins where it has this average with the gap's own output: so halves add up to what was asked, settled
        or not, and what is linear cancels.
        """
        gap = torch.as_tensor(some.gap, device=sample.device)
        wholes, outputs = self.averaged.wholes.of(some.gap), self.heard.outputs[gap, sample]
        rest = self.heard.states[gap, sample] - self._column(wholes.gained) * outputs - self._shaken(wholes, sample)
        begin = rest / self._column(wholes.through)
        return self._column(some.through) * begin + self._column(some.gained) * outputs + self._shaken(some, sample)

    def _shaken(self, some: Average, sample: Tensor) -> Tensor:
        """The noise of states beside the beginnings of their gaps, shape (N, D)."""
        used = 1 + int(np.flatnonzero(some.noises.any(0)).max(initial=0))
        columns = self.averaged.edges[some.gap][:, None] + 1 + np.arange(used)
        columns = torch.as_tensor(np.minimum(columns, self.averaged.fine.rows - 1), device=sample.device)
        shares = torch.as_tensor(some.noises[:, :used], device=sample.device)
        drawn = gather(self._fine, sample, columns[:, None], shares[:, None], self.heard.states.shape[2])
        return drawn.flatten(1).to(self.heard.states)

    def _unit(self) -> Tensor:
        """sqrt(v0) of each sample, shape (S,), float64."""
        if self.variance is not None:
            return torch.full_like(self._squares, self.variance**0.5)
        nodes = torch.arange(len(self.heard.asked), device=self.heard.asked.device)[:, None]
        last = torch.where(self.heard.asked > 0, nodes, 0).amax(0)  # the newest prediction that there is
        at, sample = self.averaged.kept[last.cpu().numpy()], torch.arange(len(last), device=last.device)
        p, q = (self._column(one) for one in self._to_data(at))
        data = (self.heard.outputs[last, sample] - p * self.heard.states[last, sample]) / q
        return data.double().square().mean(1).sqrt()

    def _to_data(self, rows: NDArray[np.int64]) -> Affine:
        """F as p times the state plus q times the data prediction, at some rows."""
        fine = self.averaged.fine
        assert fine.alpha is not None
        assert fine.sigma is not None
        return preconditioned(Form.DATA, fine.alpha[rows], fine.sigma[rows], self.averaged.variance)

    def _column(self, values: Array) -> Tensor:
        """One number for each state, shape (N, 1)."""
        return torch.as_tensor(values).to(self.heard.states)[:, None]


def _spread(averaged: Averaged, most: int) -> tuple[Tensor, int]:
    """Some of the gaps of more than one row, evenly spread, and one of how many they are."""
    split = np.flatnonzero(np.diff(averaged.edges) > 1)
    every = stride(len(split), most)
    return torch.as_tensor(split[every // 2 :: every]), every
