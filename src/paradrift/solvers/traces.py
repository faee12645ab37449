"""What the nodes of a thinned chain have answered, and what that says of the nodes that were skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paradrift.forms import Array
from paradrift.guesses import Proposal
from paradrift.noise import Noise
from paradrift.solvers.base import Request
from paradrift.solvers.heard import Heard
from paradrift.solvers.proposals import between
from paradrift.solvers.solver import stride
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
        flat, measured = start.flatten(1), thinned.measured(thinned.kept[:-1])
        self.thinned, self.noise, self.variance = thinned, noise, variance
        self._start, self._shape = flat, start.shape[1:]
        self.heard = Heard(thinned.table, measured, thinned.felt, thinned.variance, flat)
        self._bands, self._uses = list(_bands(thinned, flat)), torch.as_tensor(thinned.doubt != 0).to(flat)

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
        return torch.ones_like(self.heard.asked[0], dtype=torch.bool)

    def final(self) -> Tensor:
        """Samples all of whose nodes have answered, shape (S,), bool."""
        return (self.heard.asked > 0).all(0)

    def of(self, which: Tensor) -> Trace:
        """The same of some samples.

        Args:
            which: Which, shape (S,), bool.

        Returns:
            Their trace.
        """
        part = Trace(self.thinned, self._start[which].unflatten(1, self._shape), self.noise, self.variance)
        part.heard.inherit(self.heard, which)
        return part

    def _unit(self) -> Tensor:
        """sqrt(v0) of each sample, shape (S,), float64."""
        if self.variance is not None:
            return torch.full((len(self._start),), self.variance**0.5, dtype=torch.float64, device=self._start.device)
        alpha, sigma = self._levels(self.thinned.kept[-2:-1])
        last = torch.where(self.heard.asked[-1, :, None] > 0, self.heard.states[-1], self._start)
        data = (last - sigma[0] * self.heard.outputs[-1]) / (alpha[0] + sigma[0])
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
        apart = torch.zeros_like(self.heard.outputs)
        for rows, there, weight in self._bands:
            apart[rows] += weight * self.heard.outputs[there]
        told = self._uses @ (self.heard.asked == 0).to(self._uses) == 0  # counts of nodes: exact
        size = apart.double().square().mean(-1) * self.heard.steepness.felt().square()
        total = over_rows(torch.where(told, size, 0.0)).sqrt() / self._unit()
        return torch.nan_to_num(total, nan=torch.inf)

    def _walk(self, wanted: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """States of some rows, and interpolated outputs there (at the answer without meaning): shapes (N, S, D)."""
        thinned = self.thinned
        kept = [self._start]
        for row in thinned.kept[1:].tolist():
            state = float(thinned.through[row]) * kept[-1]
            for source, weight in zip(thinned.sources[row - 1].tolist(), thinned.gained[row].tolist(), strict=True):
                state = state + weight * self.heard.outputs[source]
            kept.append(state)
        base = np.maximum(np.searchsorted(thinned.kept, wanted) - 1, 0)
        before, at = np.maximum(wanted - 1, 0), np.minimum(wanted, len(thinned.shares) - 1)
        states = self._rows(thinned.through[wanted]) * torch.stack(kept)[base]
        outputs = torch.zeros_like(states)
        for one in range(CORRECTOR):
            states = states + self._rows(thinned.gained[wanted, one]) * self.heard.outputs[thinned.sources[before, one]]
            outputs = outputs + self._rows(thinned.shares[at, one]) * self.heard.outputs[thinned.sources[at, one]]
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
        data = (states - sigma * outputs) / (alpha + sigma)
        return between(data, rows, self.thinned.fine.rows if whole else len(rows) + 1)

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
        felt = (
            torch.as_tensor(self.thinned.sizes[gaps], device=states.device)[:, None] * self.heard.steepness.felt()[gaps]
        )

        def errors(answer: Tensor) -> Tensor:
            x, output = (one.flatten(1).to(interpolated).view_as(interpolated) for one in (request.x, answer))
            defect = (p * x + q * output - interpolated).double().square().mean(-1).sqrt()
            return torch.nan_to_num(every * over_rows(felt * defect) / self._unit(), nan=torch.inf)

        return request, errors


def _bands(thinned: Thin, like: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """The weights of what two cubics disagree about, by distance: gaps, nodes, and weights of these in those."""
    nodes = len(thinned.doubt)
    for shift in range(-CORRECTOR, CORRECTOR):
        weights = thinned.doubt.diagonal(shift)
        if weights.any():
            first, last = max(0, -shift), min(nodes, nodes - shift)
            used = torch.as_tensor(weights.copy()).to(like)
            yield slice(first, last), slice(first + shift, last + shift), used[:, None, None]
