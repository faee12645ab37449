"""One solve in progress."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from paradrift.guesses import Proposal
from paradrift.noise import Noise
from paradrift.solution import Status
from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.base import Request
from paradrift.solvers.drafts import judge, predictions
from paradrift.solvers.entering import enter
from paradrift.solvers.entries import book, record
from paradrift.solvers.ledger import Check, Ledger
from paradrift.solvers.lowered import Lowered, lower
from paradrift.solvers.march import march
from paradrift.solvers.measure import Facts, measure
from paradrift.solvers.reading import last_rows, preview
from paradrift.solvers.references import carry_slopes, continue_references
from paradrift.solvers.solver import Solver
from paradrift.solvers.state import State, Where
from paradrift.solvers.watershed import growing
from paradrift.stopping import View
from paradrift.summing import over_rows
from paradrift.tableau import Tableau
from paradrift.verdicts import Verdict

IGNORED = np.errstate(all="ignore")  # what is not finite is found where outputs are judged


class Run:
    """One solve in progress: the windows, the books, and the four things a round does with them."""

    @IGNORED
    def __init__(
        self,
        table: Tableau,
        start: Tensor,
        noise: Noise,
        solver: Solver,
        variance: float | None,
        keep: bool,
        lead: int | None,
        proposal: Proposal | None = None,
        keep_outputs: bool = False,
    ) -> None:
        self.solver, self.noise, self.variance, self.proposal = solver, noise, variance, proposal
        self.shape, self.nodes, self.last = start.shape[1:], table.nodes, table.rows - 1
        # asked once: protocols take long to ask
        self.verdict = solver.stop if isinstance(solver.stop, Verdict) else None
        self.stop = None if isinstance(solver.stop, Verdict) else solver.stop
        self.verify = 0 if self.verdict else solver.verify  # a verdict has measured every defect that it lets stand
        flat, self.dtype = start.flatten(1), start.dtype
        # verdicts judge tensors
        self.host = arrays.few(flat) and self.verdict is None
        # One row of history more than the table reaches back: entering nodes continue the last evaluated node.
        self.history = table.reach + 1
        nodes = torch.arange(table.nodes)
        ends = solver.window.limit(nodes, table.nodes)
        of_node = torch.tensor([*table.evaluated.nonzero()[0].tolist(), self.last])
        ready = int(of_node[0])
        self.width = max(ready, int((of_node[ends] - of_node[:-1]).max()))
        self.evaluations = 0
        self.widest = int((ends - nodes).max())
        self.lead = None if lead is None else lead * self.width
        pad = self.history + self.width + 1
        lawful = table.noisy and (self.stop is None or self.stop.causal)
        like = start.dtype, start.device
        self.table: Lowered = lower(table, solver.slopes, variance or 1.0, self.verify, pad, *like, lawful, self.host)
        # without noise nothing must stay causal: defects count with what they grow to along the window
        self.ahead = table.alpha is not None and not table.noisy and solver.slopes.measured and self.stop is not None
        groups = solver.slopes.groups
        self.groups = None if groups is None else arrays.of(groups.flatten().to(start.device), self.host)
        begin = State.begin(flat, self.history, self.width, per_element=groups is not None)
        self.state = begin.held(self.host)
        self.ledger = Ledger.open(
            flat,
            table.rows if keep else 0,
            table.rows if keep_outputs else 0,
            table.nodes if self.verdict else 0,
            self.host,
        )
        xp, front = arrays.library(self.state.front), self.state.front
        self.active = arrays.steps(0, len(flat), front)[:, 0]
        self.swept, self.turn = xp.zeros_like(front), xp.zeros_like(front)
        self.positions = arrays.steps(0, len(self.state.known), front)
        self.here = self.table.at(front, self.positions - (self.history - 1))
        self.limit = self.table.limits(front, solver.window)
        self.moved = xp.ones_like(self.state.known)
        self.marched = xp.zeros_like(self.state.known)  # rows computed from outputs, not merely guessed
        self.unit = xp.full_like(self.state.steepest, 1.0 if variance is None else variance**0.5)
        self.judged: tuple[Values, View] | None = None  # the last verdict, and the samples that it was about
        enter(self, xp.full_like(front, self.history))
        if ready:  # rows before the first node (a start that is churned, say) need no model: they are exact
            march(self.state, self.here, self.history, self.history + ready, None)
            accepted = xp.full_like(front, ready)
            self.limit = self.state.front + ready
            record(self, accepted)
            self._move(accepted)

    @IGNORED
    def request(self, x: Values, row: Values, sample: Values) -> Request:
        """Rows as the model wants them: scaled, in the sample's shape; counted."""
        self.evaluations += len(row)
        x, t, sample, row = (
            arrays.tensor(values) for values in (x * self.table.scale[row][:, None], self.table.t[row], sample, row)
        )
        return Request(x=x.unflatten(1, self.shape), t=t, sample=sample, node=row)

    def ask(self) -> tuple[Request | None, Where, Check | None]:
        """What to evaluate next: nodes inside their windows that moved, and accepted nodes that wait."""
        first, rows = self.history - 1, self.here.row
        need = self.here.node & (rows < self.limit) & (~self.state.known | self.moved)
        need[:first] = False
        if self.lead is not None:
            need &= ~self._waiting(self.lead)
        where: Where = (slice(first, len(rows) - 1), slice(None))
        if not bool(need[where].all()):
            where = arrays.places(need)
        xp, z = arrays.library(rows), self.state.z
        x, row = z[where].reshape(-1, z.shape[-1]), rows[where].flatten()
        sample = xp.broadcast_to(self.active, rows.shape)[where].flatten()
        check = self.ledger.take_checks()
        if check is not None:
            x, row, sample = (xp.concatenate(pair) for pair in ((x, check.x), (row, check.row), (sample, check.sample)))
        if not len(row):
            return None, where, None
        self.ledger.rounds[self.active] += 1
        return self.request(x, row, sample), where, check

    def _waiting(self, lead: int) -> Values:
        """Samples that must let the slowest catch up, shape (S,)."""
        front = self.state.front
        return front > front.min() + lead if len(front) else front > 0

    @IGNORED
    def receive(self, answer: Tensor, check: Check | None) -> Values:
        """Split an answer: verified nodes go to the books, the rest is returned."""
        outputs = arrays.of(answer.flatten(1).to(self.dtype), self.host)
        if check is None:
            return outputs
        fresh = len(outputs) - len(check.row)
        self.ledger.verify(check, outputs[fresh:])
        return outputs[:fresh]

    @IGNORED
    def digest(self, where: Where, outputs: Values) -> tuple[Facts, View, Values]:
        """Learn from the outputs, march, and judge."""
        state, here, history, xp = self.state, self.here, self.history, arrays.library(outputs)
        secants, scheduled = self.solver.slopes.measured, self.table.scheduled
        drafted = predictions(state) if self.verdict else None
        facts = measure(
            state,
            here,
            where,
            outputs.reshape(state.z[where].shape),
            variance=self.variance or 1.0,
            groups=self.groups,
            bounds=self.solver.slopes.bounds,
            secants=secants,
            history=history,
        )
        if secants and scheduled and self.width > 1:
            carry_slopes(state, here, facts.nearest, history - 1)
        if facts.spoiled:
            continue_references(state, here, history - 1, secants, scheduled)
        if self.variance is None:
            self._update_unit()
        old = arrays.copy(state.z)
        span = self.limit - state.front
        stop = history + int(span.max())
        held = facts.broken if self.lead is None else facts.broken | self._waiting(self.lead)
        judged = None
        if self.verdict is not None and drafted is not None:
            # a window of one node drafts nothing: it is the sequential sampler
            may = self.marched[history:stop] & ~held & (self.widest > 1)
            judged = judge(self.verdict, state, here, self.table, self.ledger, drafted, self.active, span, history, may)
        march(state, here, history, stop, None if judged is None else history + judged.kept)
        self.marched[history:stop] = True
        self.change = arrays.norm(state.z - old) / old.shape[-1] ** 0.5
        self.moved = self.change != 0
        self.swept = self.swept + 1
        nodes = slice(history - 1, stop - 1)
        level, change = here.levels(nodes), self.change[nodes]
        drift = facts.rest[nodes] * change / abs(level.gain)
        weight = self.table.influence[facts.level[nodes], here.row[nodes]]
        if self.ahead:
            levels = here.levels(slice(history - 1, stop))
            grown = growing(state.slope[nodes], state.rest[nodes], levels, old.shape[-1])
            weight = weight if grown is None else weight * grown
        effect = xp.where(here.node[nodes], weight * xp.maximum(facts.miss[nodes], drift), 0.0)
        if judged is not None:
            effect = xp.where(self.positions[: len(effect)] == judged.kept, 0.0, effect)  # its step is exact
        ends = self.limit == self.last
        moved = self.change[arrays.at(history - 1 + span)]
        view = View(
            effect=effect,
            weight=weight,
            change=change,
            posterior=level.posterior,
            unit=self.unit[self.active],
            span=span,
            swept=self.swept,
            turn=self.turn,
            nodes=self.nodes,
            last=ends,
            moved=xp.where(ends, moved, math.inf),
            noisy=self.table.noisy,
        )
        self.judged = self.active, view
        if self.stop is None:
            return facts, view, xp.where(held, 0, judged.settled if judged else 0)
        accepted = xp.where(held, 0, arrays.as_in(self.stop.accept(_told(view)), span))
        for _ in range(self.table.gap):  # a front must be a node, or the answer
            front = arrays.at(history - 1 + accepted)
            accepted = accepted + ((accepted > 0) & ~here.node[front] & (here.row[front] < self.limit))
        return facts, view, accepted

    def _update_unit(self) -> None:
        """sqrt(v0) of each sample: rms of its own data prediction at the front (of its state, without a schedule)."""
        at, state = self.history - 1, self.state
        level = self.here.levels(at, slice(None), None)
        data = (state.f[at] - level.p * state.ref[at]) / level.q if self.table.scheduled else state.z[at]
        rms = arrays.as_in(arrays.tensor(data).square().mean(1).sqrt(), data)
        self.unit[self.active] = arrays.library(rms).where(rms > 0, rms, self.unit[self.active])

    @IGNORED
    def advance(self, facts: Facts, view: View, accepted: Values) -> None:
        """Book what was accepted, let finished samples go, move the windows."""
        state, history, xp = self.state, self.history, arrays.library(accepted)
        book(self, view, accepted)
        record(self, accepted)
        arrived = state.front + accepted >= self.last
        if bool((arrived | facts.broken).any()):
            final, best = state.z[arrays.at(history - 1 + accepted)], self.preview()
            self.ledger.close(self.active[arrived], final[arrived], Status.CONVERGED)
            self.ledger.contribute(self.active[facts.broken], xp.full_like(view.unit[facts.broken], math.inf))
            self.ledger.close(self.active[facts.broken], best[facts.broken], Status.NON_FINITE)
            stay = self._keep(~(arrived | facts.broken))
            accepted, steepest = accepted[stay], facts.steepest[:, stay]
        else:
            steepest = facts.steepest
        if not len(self.active) or not bool(accepted.any()):
            return
        settled = steepest[arrays.at(arrays.clip(history - 2 + accepted, low=0))]
        state.steepest = xp.where(accepted > 0, settled, state.steepest)
        self.turn = self.turn + (accepted > 0)
        self._move(accepted)

    @IGNORED
    def dismiss(self, which: Tensor) -> None:
        """Let samples go that need not be solved to the end, with the best answer so far.

        Args:
            which: Those of all samples, shape (S,), bool.
        """
        gone = arrays.of(which, self.host)[self.active]
        if bool(gone.any()):
            missing = arrays.library(gone).full_like(self.unit[self.active[gone]], math.inf)
            self.ledger.contribute(self.active[gone], missing)
            self.ledger.close(self.active[gone], self.preview()[gone], Status.BUDGET_EXHAUSTED)
            self._keep(~gone)

    def _keep(self, which: Values) -> Values:
        """Keep some of the active samples; returns their indices."""
        (stay,) = arrays.places(which)
        self.state.keep(stay)
        self.here = self.table.at(self.state.front, self.positions - (self.history - 1))
        self.active, self.limit = self.active[stay], self.limit[stay]
        self.swept, self.turn = self.swept[stay], self.turn[stay]
        self.moved, self.marched = self.moved[:, stay], self.marched[:, stay]
        return stay

    def _move(self, accepted: Values) -> None:
        """Move the windows over settled rows, and fill what enters."""
        state, xp = self.state, arrays.library(accepted)
        later = arrays.at(arrays.clip(self.positions + accepted, high=len(self.positions) - 1))
        self.moved, self.marched = self.moved[later], self.marched[later]
        state.shift(accepted, self.history)
        self.here = self.table.at(state.front, self.positions - (self.history - 1))
        self.swept = xp.where(accepted > 0, 0, self.swept)
        renewed = self.table.limits(state.front, self.solver.window)
        # What enters are the rows after the old limit, not just the free positions: a window may be shorter than the
        # widest, and rows behind its end hold whatever the spans of other samples made of them.
        begin = self.history + self.limit - state.front
        if self.verdict is not None and not self.verdict.refine:  # what was learned at drafts is forgotten
            begin = xp.full_like(begin, self.history)
            state.known[self.history - 1 :] &= accepted == 0
            measured, scheduled = self.solver.slopes.measured, self.table.scheduled
            continue_references(state, self.here, self.history - 1, measured, scheduled)
        entering = xp.where(accepted > 0, begin, len(self.positions))
        self.limit = xp.where(accepted > 0, renewed, self.limit)
        enter(self, arrays.clip(entering, high=len(self.positions)))

    @IGNORED
    def give_up(self, status: Status) -> None:
        """Enter the best answer so far of samples that are still running, with the error that its nodes still have."""
        if not len(self.active):
            return
        xp, left = arrays.library(self.unit), arrays.library(self.unit).full_like(self.unit, math.inf)
        if self.judged is not None:
            samples, view = self.judged
            inside = self.positions[: len(view.effect)] < view.span
            total = over_rows(xp.where(inside, view.effect, 0.0)) / view.unit
            left[samples] = xp.where(view.last, total, math.inf)
        last = last_rows(self.state, self.history, self.limit, self.last)
        reached = xp.isfinite(last).all(1)
        self.ledger.contribute(self.active, xp.where(reached, left[self.active], math.inf))
        self.ledger.close(self.active, xp.where(reached[:, None], last, self.preview()), status)

    def preview(self) -> Values:
        """The most advanced data prediction of each active sample, shape (S, D)."""
        otherwise = self.ledger.answers[self.active]
        return preview(self.state, self.here, self.history, self.table.scheduled, otherwise)


def _told(view: View) -> View:
    """What a stop is shown: tensors."""
    names = ("effect", "weight", "change", "posterior", "unit", "span", "swept", "turn", "last", "moved")
    return dataclasses.replace(view, **{name: arrays.tensor(getattr(view, name)) for name in names})
