"""One fixed-point solve in progress: the iterate, its window, and what a round does with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.growth import SIGNAL, levels
from paradrift.guesses import Guess
from paradrift.noise import Noise
from paradrift.slopes import to_data
from paradrift.solvers.base import Request
from paradrift.solvers.equations import System
from paradrift.solvers.updates import Past, Update
from paradrift.summing import over_rows
from paradrift.tableau import Tableau
from paradrift.windows import Window


class Iterate:
    """All rows of all samples as they stand; a sample's window are the rows after its front, up to its limit.

    The front is a node whose state is settled, so the row after it is exact as soon as the front is evaluated.
    """

    def __init__(
        self,
        table: Tableau,
        equations: System,
        start: Tensor,
        noise: Noise,
        *,
        window: Window,
        update: Update,
        guess: Guess,
        thresholds: Array,
        variance: float | None,
    ) -> None:
        self.table, self.noise, self.window, self.update, self.guess = table, noise, window, update, guess
        self.variance, self.shape, self.last = variance, start.shape[1:], table.rows - 1
        flat, device = start.flatten(1), start.device
        rows, size = table.rows, len(flat)
        self.equations = equations
        self.directions: Tensor | None = None  # of the last request
        self.start, self.samples = flat, torch.arange(size, device=device)
        self.row = torch.arange(rows, device=device)[:, None]
        self.node = torch.as_tensor(table.evaluated.copy(), device=device)
        self.t = torch.as_tensor(np.where(table.evaluated, table.t, 0.0)).to(flat)
        self.scale = torch.as_tensor(table.scale.copy()).to(flat)
        self.before = torch.as_tensor(np.cumsum(table.evaluated) - table.evaluated, device=device)
        self.of_node = torch.as_tensor(np.append(np.flatnonzero(table.evaluated), rows - 1), device=device)
        self.threshold = torch.as_tensor(thresholds).to(flat)[:, None]
        alpha = np.ones(rows) if table.alpha is None else np.maximum(table.alpha, SIGNAL)
        self.alpha = torch.as_tensor(alpha).to(flat)
        # what a defect of each row does to the answer, for data of unknown variance
        self.felt = torch.as_tensor(levels(table, variance or 1.0)[-1] / alpha).to(device)[:, None]
        p, q = to_data(table)
        self.p, self.q = (torch.as_tensor(vector.copy()).to(flat) for vector in (p, q))
        empty = flat.new_zeros(rows, *flat.shape)
        self.z, self.f, self.terms, self.asked = empty.clone(), empty.clone(), empty.clone(), empty.clone()
        self.z[0] = flat
        self.known = torch.zeros(rows, size, dtype=torch.bool, device=device)  # nodes evaluated at ``asked``
        self.lost = torch.zeros_like(self.known)  # of these, without a finite output
        self.age = torch.zeros(rows, size, dtype=torch.int64, device=device)  # updates of each row
        self.defect = flat.new_full((rows, size), torch.inf)  # rms of the last defect of each row
        self.change = flat.new_full((rows, size), torch.nan)
        self.old_z, self.old_residual = empty.clone(), empty.clone()
        self.usable = torch.zeros_like(self.known)  # rows whose old residual counts
        self.differences: list[tuple[Tensor, Tensor]] = []
        self.front = torch.zeros(size, dtype=torch.int64, device=device)
        self.limit = self.front.clone()
        self.drawn = 0  # noises of rows up to here
        self.failed = torch.zeros(size, dtype=torch.bool, device=device)
        self.rounds = torch.zeros(size, dtype=torch.int64, device=device)
        self.error = torch.zeros(size, dtype=torch.float64, device=device)
        self.evaluations = self.widest = 0
        self.prepare()
        self.settle()  # rows before the first node need no model
        self.enter()

    @property
    def active(self) -> Tensor:
        """Samples that are still worked on, shape (S,), bool."""
        return ~self.failed & (self.front < self.last)

    def prepare(self) -> None:
        """Noises of the rows up to the node after each front, which :meth:`settle` may reach."""
        nodes = len(self.of_node) - 1
        ahead = self.of_node[(self.before[self.front] + 1).clamp(max=nodes)]
        self.draw(int(torch.maximum(ahead, self.limit).max()))

    def draw(self, top: int) -> None:
        """Noise terms of the rows up to one, for all samples.

        Args:
            top: That row.
        """
        if top <= self.drawn:
            return
        rows = torch.arange(self.drawn + 1, top + 1, device=self.z.device)
        for lag, band in self.equations.c.items():
            columns = (rows - lag).clamp(min=0)
            noises = self.noise.draw(self.samples, columns.expand(len(self.samples), -1))
            self.terms[rows] += band[rows] * noises.flatten(2).transpose(0, 1).to(self.terms)
        if self.equations.c:
            self.noise.release(max(0, top + 1 - max(self.equations.c)))
        self.drawn = top

    def ask(self) -> tuple[Request | None, tuple[Tensor, Tensor]]:
        """Nodes of the windows that have moved, or have no finite output yet.

        Returns:
            A request, None where nothing has moved; and its rows and samples.
        """
        inside = (self.row >= self.front) & (self.row < self.limit) & self.node[:, None] & self.active
        moved = (self.z != self.asked).any(-1)
        row, sample = (inside & (~self.known | self.lost | moved)).nonzero(as_tuple=True)
        if not len(row):
            return None, (row, sample)
        self.rounds += self.active
        self.directions = self.equations.directions(row, self.z.shape[-1])
        self.evaluations += len(row) * (1 if self.directions is None else 2 * len(self.directions))
        self.widest = max(self.widest, int((self.before[self.limit] - self.before[self.front])[self.active].max()))
        scale = self.scale[row][:, None]
        x = (self.z[row, sample] * scale).unflatten(1, self.shape)
        tangent = None if self.directions is None else (self.directions * scale).unflatten(-1, self.shape)
        return Request(x=x, t=self.t[row], sample=sample, node=row, tangent=tangent), (row, sample)

    def receive(self, where: tuple[Tensor, Tensor], answer: Tensor) -> None:
        """Take outputs in.

        Args:
            where: Rows and samples of the request.
            answer: Model outputs, shape (K, *shape), or outputs and products, as the request has it.
        """
        if self.directions is None:
            outputs = answer.flatten(1).to(self.f)
        else:
            outputs, *products = answer.flatten(2).to(self.f)
            self.equations.learn(where, self.directions.to(self.f), torch.stack(products))
        good = torch.isfinite(outputs).all(1)
        self.f[where] = torch.where(good[:, None], outputs, 0.0)
        self.asked[where] = self.z[where]
        self.known[where], self.lost[where] = True, ~good
        self.failed |= self.lost[self.front, self.samples] & self.active  # so it is for the sequential sampler

    def advance(self) -> None:
        """Settle the rows that are solved, take one exact step, and move the rest of the window."""
        inside = (self.row > self.front) & (self.row <= self.limit) & self.active
        if not bool(inside.any()):
            return
        rows = inside.any(1).nonzero().flatten()
        first, end = int(rows[0]), int(rows[-1]) + 1
        # What a model could not answer is no defect of what it answered: rows after such a node hold still, and are
        # not settled, until it can. At the front it is final.
        broken = (self.lost & (self.row >= self.front) & (self.row < self.limit))[first - 1 : end - 1].cumsum(0) > 0
        inside = inside[first:end] & ~broken & self.active
        right = self.equations.values(self.z, self.f, self.terms, first, end)
        defect = torch.where(inside[..., None], right - self.z[first:end], 0.0)
        size = _rms(defect)
        self.defect[first:end] = torch.where(inside, size, self.defect[first:end])
        solved = inside & (size <= self.threshold[first:end]) & (self.age[first:end] > 0)
        skipped = self.row[first:end] <= self.front
        accepted = (solved | skipped).long().cumprod(0).bool() & solved
        self.error += over_rows(torch.where(accepted, size.double() * self.felt[first:end], 0.0))
        self.front = self.front + accepted.sum(0)
        anchor = self.front
        old = self.z[first:end].clone()
        self.settle()
        self._move(inside & (self.row[first:end] > anchor), defect, first, end, old)
        self.enter()

    def _move(self, inside: Tensor, defect: Tensor, first: int, end: int, old: Tensor) -> None:
        """Update the rows after the front, from the residuals of the rows after the anchor."""
        rows = slice(first, end)
        residual = self.equations.residual(torch.where(inside[..., None], defect, 0.0), inside, first)
        residual = torch.where((inside & torch.isfinite(residual).all(-1))[..., None], residual, 0.0)
        if self.update.memory > 1:
            both = (inside & self.usable[rows])[..., None]
            whole = torch.zeros_like(self.z), torch.zeros_like(self.z)
            whole[0][rows] = torch.where(both, old - self.old_z[rows], 0.0)
            whole[1][rows] = torch.where(both, residual - self.old_residual[rows], 0.0)
            if bool(self.usable.any()):
                self.differences = [whole, *self.differences][: self.update.memory - 1]
        mask = inside[..., None]
        past = Past(
            residual=residual,
            before=torch.where(mask & self.usable[rows][..., None], self.old_residual[rows], 0.0),
            states=tuple(torch.where(mask, dx[rows], 0.0) for dx, _ in self.differences),
            residuals=tuple(torch.where(mask, dr[rows], 0.0) for _, dr in self.differences),
        )
        # The first update of a row is the plain one: the row is then a drift and its own noise, wherever it started.
        step = torch.where((self.age[rows] > 0)[..., None], self.update.step(past), residual)
        step = torch.where(torch.isfinite(old + step).all(-1, keepdim=True), step, residual)
        move = inside & (self.row[rows] > self.front) & torch.isfinite(old + step).all(-1)
        self.z[rows] = torch.where(move[..., None], old + step, self.z[rows])
        self.change[:] = torch.nan
        self.change[rows] = torch.where(inside, _rms(self.z[rows] - old), torch.nan)
        self.usable[rows] = inside & (self.age[rows] > 0)
        self.old_z[rows], self.old_residual[rows] = old, residual
        self.age[rows] += move.long()

    def settle(self) -> None:
        """Step from each front as the sequential sampler does, while outputs at its state are known."""
        while True:
            at = (self.front, self.samples)
            answered = self.known[at] & ~self.lost[at] & (self.asked[at] == self.z[at]).all(-1)
            going = self.active & (answered | ~self.node[self.front])
            if not bool(going.any()):
                break
            row = (self.front + 1).clamp(max=self.last)
            value = self.terms[row, self.samples].clone()
            for bands, source in ((self.equations.a, self.z), (self.equations.b, self.f)):
                for lag, band in bands.items():
                    value += band[row, 0] * source[(row - lag).clamp(min=0), self.samples]
            self.z[row[going], self.samples[going]] = value[going]
            self.failed |= going & ~torch.isfinite(value).all(-1)
            self.front = self.front + going

    def enter(self) -> None:
        """Let rows into the windows, up to the limit of each front."""
        nodes = len(self.of_node) - 1
        old = torch.maximum(self.limit, self.front)
        front = torch.minimum(self.front, self.of_node[-2])
        renewed = self.of_node[self.window.limit(self.before[front], nodes)]
        self.limit = torch.where(self.active, torch.maximum(renewed, old), old)
        first, end = int(old.min()) + 1, int(self.limit.max()) + 1
        if first >= end:
            return
        self.prepare()
        rows = self.row[first:end]
        guessed = self.guess.states(self.samples, rows.expand(-1, len(self.samples)), self.z[old, self.samples])
        if guessed is None:
            raise SpecError(
                f"expected a start that gives states, found {self.guess}: choose start=Repeat(), or Given(trajectory)"
            )
        enters = (rows > old) & (rows <= self.limit)
        self.z[first:end] = torch.where(enters[..., None], guessed.to(self.z), self.z[first:end])

    def preview(self) -> Tensor:
        """Data prediction of the last evaluated node of each sample (its state, without a schedule), shape (S, D)."""
        at = (torch.where(self.known & ~self.lost, self.row, 0).amax(0), self.samples)
        if self.table.alpha is None:
            return self.z[at]
        data = (self.f[at] - self.p[at[0]][:, None] * self.asked[at]) / self.q[at[0]][:, None]
        return torch.where((self.known & ~self.lost)[at][:, None], data, self.start)

    def felt_defects(self) -> Tensor:
        """What the defects of settled rows, and of rows that still move, do to the answers, shape (S,), float64."""
        open_rows = torch.where(self.row > self.front, self.defect.double() * self.felt, 0.0)
        return self.error + over_rows(torch.nan_to_num(open_rows, nan=torch.inf))


def _rms(values: Tensor) -> Tensor:
    """Root mean square over elements, shape (...)."""
    return torch.linalg.vector_norm(values, dim=-1) / values.shape[-1] ** 0.5
