"""What the nodes of a thinned chain have answered, and what that says of the nodes that were skipped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paradrift.forms import Array
from paradrift.guesses import Proposal
from paradrift.noise import Noise
from paradrift.solvers.base import Outcome, Request
from paradrift.solvers.solver import stride
from paradrift.solvers.steepness import Steepness
from paradrift.summing import over_rows
from paradrift.tableau import Tableau
from paradrift.thinning import CORRECTOR, Thin


class Trace:
    """The outputs of a thinned chain's nodes, in the form that is interpolated.

    Args:
        thinned: The thinned chain, K nodes.
        start: Starting states, shape (S, *shape).
        noise: Where noises come from: no row draws one, but a guess may look at the start.
        variance: Data variance per element; None to take the mean square of each sample's last data prediction.
    """

    def __init__(self, thinned: Thin, start: Tensor, noise: Noise, variance: float | None) -> None:
        nodes, flat = thinned.table.nodes, start.flatten(1)
        self.thinned, self.noise, self.variance = thinned, noise, variance
        self._start, self._shape = flat, start.shape[1:]
        self._outputs = flat.new_zeros(nodes, *flat.shape)
        self._states, self._raw = torch.zeros_like(self._outputs), torch.zeros_like(self._outputs)
        self._last = flat.clone()
        self._steepness = Steepness(thinned.table, thinned.felt, thinned.variance, len(flat), flat.device)
        self.asked = torch.zeros(nodes, len(flat), dtype=torch.bool, device=flat.device)
        self._scale = torch.as_tensor(thinned.table.scale[:-1].copy()).to(flat)
        self._affine = [torch.as_tensor(one).to(flat) for one in thinned.measured(thinned.kept[:-1])]

    @property
    def table(self) -> Tableau:
        """That of the thinned chain."""
        return self.thinned.table

    @property
    def rows(self) -> NDArray[np.int64]:
        """Those that it keeps."""
        return self.thinned.kept

    def wanted(self, ended: Tensor | None) -> None:
        """Nothing: what was asked tells how far the chain is off.

        Args:
            ended: Samples whose chain is solved, shape (S,), bool; None before the end.
        """

    def known(self) -> Tensor:
        """All of them: gaps of which a node was not asked yet count nothing, shape (S,), bool."""
        return torch.ones_like(self.asked[0])

    def final(self) -> Tensor:
        """Samples all of whose nodes have answered, shape (S,), bool."""
        return self.asked.all(0)

    def of(self, which: Tensor) -> Trace:
        """The same of some samples.

        Args:
            which: Which, shape (S,), bool.

        Returns:
            Their trace.
        """
        part = Trace(self.thinned, self._start[which].unflatten(1, self._shape), self.noise, self.variance)
        part._outputs, part._last, part.asked = self._outputs[:, which], self._last[which], self.asked[:, which]
        part._states, part._raw = self._states[:, which], self._raw[:, which]
        part._steepness.slopes = self._steepness.slopes[:, which]
        return part

    def hear(self, request: Request, answer: Tensor) -> None:
        """Take in the outputs of a round.

        Args:
            request: What was asked: nodes are rows of the thinned chain.
            answer: Model outputs, shape (N, *shape).
        """
        x, output = request.x.flatten(1), answer.flatten(1).to(self._outputs)
        self._enter(request.node, request.sample, x, output)

    def take(self, outcome: Outcome) -> None:
        """Take the outputs that the settled rows were computed with, where they are known.

        Args:
            outcome: The thinned chain's.
        """
        found = told(outcome, self.table)
        if found is not None:
            self._enter(*found)

    def _enter(self, node: Tensor, sample: Tensor, x: Tensor, output: Tensor) -> None:
        p, q = (one[node][:, None] for one in self._affine)
        state, found = x / self._scale[node][:, None], p * x + q * output
        again = self.asked[node, sample]
        where = node[again], sample[again]
        self._steepness.see(*where, state[again] - self._states[where], output[again] - self._raw[where])
        self._states[node, sample], self._outputs[node, sample], self._raw[node, sample] = state, found, output
        self.asked[node, sample] = True
        last = node == len(self._outputs) - 1
        self._last[sample[last]] = state[last]

    def _unit(self) -> Tensor:
        """sqrt(v0) of each sample, shape (S,), float64."""
        if self.variance is not None:
            return torch.full((len(self._start),), self.variance**0.5, dtype=torch.float64, device=self._start.device)
        alpha, sigma = self._levels(self.thinned.kept[-2:-1])
        data = (self._last - sigma[0] * self._outputs[-1]) / (alpha[0] + sigma[0])
        return data.double().square().mean(1).sqrt()

    def _levels(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Signal and noise level of some rows, shape (N, 1, 1)."""
        fine = self.thinned.fine
        assert fine.alpha is not None
        assert fine.sigma is not None
        return self._rows(fine.alpha[rows]), self._rows(fine.sigma[rows])

    def doubts(self) -> Tensor:
        """The error that skipped nodes may make, from what two cubics disagree about: a root sum of squares over gaps.

        Gaps of which a node was not asked yet count nothing.

        Returns:
            Shape (S,), float64, in units of sqrt(v0); infinite where it is not a number.
        """
        weights, nodes = torch.as_tensor(self.thinned.doubt).to(self._start), len(self._outputs)
        apart, told = torch.zeros_like(self._outputs), torch.ones_like(self.asked)
        for shift in range(-CORRECTOR, CORRECTOR):
            rows = slice(max(0, -shift), min(nodes, nodes - shift))
            used = weights.diagonal(shift)
            if bool(used.any()):
                there = slice(rows.start + shift, rows.stop + shift)
                apart[rows] += used[:, None, None] * self._outputs[there]
                told[rows] &= self.asked[there] | (used == 0)[:, None]
        size = apart.double().square().mean(-1) * self._steepness.felt().square()
        total = over_rows(torch.where(told, size, 0.0)).sqrt() / self._unit()
        return torch.nan_to_num(total, nan=torch.inf)

    def _walk(self, wanted: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """States of some rows, and interpolated outputs there (at the answer without meaning): shapes (N, S, D)."""
        thinned = self.thinned
        kept = [self._start]
        for row in thinned.kept[1:].tolist():
            state = float(thinned.through[row]) * kept[-1]
            for source, weight in zip(thinned.sources[row - 1].tolist(), thinned.gained[row].tolist(), strict=True):
                state = state + weight * self._outputs[source]
            kept.append(state)
        base = np.maximum(np.searchsorted(thinned.kept, wanted) - 1, 0)
        before, at = np.maximum(wanted - 1, 0), np.minimum(wanted, len(thinned.shares) - 1)
        states = self._rows(thinned.through[wanted]) * torch.stack(kept)[base]
        outputs = torch.zeros_like(states)
        for one in range(CORRECTOR):
            states = states + self._rows(thinned.gained[wanted, one]) * self._outputs[thinned.sources[before, one]]
            outputs = outputs + self._rows(thinned.shares[at, one]) * self._outputs[thinned.sources[at, one]]
        return states, outputs

    def _rows(self, values: Array) -> Tensor:
        """One number for each row, shape (N, 1, 1)."""
        return torch.as_tensor(values).to(self._start)[:, None, None]

    def path(self, answers: Tensor) -> Tensor:
        """All rows of the whole chain, as they follow from the interpolated outputs, and the answers.

        Args:
            answers: Shape (S, *shape).

        Returns:
            Shape (S, R, *shape).
        """
        states, _ = self._walk(np.arange(self.thinned.fine.rows))
        return torch.cat([states[:-1], answers.flatten(1)[None]]).transpose(0, 1).unflatten(2, self._shape)

    def proposal(self, rows: NDArray[np.int64], whole: bool) -> Proposal:
        """Data predictions for a finer chain.

        Args:
            rows: Rows of the whole chain at which they are told, ascending.
            whole: Whether they are proposed to the whole chain, between them interpolated; else to a thinned chain that
                keeps these nodes.

        Returns:
            The proposal.
        """
        states, outputs = self._walk(rows)
        alpha, sigma = self._levels(rows)
        place = np.arange(len(rows) + 1.0)
        if whole:
            place = np.interp(np.arange(self.thinned.fine.rows), rows, np.arange(len(rows)))
        first = np.minimum(np.floor(place), len(rows) - 1)
        return Proposal(
            data=(states - sigma * outputs) / (alpha + sigma),
            first=torch.as_tensor(first, dtype=torch.int64, device=states.device),
            share=torch.as_tensor(np.where(first < len(rows) - 1, place - first, 0.0)).to(states),
        )

    def check(self, verify: int) -> tuple[Request, Callable[[Tensor], Tensor]]:
        """Skipped nodes in the middle of some gaps, at the states of the path: what their defects do to the answer.

        Args:
            verify: Gaps that may be asked, at most.

        Returns:
            The request, in rows of the whole chain, and the error of each sample from its answer: sizes, added up.
        """
        every = stride(self.thinned.table.nodes, verify)
        gaps = np.arange(self.thinned.table.nodes)[::every]
        rows = self.thinned.middles[gaps]
        states, interpolated = self._walk(rows)
        fine, samples = self.thinned.fine, len(self._start)
        times = torch.as_tensor(fine.t[rows]).to(states)
        asked = torch.as_tensor(rows, device=states.device)
        request = Request(
            x=(states * self._rows(fine.scale[rows])).flatten(0, 1).unflatten(1, self._shape),
            t=times.repeat_interleave(samples),
            sample=torch.arange(samples, device=states.device).repeat(len(rows)),
            node=asked.repeat_interleave(samples),
        )
        p, q = (self._rows(one) for one in self.thinned.measured(rows))
        felt = torch.as_tensor(self.thinned.sizes[gaps], device=states.device)[:, None] * self._steepness.felt()[gaps]

        def errors(answer: Tensor) -> Tensor:
            x, output = (one.flatten(1).to(interpolated).view_as(interpolated) for one in (request.x, answer))
            defect = (p * x + q * output - interpolated).double().square().mean(-1).sqrt()
            return torch.nan_to_num(every * over_rows(felt * defect) / self._unit(), nan=torch.inf)

        return request, errors


def told(outcome: Outcome, table: Tableau) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """The outputs that the settled rows of a chain were computed with.

    Args:
        outcome: Its outcome, with its path and its outputs.
        table: Its table.

    Returns:
        Nodes and samples, shape (N,), what the model saw there and its outputs, shape (N, D); None if they were not
        kept.
    """
    if outcome.outputs is None or outcome.trajectory is None:
        return None
    states = outcome.trajectory[:, :-1].flatten(2).transpose(0, 1)
    outputs = outcome.outputs[:, :-1].flatten(2).transpose(0, 1)
    node, sample = torch.isfinite(outputs.sum(-1) + states.sum(-1)).nonzero(as_tuple=True)
    scale = torch.as_tensor(table.scale[:-1].copy()).to(states)[node][:, None]
    return node, sample, states[node, sample] * scale, outputs[node, sample]
