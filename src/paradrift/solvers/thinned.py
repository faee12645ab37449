r"""Solve a chain at fewer nodes than it has, and at more of them where those do not do.

A sample begins with as many nodes as its tolerance needs (:mod:`paradrift.nodes`): the thinned chain is a table like
any other, interpolated without noise (:mod:`paradrift.thinning`) and averaged with it (:mod:`paradrift.averaging`), and
the sweep solves it. Its outputs, with noise a few more, tell how far it is off. Where that is more than a share of the
tolerance, the sample goes on with a finer chain, from the path that it has found, and at last with the whole one:
nothing is settled that is not either asked or known to be within the tolerance. Models for which a chain is far too
coarse show this after the first rounds; such samples do not wait until their thinned chain has settled.

Each sample goes its own way, so its answer does not depend on its batch mates; the rounds of all stages are asked
together (:mod:`paradrift.solvers.together`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator

import numpy as np
import torch
from torch import Tensor

from paradrift.guesses import Guess
from paradrift.noise import Chosen, Noise
from paradrift.solution import Round, Status
from paradrift.solvers.base import Interrupted, Outcome, Request, Solving
from paradrift.solvers.progress import Progress
from paradrift.solvers.proposals import Mapped, Proposed
from paradrift.solvers.skipping import Skipping, Wanted, begin, rows_of, skipping
from paradrift.solvers.solver import Solver
from paradrift.solvers.sweep import sweep
from paradrift.solvers.together import Stage, joined, together
from paradrift.stopping import Tolerance
from paradrift.tableau import Tableau

LARGEST = 0.25  # tolerance: cubics that are further apart say nothing, as they are about small errors
LEVELS = 128  # data predictions that are proposed to a finer chain, at most


def thinned(  # noqa: DOC403, DOC405
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
    """Solve a chain for a batch of samples, thinned where that is possible; see :func:`paradrift.solvers.sweep.sweep`.

    Args:
        table: The sampler's table, for outputs of the form of the model.
        start: Starting states, already scaled, shape (S, *shape).
        noise: Where noises come from; a thinned chain asks for some of them more than once.
        solver: The choices.
        variance: Data variance per element v0; None to take the mean square of each sample's own data prediction.
        keep: Whether to keep all rows; those that were skipped follow from the outputs that were asked. With noise they
            have no certificate: see :func:`paradrift.solvers.skipping.able`.
        lead: Windows that a sample may be ahead of the slowest.
        observe: Called after each round.

    Yields:
        Requests, one a round.

    Returns:
        The outcome.
    """
    count, stop = begin(table, solver), solver.stop
    if count == table.nodes or not isinstance(stop, Tolerance):
        whole = sweep(table, start, noise, solver, variance=variance, keep=keep, lead=lead, observe=observe)
        return (yield from whole)
    solve = _Solve(table, start, noise, solver, stop, variance, keep, Progress(table, start, observe))
    everyone = torch.arange(len(start), device=start.device)
    yield from together([solve.thin(everyone, count, solver.guess)], solve.told)
    return solve.outcome()


class _Solve:
    """One solve in progress: the books of all samples, and the stages that they go through."""

    def __init__(
        self,
        table: Tableau,
        start: Tensor,
        noise: Noise,
        solver: Solver,
        stop: Tolerance,
        variance: float | None,
        keep: bool,
        progress: Progress,
    ) -> None:
        self.table, self.start, self.noise, self.solver, self.stop = table, start, noise, solver, stop
        self.variance, self.keep, self.progress = variance, keep, progress
        self.rounds = self.evaluations = self.window = 0
        self.answers = start.clone()
        self.status = [Status.INTERRUPTED] * len(start)
        self.error = torch.full((len(start),), torch.inf, dtype=torch.float64, device=start.device)
        self.took = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        path = (len(start), table.rows, *start.shape[1:])
        self.path = start.new_full(path, torch.nan) if keep else None

    def told(self, request: Request | None) -> None:
        """A round has ended, and another begins."""
        self.progress.tell(self.rounds, self.evaluations)
        if request is not None:
            self.rounds += 1
            self.evaluations += len(request.t)

    def thin(self, samples: Tensor, count: int, guess: Guess, again: bool = False) -> Stage:
        """Solve a thinned chain, keep the samples that it does for, and send the others on.

        With ``again`` they have left another thinned chain early: if they leave this one early, too, all nodes follow.
        """
        start, noise, nodes = self.start[samples], Chosen(self.noise, samples), self.table.nodes
        trace = skipping(self.table, count, start, noise, self.variance)
        rows = torch.as_tensor(trace.rows, device=samples.device)
        choice, tol = self.solver.nodes, self.stop.tol
        allowed = choice.share * (tol if self.table.noisy else min(tol, LARGEST))
        seen, gone = torch.zeros_like(samples, dtype=torch.bool), torch.zeros_like(samples, dtype=torch.bool)

        def dismissed() -> Tensor:
            """Samples whose first outputs say that this chain is too coarse."""
            fresh = ~(seen | gone)
            if not bool(fresh.any()):
                return fresh
            hopeless = fresh & trace.known() & ~(trace.doubts() <= allowed)
            seen.logical_or_(trace.final())
            gone.logical_or_(hopeless)
            return hopeless

        # averages have seen later noises: no certificate is lost where the answer itself ends the solve
        stop = dataclasses.replace(self.stop, finish=True) if self.table.noisy else self.stop
        solver = dataclasses.replace(self._solver(Mapped(guess, samples, rows), verify=0), stop=stop)
        solving = sweep(
            trace.table,
            start,
            trace.noise,
            solver,
            variance=self.variance,
            keep=True,
            observe=self.progress.of(samples, rows),
            keep_outputs=True,
            dismissed=dismissed,
        )
        outcome = yield from _asking(solving, samples, rows, trace)
        trace.heard.take(outcome)
        unsettled = torch.tensor([one is not Status.CONVERGED for one in outcome.status], device=samples.device)
        ended = ~unsettled
        if not self._spent() and Status.INTERRUPTED not in outcome.status and bool(ended.any()):
            yield from self._beside(trace.wanted(ended), samples)
        doubt, answers = trace.doubts(), self._book(samples, outcome)
        self.error[samples] += doubt
        good = ended & trace.final() & (doubt <= allowed)
        stages: list[Stage] = []
        if bool(good.any()):
            stages.append(self._checked(samples[good], _part(trace, good), answers[good]))
        over = torch.tensor([one in (Status.INTERRUPTED, Status.BUDGET_EXHAUSTED) for one in outcome.status])
        left = ~good & (gone | ~over.to(gone.device))
        ending = Status.BUDGET_EXHAUSTED if self._spent() else Status.INTERRUPTED
        for sample in samples[left].tolist():  # until the next stage ends
            self.status[sample] = ending
        if self._spent():
            return stages
        finer = choice.next(count, nodes, doubt / allowed, self.table.noisy)
        wanted = torch.where((gone & again) | (unsettled & ~gone), nodes, finer)
        for early, trusted in ((gone, None), (~gone, trace)):
            for more in wanted[left & early].unique().tolist():
                which = left & early & (wanted == more)
                stages.append(self._next(samples[which], more, None if trusted is None else _part(trusted, which)))
        return stages

    def _beside(self, more: Wanted | None, samples: Tensor) -> Generator[Request, Tensor, None]:
        """A round of its own for what a trace wants to know."""
        if more is None:
            return
        request, take = more
        self.took[samples[request.sample.unique()]] += 1
        try:
            answer = yield dataclasses.replace(request, sample=samples[request.sample])
        except (Interrupted, KeyboardInterrupt):
            return  # not known: no answer is taken for settled
        take(answer)

    def _next(self, samples: Tensor, count: int, trace: Skipping | None) -> Stage:
        """What samples go on with: from the path of a settled chain, or anew where the first rounds said no."""
        guess: Guess = self.solver.guess
        if trace is not None:
            rows = np.linspace(0, self.table.nodes - 1, min(LEVELS, self.table.nodes)).round().astype(np.int64)
            if count < self.table.nodes:
                rows = rows_of(self.table, count, self.variance)
            guess = Proposed(trace.proposal(rows, count == self.table.nodes))
        if count == self.table.nodes:
            return self._whole(samples, guess)
        return self.thin(samples, count, guess, again=trace is None)

    def _whole(self, samples: Tensor, guess: Guess) -> Stage:
        """Solve the whole chain."""
        rows = torch.arange(self.table.rows, device=samples.device)
        solving = sweep(
            self.table,
            self.start[samples],
            Chosen(self.noise, samples),
            self._solver(Mapped(guess, samples, rows), self.solver.verify),
            variance=self.variance,
            keep=self.keep,
            observe=self.progress.of(samples, rows),
        )
        outcome = yield from _asking(solving, samples, rows, None)
        self._book(samples, outcome)
        if self.path is not None and outcome.trajectory is not None:
            self.path[samples] = outcome.trajectory
        return []

    def _checked(self, samples: Tensor, trace: Skipping, answers: Tensor) -> Stage:
        """Ask once more between the nodes, at the states of the path: the error that is reported."""
        if self.path is not None:
            self.path[samples] = trace.path(answers)
        if not self.solver.verify or self._spent():
            return []
        request, errors = trace.check(self.solver.verify)
        try:
            answer = yield dataclasses.replace(request, sample=samples[request.sample])
        except (Interrupted, KeyboardInterrupt):
            return []  # the answers are settled, and their error predicted
        self.error[samples] = errors(answer)
        self.took[samples] += 1
        return []

    def _solver(self, guess: Guess, verify: int) -> Solver:
        most = self.solver.max_rounds
        left = None if most is None else max(0, most - self.rounds)
        return dataclasses.replace(self.solver, guess=guess, verify=verify, max_rounds=left)

    def _spent(self) -> bool:
        return self.solver.max_rounds is not None and self.rounds >= self.solver.max_rounds

    def _book(self, samples: Tensor, outcome: Outcome) -> Tensor:
        """Enter what a stage has found; returns the answers."""
        self.answers[samples] = outcome.samples
        self.error[samples] = outcome.error.double()
        self.took[samples] += torch.tensor(outcome.rounds, device=samples.device)
        self.window = max(self.window, outcome.window)
        for sample, status in zip(samples.tolist(), outcome.status, strict=True):
            self.status[sample] = status
        return outcome.samples

    def outcome(self) -> Outcome:
        """Everything the machine needs to make a solution."""
        return Outcome(
            samples=self.answers,
            status=tuple(self.status),
            error=self.error.to(self.answers.dtype),
            rounds=tuple(self.took.tolist()),
            window=self.window,
            certifiable=not self.table.noisy,
            trajectory=self.path,
        )


def _part(trace: Skipping, which: Tensor) -> Skipping:
    """A trace of some samples, itself where they are all."""
    return trace if bool(which.all()) else trace.of(which)


def _asking(
    solving: Solving, samples: Tensor, rows: Tensor, trace: Skipping | None
) -> Generator[Request, Tensor, Outcome]:
    """Drive a solver of some samples and some rows of a chain: its requests in the words of all of them.

    What the trace of a thinned chain wants to know besides is asked in the same rounds.
    """
    try:
        request = next(solving)
        while True:
            asked = dataclasses.replace(request, sample=samples[request.sample], node=rows[request.node])
            more = None if trace is None or request.model else trace.wanted(None)
            if more is not None:
                beside = dataclasses.replace(more[0], sample=samples[more[0].sample])
                asked = joined([asked, beside])
            try:
                answer = yield asked
            except (Interrupted, KeyboardInterrupt):
                solving.throw(Interrupted())
                raise RuntimeError("expected an interrupted solver to return") from None
            if more is not None:
                answer, own = answer.split([len(request.t), len(more[0].t)])
                more[1](own)
            if trace is not None and request.model == 0:
                trace.heard.hear(request, answer)
            request = solving.send(answer)
    except StopIteration as end:
        return end.value
