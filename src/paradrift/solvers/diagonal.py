"""One wavefront solve in progress: the blocks, and what a round does with those on its diagonal."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.noise import Noise
from paradrift.solvers.base import Request
from paradrift.solvers.layout import Layout
from paradrift.solvers.lowered import Here, Lowered, lower
from paradrift.solvers.march import march
from paradrift.solvers.references import continue_references
from paradrift.solvers.solver import Solver
from paradrift.solvers.state import State
from paradrift.tableau import Tableau

Places = tuple[Tensor, Tensor, Tensor]  # row, column (block and sample) and position of some nodes


class Diagonal:
    """One solve in progress: every block a window of its own, all windows side by side, block by block."""

    def __init__(
        self,
        table: Tableau,
        start: Tensor,
        noise: Noise,
        solver: Solver,
        edges: tuple[int, ...],
        variance: float | None,
    ) -> None:
        self.solver, self.noise, self.variance = solver, noise, variance
        self.shape, self.last = start.shape[1:], table.rows - 1
        self.ready = int(table.evaluated.nonzero()[0][0])  # rows before the first node need no model
        device, flat = start.device, start.flatten(1)
        self.start, self.samples = flat, torch.arange(len(flat), device=device)
        self.layout = Layout.of(table, edges, device)
        history, width = self.layout.history, self.layout.width
        self.table: Lowered = lower(
            table, solver.slopes, variance or 1.0, solver.verify, width + 1, start.dtype, device, lawful=table.noisy
        )
        groups = solver.slopes.groups
        self.groups = None if groups is None else groups.flatten().to(device)
        self.state = State.begin(flat.repeat(self.blocks, 1), history, width, per_element=groups is not None)
        self.state.front = torch.tensor(self.layout.left, device=device).repeat_interleave(len(flat))
        positions = torch.arange(history + width, device=device)[:, None]
        self.here: Here = self.table.at(self.state.front, positions - (history - 1))
        level = self.here.levels()
        self.state.slope += level.prior[..., None]
        self.state.rest = 1 / level.gain.abs()  # unmeasured: a slope of 1 of the data prediction is left unexplained
        self.lost = torch.zeros_like(self.state.known)  # nodes without a finite output at their last state
        self.miss = torch.zeros_like(self.state.rest)  # what the surrogate got wrong there, rms of f
        self.change = torch.zeros_like(self.state.rest)  # of each row in its block's last update, rms
        self.failed = torch.zeros(len(flat), dtype=torch.bool, device=device)
        self.rounds = torch.zeros(len(flat), dtype=torch.int64, device=device)
        self.entered = self.frozen = self.front = self.evaluations = self.widest = 0

    @property
    def blocks(self) -> int:
        """Number of blocks N."""
        return self.layout.blocks

    def ask(self, active: range, entering: bool) -> tuple[Request | None, Places]:
        """Take the newest left ends, let a block enter, and say which nodes have moved since they were evaluated.

        Args:
            active: The blocks of this round.
            entering: Whether the last of them is new.

        Returns:
            A request, None where nothing has moved; and its places.
        """
        for block in active:
            if block:
                self.columns(self.state.z, block)[: self.layout.history] = self.rows(
                    self.state.z, self.layout.state[:, self.layout.before(block)]
                )
        if entering:
            self._enter(active[-1])
        self.widest = max(self.widest, self.layout.edges[active.stop] - self.layout.edges[active.start])
        return self._request(self.layout.uses[active.start : active.stop].any(0))

    def _request(self, wanted: Tensor) -> tuple[Request | None, Places]:
        """Nodes of some rows that have moved, or have no finite output yet; not those of failed samples."""
        row = wanted.nonzero().flatten()
        place, state = self.layout.node[:, row], self.state
        moved = (self.rows(state.z, place) != self.rows(state.ref, place)).any(-1)
        need = moved | ~self.rows(state.known, place) | self.rows(self.lost, place)
        which, sample = (need & ~self.failed).nonzero(as_tuple=True)
        position, column = place[0, which], place[1, which] * len(self.samples) + sample
        places = (row[which], column, position)
        if not len(which):
            return None, places
        self.rounds += ~self.failed
        self.evaluations += len(which)
        scaled = state.z[position, column] * self.table.scale[row[which]][:, None]
        times = self.table.t[row[which]]
        return Request(x=scaled.unflatten(1, self.shape), t=times, sample=sample, node=row[which]), places

    def _enter(self, block: int) -> None:
        """Give a block its noises and its first states."""
        state, inside = self.state, self.layout.inside(block)
        first = self.layout.left[block] + 1
        if self.table.noisy:
            terms = self.columns(state.noise, block)[inside]
            rows = torch.arange(first, self.layout.right[block] + 1, device=terms.device)
            for lag, weights in self.here.c.items():
                columns = (rows - lag).clamp(min=0).expand(len(self.samples), -1)
                drawn = self.noise.draw(self.samples, columns).flatten(2).transpose(0, 1)
                terms += self.columns(weights, block)[inside] * drawn.to(terms)
            self.noise.release(max(0, self.layout.right[block] + 1 - max(self.here.c)))
        known = self.ready if block == 0 else 0
        if known:
            march(*self._part(range(1)), inside.start, inside.start + known, None)
        z = self.columns(state.z, block)
        rows = torch.arange(first + known, self.layout.right[block] + 1, device=z.device)
        late = rows[:, None].expand(-1, len(self.samples))
        guessed = self.solver.guess.states(self.samples, late, z[inside.start - 1 + known])
        if guessed is None:
            raise SpecError(
                f"expected a guess that gives the states of an entering block, found {self.solver.guess}: choose "
                "guess=Repeat(), which repeats the end of the block before it"
            )
        z[inside.start + known : inside.stop] = guessed.to(z)
        self.entered = block + 1

    def receive(self, places: Places, answer: Tensor) -> None:
        r"""Take in outputs, with secant slopes :math:`\langle dx, df\rangle / \langle dx, dx\rangle` where asked for.

        Args:
            places: Where they belong.
            answer: Model outputs, shape (K, *shape).
        """
        state, (_, column, position) = self.state, places
        at = (position, column)
        x, outputs = state.z[at], answer.flatten(1).to(state.z.dtype)
        good = torch.isfinite(outputs).all(1) & torch.isfinite(x).all(1)
        known, old = state.known[at] & good, state.slope[at]
        dx, df = x - state.ref[at], outputs - state.f[at]
        slope = old
        if self.solver.slopes.measured:
            slope = self._sum(dx * df) / self._sum(dx * dx)
            slope = (slope if self.groups is None else slope[:, self.groups]).to(old)
            bounds = self.solver.slopes.bounds
            valid = known[:, None] & torch.isfinite(slope)
            slope = torch.where(valid, slope if bounds is None else slope.clamp(*bounds), old)
        self.miss[at] = torch.where(known, rms(df - old * dx), torch.inf)
        rest = rms(df - slope * dx) / rms(dx)
        state.rest[at] = torch.where(known & torch.isfinite(rest), rest, state.rest[at])
        taken = good[:, None]
        state.slope[at] = slope
        state.ref[at] = torch.where(taken, x, state.ref[at])
        state.f[at] = torch.where(taken, outputs, state.f[at])
        state.known[at] |= good
        self.lost[at] = ~good

    def _sum(self, values: Tensor) -> Tensor:
        """Sums over elements, or over those of each group, in float64: shape (K, 1) or (K, G)."""
        if self.groups is None:
            return values.sum(-1, keepdim=True, dtype=torch.float64)
        empty = values.new_zeros(len(values), int(self.groups.max()) + 1, dtype=torch.float64)
        return empty.index_add(-1, self.groups, values.double())

    def update(self, active: range, frozen: bool) -> None:
        """Compute the rows of the blocks on the diagonal, each block from what was before it when the round began.

        Rows up to the front, the first node that was not exact before, are not computed again.

        Args:
            active: The blocks of this round.
            frozen: Whether the first of them now has its last update.
        """
        state, layout, history = self.state, self.layout, self.layout.history
        for block in active:
            place = layout.node[:, layout.before(block)[:-1]]
            for tensor in (state.f, state.ref, state.slope, state.known) if block else ():
                self.columns(tensor, block)[: history - 1] = self.rows(tensor, place)
        part, here = self._part(active)
        if bool(self.lost.any()):
            continue_references(part, here, history - 1, self.solver.slopes.measured, self.table.scheduled)
        old, front = part.z.clone(), self.table.of_node[self.front]
        stop = history + max(layout.right[block] - layout.left[block] for block in active)
        march(part, here, history, stop, (history + front - part.front).clamp(min=history))
        size = len(self.samples)
        self.change[:, active.start * size : active.stop * size] = rms(part.z - old)
        if any(layout.edges[block] <= self.front < layout.edges[block + 1] for block in active):
            self.failed |= self.rows(self.lost, layout.node[:, front[None]])[0]  # so it is for the sequential sampler
            self.front += 1
        if frozen:
            block = active[0]
            lost = self.rows(self.lost, layout.node[:, layout.uses[block].nonzero().flatten()]).any(0)
            whole = torch.isfinite(self.columns(state.z, block)[layout.inside(block)]).all(-1).all(0)
            self.failed |= lost | ~whole
            self.frozen = block + 1

    def check(self) -> tuple[Request | None, Places]:
        """The verification: nodes, evenly spread, at their final states; only those that have moved.

        Returns:
            A request, None where there is nothing to ask; and its places.
        """
        checked = self.table.marks[1, : self.last + 1]
        return self._request(checked)

    def columns(self, tensor: Tensor, block: int) -> Tensor:
        """A block's columns, a view.

        Args:
            tensor: Values by position and column, shape (B, N S, ...).
            block: The block.

        Returns:
            Shape (B, S, ...).
        """
        return tensor[:, block * len(self.samples) : (block + 1) * len(self.samples)]

    def rows(self, tensor: Tensor, place: Tensor) -> Tensor:
        """Values of all samples at some positions and blocks.

        Args:
            tensor: Values by position and column, shape (B, N S, ...).
            place: Positions and blocks, shape (2, K).

        Returns:
            Shape (K, S, ...).
        """
        return tensor.unflatten(1, (self.blocks, len(self.samples)))[place[0], place[1]]

    def _part(self, active: range) -> tuple[State, Here]:
        """The columns of some blocks, as views: what is written there is written here."""
        size = len(self.samples)
        columns = slice(active.start * size, active.stop * size)
        parts = {entry.name: getattr(self.state, entry.name) for entry in fields(self.state)}
        state = State(**{name: part[columns] if part.ndim == 1 else part[:, columns] for name, part in parts.items()})
        weights = {
            name: {lag: weight[:, columns] for lag, weight in getattr(self.here, name).items()} for name in "abc"
        }
        here = replace(
            self.here,
            row=self.here.row[:, columns],
            node=self.here.node[:, columns],
            checked=self.here.checked[:, columns],
            stack=self.here.stack[:, :, columns],
            **weights,
        )
        return state, here


def rms(values: Tensor) -> Tensor:
    """Root mean square over elements.

    Args:
        values: Shape (..., D).

    Returns:
        Shape (...).
    """
    return torch.linalg.vector_norm(values, dim=-1) / values.shape[-1] ** 0.5
