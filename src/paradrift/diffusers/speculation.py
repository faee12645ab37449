r"""Speculative replay: any program that calls networks one after the other, parallel in time, unchanged.

The program itself is the recurrence. It is run with its networks replaced: call k is answered with what is known of it,
the surrogate of :mod:`paradrift.diffusers.calls`, and its arguments are written down, with the arithmetic in between on
a :mod:`tape <paradrift.diffusers.tape>`. On the tape all calls are settled in a few rounds of batched evaluations; then
the program starts again from the top, its random states and its objects put back, and every call that comes with the
arguments of its evaluation is answered with its result. Where there is no tape, one round is made before each start.

The first unsettled call has exact arguments, so each round settles at least one: there are no more rounds than the
program has calls, but where a second pass is needed to keep the tolerance, or a network loses its numbers. Nothing
needs to be known of the program but that it can be run again, that its networks are functions of their arguments, and
that their calls can be merged; all three are checked while it runs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from paradrift.diffusers.evaluation import Evaluator, evaluator
from paradrift.diffusers.forecast import Forecast
from paradrift.diffusers.guards import Guards, refuse_caches
from paradrift.diffusers.guards import settings as settings_of
from paradrift.diffusers.ledger import Ledger
from paradrift.diffusers.lending import borrow
from paradrift.diffusers.pace import Pace
from paradrift.diffusers.patching import Patches
from paradrift.diffusers.settings import Settings
from paradrift.diffusers.snapshot import Attributes, Processors, Randomness
from paradrift.diffusers.stats import ReplayStats
from paradrift.diffusers.visits import Visits
from paradrift.errors import Refused, SpecError

SHARED = 50  # steps that share the tolerance; where there are more, their errors are smaller, or forgotten
LONG = 32  # calls that are expected to come, where nothing says how many


class _Pause(BaseException):
    """Unwinds the program; not an Exception, because programs catch those."""


@dataclass(kw_only=True)
class Replay:
    """A program in the course of being replayed.

    Args:
        modules: The networks, by name.
        settings: How.
        objects: Objects whose attributes the program changes, and which are put back before each execution.
        barriers: Methods that must see settled values only, each run once: owner and name of the method.
        observe: Called with the number of settled calls whenever one is settled.

    Raises:
        SpecError: if there are no networks.
    """

    modules: Mapping[str, nn.Module]
    settings: Settings
    objects: Sequence[Any] = ()
    barriers: Sequence[tuple[Any, str]] = ()
    observe: Callable[[int], None] = lambda settled: None
    stats: ReplayStats = field(default_factory=ReplayStats)
    _ledger: Ledger = field(default_factory=Ledger)
    _visits: Visits = field(default_factory=Visits)
    _pending: list[int] = field(default_factory=list)
    _generators: list[torch.Generator] = field(default_factory=list)
    _forecast: Forecast = field(init=False)
    _pace: Pace = field(init=False)
    _evaluator: Evaluator = field(init=False)
    _guards: Guards = field(init=False)
    _last: int | None = None  # calls that the program makes, where that is known and nothing follows them
    _exact: int | None = None  # the first call of the last round, whose arguments must come again
    _ended: bool = False  # whether an execution has come to its end, so that all calls are known
    _inside: bool = False

    def __post_init__(self) -> None:
        if not self.modules:
            raise SpecError("expected at least one network to replay, found none: name them with modules={...}")
        self._pace = Pace(modules=self.modules, window=self.settings.window, largest=self.settings.max_rows)
        if self.settings.single and self.settings.window is None:
            self._pace.stop("each is to be evaluated alone")
        self._forecast = Forecast(
            ledger=self._ledger,
            tol=self.settings.tol,
            estimable=self._estimable,
            observe=lambda settled: self.observe(settled),  # which may be given later
        )

    def run(self, program: Callable[[], Any], generators: Sequence[torch.Generator] = ()) -> Any:  # noqa: ANN401
        """Run a program to its end.

        Args:
            program: The program; run several times.
            generators: Generators that it draws from.

        Returns:
            What it returns.

        Raises:
            Refused: if it cannot be replayed.
        """
        begin = time.perf_counter()
        refuse_caches(self.modules)
        self._generators = list(generators)
        random, before = Randomness.take(generators), Attributes.take(self.objects)
        processors, self._guards = Processors.take(self.modules.values()), Guards.take(self.modules)
        self._evaluator, done = evaluator(self.modules, self.settings, self._pace, self.stats), False
        try:
            while True:
                result = self._execute(program)
                if not self._pending:
                    self._ledger.end()
                    done = True
                    return result
                random.put_back()
                before.put_back()
                processors.put_back()
        finally:
            if not done:  # an exception, an interrupt, a refusal: everything as it was
                self._guards.put_back()
                processors.put_back()
                random.put_back()
                before.put_back()
            self._report(time.perf_counter() - begin)

    def visit(self, call: Callable[[], Any], owner: Any = None, *, skip: bool = False, sees: Any = None) -> Any:  # noqa: ANN401
        """Something that must happen once, with settled values: a text encoder, a decoder, a user's callback.

        Args:
            call: What to do.
            owner: An object whose attributes it may change, replayed too.
            skip: Whether to leave it out while values are not settled, instead of settling them.
            sees: What it is given.

        Returns:
            What it returned; the same again in later executions.

        Raises:
            _Pause: to settle the values first.
        """
        if self._inside:
            return call()
        if self._visits.again:
            return self._visits.recall(owner, sees)
        if self._pending:
            if skip:
                self._forecast.give_up("what it does after a callback is not known before that has seen its step")
                return {}
            self._forecast.finished(sees)
            self._ended = True
            self._flush()
            raise _Pause
        before = settings_of(self.modules) if skip else []
        self._inside = True
        try:
            return self._visits.make(call, owner, sees, lambda: Randomness.take(self._generators))
        finally:
            self._inside = False
            if skip and settings_of(self.modules) != before:  # a callback has changed a network
                self._ledger.doubt()
                for batcher in self._evaluator.batchers.values():
                    batcher.known.clear()

    def _execute(self, program: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Run the program once; nothing is pending afterwards if it came to its end with settled values."""
        self._ledger.again()
        self._visits.position, self._pending = 0, []
        self.stats.executions += 1
        try:
            with self._patched():
                result = program()
        except _Pause:
            return None
        except Exception as error:
            if isinstance(error, Refused) or not self._pending:
                raise
            # Perhaps it met a speculative value: if not, it comes again, with values ever more exact.
            if self._forecast.given_up is None:
                self._forecast.give_up(f"the program raised {type(error).__name__} over its first guesses")
            else:
                self._pace.stop(f"the program raised {type(error).__name__} over guesses again")
            return None
        finally:
            self._forecast.stop()
        if self._pending:
            # What is pending must be evaluated inside the program, whose settings (attention processors, contexts)
            # hold there alone: next time the first pending call does it, or without a tape the last.
            self._last, self._ended = self._ledger.position, True
            self._forecast.finished(result)
        return result

    def _answer(self, name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if self._inside:
            return self._evaluator.batchers[name].forward(*args, **kwargs)
        answer = self._ledger.passed()
        if answer is not None:
            return answer
        self._forecast.pause()
        number, raw = self._ledger.arrive(name, args, kwargs)
        if number < self._ledger.front:
            return self._ledger.cells[number].settled().hand()
        self._guards.check()
        if not self._pending and self._comes_settled(number):
            answer = self._ledger.settle(number)
            self.observe(max(number + 1, self._forecast.settled))
            return answer
        if not borrow(self._ledger.cells, number):
            self._flush()  # nothing to answer with: settle what is before
            raise _Pause
        return self._speculated(number, raw)

    def _comes_settled(self, number: int) -> bool:
        """The first unsettled call: its arguments are exact, and come again."""
        cells, cell, width = self._ledger.cells, self._ledger.cells[number], self._width(number)
        if number == self._exact and cell.lost != 1 and cell.moved() > 0:
            raise self._ledger.unrepeatable(number)
        first = cell.known is None and not borrow(cells, number)
        if first or (width == 1 and cell.moved() > self._allowed()):
            try:
                self._evaluator.round(cells, [number], _nowhere)
            except (RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                # If it is the network's own, the plain run says so too.
                raise Refused(
                    f"expected call {number} of {cell.signature.module} to be answered by itself, found "
                    f"{type(error).__name__}, {error}: it seems to depend on the calls before; run the program plainly"
                ) from error
        elif number < self._forecast.settled and cell.moved() > self._allowed():
            self._forecast.give_up("the program computes other arguments than its tape")
        return cell.moved() <= self._allowed()

    def _speculated(self, number: int, raw: Any) -> Any:  # noqa: ANN401
        """A call whose arguments depend on guesses."""
        forecast, front = self._forecast, self._ledger.front
        if self._pending:
            forecast.called(number, raw)
        elif forecast.ready(number):
            self._pending = [number]
            self._flush()
            raise _Pause
        else:
            forecast.begin(number)
        self._pending.append(number)
        width = self._width(front)
        last = forecast.given_up is not None and number + 1 == self._last
        if last or (not forecast.taping and number + 1 - front >= width):
            self._flush()
            raise _Pause
        cell = self._ledger.cells[number]
        answer = cell.answer(cell.leaves)
        forecast.answered(number, answer, width)
        return answer

    def _flush(self) -> None:
        """Settle what is pending as far as possible: on the tape, or else by one round."""
        exact, self._exact = self._pending[0] if self._pending else None, None  # until that is evaluated
        if self._forecast.solve(self._evaluator, self._width, self._allowed()):
            self._exact = exact
            return
        # A tape that broke late has come further than the window, and let go of arguments there.
        cells, window = self._ledger.cells, self._pending[: self._width(self._pending[0])] if self._pending else []
        need = [number for number in window if cells[number].moved() > self._allowed()]
        if need:
            self._evaluator.round(cells, need, _nowhere)
        self._exact = exact

    def _steps(self) -> int:
        """Steps of the schedulers; read when needed, because programs set them late."""
        listed = [getattr(each, "timesteps", None) for each in self.objects]
        return max((len(times) for times in listed if times is not None), default=0)

    def _estimable(self) -> bool:
        """Not where networks predict data."""
        configs = [getattr(each, "config", None) for each in self.objects]
        return all(config.get("prediction_type") != "sample" for config in configs if isinstance(config, Mapping))

    def _width(self, number: int) -> int:
        cells, steps = self._ledger.cells, self._steps()
        if not steps and not self._ended:  # nobody knows yet how many calls will come
            steps = number + LONG
        return self._pace.width(self._ledger.shares, max(len(cells), steps) - number)

    def _allowed(self) -> float:
        """How far arguments may be: errors of some steps add up like independent ones; rounding is no distance."""
        tol, cells = self.settings.tol, self._ledger.cells
        shared = min(self._steps() or len(cells), SHARED)
        return max(tol / shared**0.5, cells[0].signature.epsilon if tol > 0 else 0.0)

    def _report(self, seconds: float) -> None:
        cells = self._ledger.cells
        self.stats.calls, self.stats.settled, self.stats.seconds = len(cells), self._ledger.front, seconds
        self.stats.plan, self.stats.sequential_seconds = self._pace.plan, self._pace.sequential(cells)
        self.stats.untaped, self.stats.error_bound = self._forecast.given_up, self._forecast.bound(self._evaluator)
        self.stats.unbatchable = tuple(
            name for name, batcher in self._evaluator.batchers.items() if None in batcher.ways.values()
        )

    @contextmanager
    def _patched(self) -> Iterator[None]:
        """Once for each execution: programs may renew what is set on their networks (offloading hooks)."""
        with Patches() as patches:
            for name, module in self.modules.items():
                patches.forward(module, functools.partial(self._answer, name))
            for owner, method in self.barriers:
                patches.put(owner, method, self._barrier(getattr(owner, method)))
            yield

    def _barrier(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return self.visit(lambda: original(*args, **kwargs), sees=(args, kwargs))

        return method


def _nowhere(call: int) -> dict[int, tuple[int, int]]:
    """Without a tape nobody knows where arguments come from."""
    del call
    return {}
