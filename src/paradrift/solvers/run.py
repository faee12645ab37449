"""One solve in progress."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.noise import Noise
from paradrift.solution import Round, Status
from paradrift.solvers.base import Outcome, Request
from paradrift.solvers.ledger import Check, Ledger
from paradrift.solvers.lowered import Lowered, lower
from paradrift.solvers.measure import Facts, measure
from paradrift.solvers.reading import last_rows, preview, relative_change
from paradrift.solvers.solver import Solver
from paradrift.solvers.state import State, Where, carry_slopes, continue_references, march, rows_of
from paradrift.stopping import View
from paradrift.tableau import Tableau


class Run:
    """One solve in progress: the windows, the books, and the four things a round does with them."""

    def __init__(
        self,
        table: Tableau,
        start: Tensor,
        noise: Noise,
        solver: Solver,
        variance: float | None,
        keep: bool,
        lead: int | None,
    ) -> None:
        self.solver, self.noise, self.variance = solver, noise, variance
        self.shape, self.nodes, self.last = start.shape[1:], table.nodes, table.rows - 1
        flat = start.flatten(1)
        # One row of history more than the table reaches back: entering nodes continue the last evaluated node.
        self.history = table.reach + 1
        ends = solver.window.limit(torch.arange(table.nodes), table.nodes)
        of_node = torch.tensor([*table.evaluated.nonzero()[0].tolist(), self.last])
        fronts = torch.cat([of_node.new_zeros(1), of_node[1:-1]])  # a chain starts at row 0, be it a node or not
        self.width = int((of_node[ends] - fronts).max())
        self.evaluations = 0
        self.widest = int((ends - torch.arange(table.nodes)).max())
        self.lead = None if lead is None else lead * self.width
        pad = self.history + self.width + 1
        self.table: Lowered = lower(table, solver.slopes, variance or 1.0, pad, start.dtype, start.device)
        groups = solver.slopes.groups
        self.groups = None if groups is None else groups.flatten().to(start.device)
        self.state = State.begin(flat, self.history, self.width, per_element=groups is not None)
        self.ledger = Ledger.open(flat, table.rows if keep else 0)
        self.active = torch.arange(len(flat), device=start.device)
        self.swept = torch.zeros_like(self.active)
        self.limit = self.table.limits(self.state.front, solver.window)
        self.moved = torch.ones_like(self.state.known)
        self.positions = torch.arange(len(self.state.known), device=start.device)[:, None]
        self.unit = flat.new_full((len(flat),), 1.0 if variance is None else variance**0.5)
        self.left = torch.full_like(self.unit, torch.inf)  # error of the last row if the solve ended now
        self.enter(torch.full_like(self.state.front, self.history))
        # Rows before the first node (a start that is churned, say) need no model: they are exact, not guessed.
        ready = self.history + int(of_node[0])
        march(self.state, self.table, rows_of(self.state, self.history), self.history, ready, None)

    def request(self, x: Tensor, row: Tensor, sample: Tensor) -> Request:
        """Rows as the model wants them: scaled, in the sample's shape; counted."""
        self.evaluations += len(row)
        scaled = (x * self.table.scale[row][:, None]).unflatten(1, self.shape)
        return Request(x=scaled, t=self.table.t[row], sample=sample, node=row)

    def ask(self) -> tuple[Request | None, Where, Check | None]:
        """What to evaluate next: nodes inside their windows that moved, and accepted nodes that wait."""
        rows = rows_of(self.state, self.history)
        inside = (self.positions >= self.history - 1) & (rows < self.limit)
        need = self.table.node[rows] & inside & (~self.state.known | self.moved) & ~self._waiting()
        first = self.history - 1
        where: Where = (slice(first, len(rows) - 1), slice(None))
        if not bool(need[where].all()):
            where = need.nonzero(as_tuple=True)
        x, row = self.state.z[where].flatten(0, -2), rows[where].flatten()
        sample = self.active.expand_as(rows)[where].flatten()
        check = self.ledger.take_checks()
        if check is not None:
            x, row, sample = (torch.cat(pair) for pair in ((x, check.x), (row, check.row), (sample, check.sample)))
        if not len(row):
            return None, where, None
        self.ledger.rounds[self.active] += 1
        return self.request(x, row, sample), where, check

    def _waiting(self) -> Tensor:
        """Samples that must let the slowest catch up, shape (S,)."""
        front = self.state.front
        if self.lead is None or not len(front):
            return torch.zeros_like(front, dtype=torch.bool)
        return front > front.min() + self.lead

    def receive(self, answer: Tensor, check: Check | None) -> Tensor:
        """Split an answer: verified nodes go to the books, the rest is returned."""
        outputs = answer.flatten(1).to(self.state.z.dtype)
        if check is None:
            return outputs
        fresh = len(outputs) - len(check.row)
        self.ledger.verify(check, outputs[fresh:])
        return outputs[:fresh]

    def digest(self, where: Where, outputs: Tensor) -> tuple[Facts, View, Tensor]:
        """Learn from the outputs, march, and judge."""
        state, table, history = self.state, self.table, self.history
        rows = rows_of(state, history)
        facts = measure(
            state,
            table,
            rows,
            where,
            outputs.view_as(state.z[where]),
            variance=self.variance or 1.0,
            groups=self.groups,
            secants=self.solver.slopes.measured,
            history=history,
        )
        if self.solver.slopes.measured and self.width > 1:
            carry_slopes(state, table, rows, history - 1)
        if facts.spoiled:
            continue_references(state, table, rows, history, self.solver.slopes.measured, history - 1)
        if self.variance is None:
            self._update_unit(rows)
        old = state.z.clone()
        span = self.limit - state.front
        stop = history + int(span.max())
        march(state, table, rows, history, stop, None)
        change = (state.z - old).square().mean(-1).sqrt()
        self.moved = ~(change == 0)
        self.swept = self.swept + 1
        nodes = slice(history - 1, stop - 1)
        row = rows[nodes]
        drift = facts.rest[nodes] * (table.q[row].abs() / table.alpha[row]) * change[nodes]
        weight = table.influence[facts.level[nodes], row]
        effect = weight * torch.maximum(facts.miss[nodes], drift)
        effect = torch.where(table.node[row], effect, 0.0)
        ends = self.limit == self.last
        moved = change.gather(0, (history - 1 + span)[None])[0]
        self.change = change / table.alpha[rows]
        view = View(
            effect=effect,
            weight=weight,
            change=change[nodes],
            posterior=table.posterior[row],
            unit=self.unit[self.active],
            span=span,
            swept=self.swept,
            nodes=self.nodes,
            last=ends,
            moved=torch.where(ends, moved, torch.inf),
        )
        inside = self.positions[: len(effect)] < span
        left = torch.where(inside, effect, 0.0).sum(0) / view.unit
        self.left[self.active] = torch.where(ends, left, torch.inf)
        accepted = torch.where(facts.broken | self._waiting(), 0, self.solver.stop.accept(view))
        for _ in range(history):  # a front must be a node, or the answer
            row = state.front + accepted
            plain = (accepted > 0) & ~table.node[row] & (row < self.limit)
            accepted = accepted + plain.long()
        return facts, view, accepted

    def _update_unit(self, rows: Tensor) -> None:
        """sqrt(v0) of each sample: rms of its own data prediction at the front (of its state, without a schedule)."""
        at, row = self.history - 1, rows[self.history - 1]
        table, state = self.table, self.state
        data = (state.f[at] - table.p[row][:, None] * state.ref[at]) / table.q[row][:, None]
        data = data if table.scheduled else state.z[at]
        rms = data.square().mean(1).sqrt()
        self.unit[self.active] = torch.where(rms > 0, rms, self.unit[self.active])

    def advance(self, facts: Facts, view: View, accepted: Tensor) -> None:
        """Book what was accepted, let finished samples go, move the windows."""
        state, history = self.state, self.history
        rows = rows_of(state, history)
        self._book(rows, facts, view, accepted)
        arrived = state.front + accepted >= self.last
        if bool((arrived | facts.broken).any()):
            at = (history - 1 + accepted, torch.arange(len(self.active), device=accepted.device))
            final, best = state.z[at], preview(self.state, self.table, self.history, self.ledger.answers[self.active])
            self.ledger.close(self.active[arrived], final[arrived], Status.CONVERGED)
            self.ledger.contribute(self.active[facts.broken], torch.full_like(view.unit[facts.broken], torch.inf))
            self.ledger.close(self.active[facts.broken], best[facts.broken], Status.NON_FINITE)
            stay = (~(arrived | facts.broken)).nonzero().flatten()
            state.keep(stay)
            self.active, self.swept, self.limit = self.active[stay], self.swept[stay], self.limit[stay]
            self.moved, accepted, steepest = self.moved[:, stay], accepted[stay], facts.steepest[:, stay]
        else:
            steepest = facts.steepest
        longest = int(accepted.max()) if len(self.active) else 0
        if not longest:
            return
        column = torch.arange(len(self.active), device=accepted.device)
        settled = steepest[(history - 2 + accepted).clamp(min=0), column]
        state.steepest = torch.where(accepted > 0, settled, state.steepest)
        index = (self.positions + accepted).clamp(max=len(self.positions) - 1)
        self.moved = self.moved[index, column]
        state.shift(accepted, history)
        self.swept = torch.where(accepted > 0, 0, self.swept)
        renewed = self.table.limits(state.front, self.solver.window)
        # What enters are the rows after the old limit, not just the free positions: a window may be shorter than the
        # widest, and rows behind its end hold whatever the spans of other samples made of them.
        entering = torch.where(accepted > 0, history + self.limit - state.front, len(self.positions))
        self.limit = torch.where(accepted > 0, renewed, self.limit)
        self.enter(entering.clamp(max=len(self.positions)))

    def _book(self, rows: Tensor, facts: Facts, view: View, accepted: Tensor) -> None:
        """Contributions to the error, checks for later, rows of the trajectory."""
        history, state, table = self.history, self.state, self.table
        first, stop = history - 1, history - 1 + len(view.effect)
        inner = self.positions[first:stop] < first + accepted  # nodes whose outputs are now final
        inner[0] = False  # the front's output is its own
        row = rows[first:stop]
        if not self.solver.verify:
            predicted = torch.where(inner, view.effect, 0.0) / view.unit
            samples = self.active.expand_as(predicted)
            self.ledger.contribute(samples.flatten(), predicted.flatten())
        else:
            stride = max(1, self.nodes // self.solver.verify)
            wait = (
                inner
                & table.node[row]
                & self.moved[first:stop]
                & (table.before[row.clamp(max=self.last)] % stride == 0)
            )
            which = wait.nonzero(as_tuple=True)
            if len(which[0]):
                at = (which[0] + first, which[1])
                weight = stride * (view.weight / view.unit)[which].double()
                check = Check(
                    x=state.z[at], out=state.out[at], row=row[which], sample=self.active[which[1]], weight=weight
                )
                self.ledger.checks.append(check)
        if self.ledger.trajectory is not None:
            settled = (self.positions >= history) & (self.positions < history + accepted)
            which = settled.nonzero(as_tuple=True)
            self.ledger.trajectory[self.active[which[1]], rows[which]] = state.z[which]

    def enter(self, entering: Tensor) -> None:
        """Fill the positions of each sample from ``entering`` on."""
        state, table, history = self.state, self.table, self.history
        first = int(entering.min())
        if first == len(self.positions):
            return
        rows = rows_of(state, history)
        if self.width > 1:  # a window of one node is never guessed
            continue_references(state, table, rows, history, self.solver.slopes.measured, first - 1)
        late = rows[first:]
        fill = (entering <= self.positions[first:]).unsqueeze(-1)
        if table.noisy:
            terms = torch.zeros_like(state.noise[first:])
            for lag, weight in table.c.items():
                columns = (late - lag).clamp(0, self.last).T
                drawn = self.noise.draw(self.active, columns).flatten(2).transpose(0, 1).to(terms)
                terms = terms + weight[late].unsqueeze(-1) * drawn
            state.noise[first:] = torch.where(fill, terms, state.noise[first:])
            self.noise.release(int(state.front.min()))
        before = state.z[entering - 1, torch.arange(len(entering), device=entering.device)]
        guessed = self.solver.guess.states(self.active, late.clamp(max=self.last), before)
        if guessed is None:
            together = bool((entering == first).all())
            march(state, table, rows, first, len(self.positions), None if together else entering)
        else:
            state.z[first:] = torch.where(fill, guessed.to(state.z), state.z[first:])
        self.moved = self.moved | (self.positions >= entering)

    def give_up(self, status: Status) -> None:
        """Enter the best answer so far of samples that are still running, with the error that its nodes still have."""
        if not len(self.active):
            return
        last = last_rows(self.state, self.history, self.limit, self.last)
        reached = torch.isfinite(last).all(1)
        early = preview(self.state, self.table, self.history, self.ledger.answers[self.active])
        self.ledger.contribute(self.active, torch.where(reached, self.left[self.active], torch.inf))
        self.ledger.close(self.active, torch.where(reached[:, None], last, early), status)

    def outcome(self) -> Outcome:
        """Everything the machine needs to make a solution."""
        trajectory = self.ledger.trajectory
        return Outcome(
            samples=self.ledger.answers.unflatten(1, self.shape),
            status=tuple(status or Status.BUDGET_EXHAUSTED for status in self.ledger.status),
            error=self.ledger.error().to(self.unit.dtype),
            rounds=tuple(self.ledger.rounds.tolist()),
            window=self.widest,
            certifiable=self.solver.stop.causal,
            trajectory=None if trajectory is None else trajectory.unflatten(2, self.shape),
        )

    def report(self, index: int, accepted: Tensor) -> Round:
        """What a callback sees."""
        settled = torch.full((len(self.ledger.status),), self.nodes, dtype=torch.int64)
        settled[self.active.cpu()] = self.table.before[self.state.front + accepted].cpu()
        previews, answers = self.ledger.answers.clone(), self.ledger.answers.clone()
        previews[self.active] = preview(self.state, self.table, self.history, self.ledger.answers[self.active])
        answers[self.active] = last_rows(self.state, self.history, self.limit, self.last)
        change = self.unit.new_full((len(settled), self.last + 1), torch.nan)
        unit = self.unit[self.active]
        change[self.active] = relative_change(self.state, self.history, self.limit, self.change / unit, self.last)
        return Round(
            index=index,
            evaluations=self.evaluations,
            settled=settled,
            change=change.cpu(),
            preview=previews.unflatten(1, self.shape),
            answer=answers.unflatten(1, self.shape),
        )
