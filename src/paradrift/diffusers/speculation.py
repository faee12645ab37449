r"""Speculative replay: any program that calls networks one after the other, parallel in time, unchanged.

The program itself is the recurrence. It is run with its networks replaced: call k is answered with what is known of it,
the surrogate of :mod:`paradrift.diffusers.calls`, and its arguments are written down, with the arithmetic in between on
a :mod:`tape <paradrift.diffusers.tape>`. On the tape all calls are settled in a few rounds of batched evaluations; then
the program starts again from the top, its random states and its objects put back, and every call that comes with the
arguments of its evaluation is answered with its result. Where there is no tape, one round is made before each start.

The first unsettled call has exact arguments, so each round settles at least one: there are never more rounds than the
program has calls. Nothing needs to be known of the program but that it can be run again, that its networks are
functions of their arguments, and that their calls can be merged; all three are checked while it runs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from paradrift.diffusers.batching import Batcher
from paradrift.diffusers.calls import RECENT, Cell, Leaves, Signature, borrow, signature
from paradrift.diffusers.evaluation import Evaluator
from paradrift.diffusers.guards import Guards, refuse_caches
from paradrift.diffusers.pace import Pace
from paradrift.diffusers.patching import Patches
from paradrift.diffusers.rehearsal import Rehearsal
from paradrift.diffusers.snapshot import Attributes, Processors, Randomness
from paradrift.diffusers.stats import ReplayStats
from paradrift.diffusers.tape import Tape
from paradrift.diffusers.visits import Visits
from paradrift.errors import Refused, SpecError

FILL = 16  # calls in a batch of one size, where neither max_rows nor the window says


class _Pause(BaseException):
    """Unwinds the program; not an Exception, because programs catch those."""


@dataclass(kw_only=True)
class Replay:
    """A program in the course of being replayed.

    Args:
        modules: The networks, by name.
        objects: Objects whose attributes the program changes, and which are put back before each execution.
        barriers: Methods that must see settled values only, each run once: owner and name of the method.
        tol: Tolerance of the final result, relative.
        steps: How many steps share the tolerance; read when needed, because programs set their timesteps late.
        window: Calls beyond the settled ones that are worked on; None to choose by their cost.
        secant: Whether stale calls are answered with secant slopes, or as they are.
        single: Whether every call is evaluated alone; with tol 0 the program's own bits.
        max_rows: Most calls in one batch.
        pad: Whether batches are filled up to one size.
        observe: Called with the number of settled calls whenever one is settled.
    """

    modules: Mapping[str, nn.Module]
    objects: Sequence[Any] = ()
    barriers: Sequence[tuple[Any, str]] = ()
    tol: float = 1e-3
    steps: Callable[[], int] = lambda: 1
    window: int | None = None
    secant: bool = True
    single: bool = False
    max_rows: int | None = None
    pad: bool = False
    observe: Callable[[int], None] = lambda settled: None
    stats: ReplayStats = field(default_factory=ReplayStats)
    front: int = 0
    _pace: Pace = field(init=False)
    _evaluator: Evaluator = field(init=False)
    _position: int = 0
    _last: int | None = None
    _exact: int | None = None
    _inside: bool = False
    _cells: list[Cell] = field(default_factory=list)
    _pending: list[int] = field(default_factory=list)
    _visits: Visits = field(default_factory=Visits)
    _seen: dict[int, tuple[Tensor, int, Tensor]] = field(default_factory=dict)
    _kinds: dict[Signature, Signature] = field(default_factory=dict)
    _generators: list[torch.Generator] = field(default_factory=list)
    _tape: Tape | None = None
    _taping: bool = True
    _rehearsed: int = 0
    _modes: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")
        if self.window is not None and self.window < 1:
            raise SpecError(f"expected a window of at least 1 call, found {self.window}")
        if not self.modules:
            raise SpecError("expected at least one network to replay, found none: name them with modules={...}")
        self._pace = Pace(modules=self.modules, window=self.window)

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
        processors = Processors.take(self.modules.values())
        done = False
        try:
            with self._patched():
                attributes = Attributes.take(self.objects)
                while True:
                    self._position = self._visits.position = 0
                    self._pending, self._seen = [], {}
                    self.stats.executions += 1
                    try:
                        result = self._execute(program)
                        if not self._pending:
                            done = True
                            return result
                    except _Pause:
                        pass
                    except Exception as error:
                        if isinstance(error, Refused) or not self._pending:
                            raise
                        # Perhaps it met a speculative value: if not, it comes again, with values ever more exact.
                        if self._taping:
                            self._give_up_taping(f"the program raised {type(error).__name__} over its first guesses")
                        else:
                            self._pace.window = 1
                    random.put_back()
                    attributes.put_back()
                    processors.put_back()
        finally:
            if not done:  # an exception, an interrupt, a refusal: everything as it was
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
            return self._visits.recall(owner)
        if self._pending:
            if skip:
                return {}
            if self._tape is not None:
                self._tape.finished(pytree.tree_leaves(sees))
            self._flush()
            raise _Pause
        self._inside = True
        try:
            return self._visits.make(call, owner, lambda: Randomness.take(self._generators))
        finally:
            self._inside = False

    def _execute(self, program: Callable[[], Any]) -> Any:  # noqa: ANN401
        try:
            result = program()
        finally:
            self._modes.close()
        if self._pending:
            # What is pending must be evaluated inside the program, whose settings (attention processors, contexts)
            # hold there alone: next time the first pending call does it, or without a tape the last.
            self._last = self._position
            if self._tape is not None:
                self._tape.finished(pytree.tree_leaves(result))
        return result

    def _answer(self, name: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if self._inside:
            return self._evaluator.batchers[name].forward(*args, **kwargs)
        if self._position < self.front - 1:
            self._position += 1
            return self._cells[self._position - 1].settled().hand()
        raw, structure = pytree.tree_flatten((args, kwargs))
        if torch.is_grad_enabled() and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in raw):
            raise Refused(f"expected no gradients through {name}, found an argument that requires one: use no_grad")
        kind = signature(name, raw, structure)
        kind = self._kinds.setdefault(kind, kind)  # one object each, so that comparing costs nothing
        number, self._position = self._position, self._position + 1
        if number < len(self._cells) and self._cells[number].signature is not kind:
            if number < self.front:
                raise Refused(
                    f"expected call {number} of {name} again, found another kind: the program is not repeatable"
                )
            del self._cells[number:]
        fresh = number == len(self._cells)
        leaves = self._written(raw, None if fresh else self._cells[number])
        if number < self.front:
            return self._repeated(number, leaves)
        if fresh:
            self._cells.append(Cell(signature=kind, leaves=leaves))
        cell = self._cells[number]
        cell.leaves = leaves
        if not self._pending and self._comes_settled(number):
            return self._settled(number)
        if not borrow(self._cells, number):
            self._flush()  # nothing to answer with: settle what is before
            raise _Pause
        return self._speculated(number, raw)

    def _comes_settled(self, number: int) -> bool:
        """The first unsettled call: its arguments are exact, and come again."""
        cell, width = self._cells[number], self._width(number)
        if number == self._exact and cell.moved() > 0:
            raise self._unrepeatable(number)
        first = cell.known is None and not borrow(self._cells, number)
        if first or (width == 1 and cell.moved() > self._allowed()):
            self._evaluator.round(self._cells, [number], _nowhere)
        elif number < self._rehearsed and cell.moved() > self._allowed():
            self._give_up_taping("the program computes other arguments than its tape")
        return cell.moved() <= self._allowed()

    def _settled(self, number: int) -> Any:  # noqa: ANN401
        """The next call, with exact arguments close enough to where it was evaluated."""
        answer = self._cells[number].settle()
        self.front = number + 1
        self.observe(max(self.front, self._rehearsed))
        if number >= RECENT:
            self._cells[number - RECENT].forget()
        return answer

    def _speculated(self, number: int, raw: Leaves) -> Any:  # noqa: ANN401
        """A call whose arguments depend on guesses."""
        cell, tape = self._cells[number], self._tape
        if not self._pending:
            if tape is not None and tape.complete and tape.start == number:  # recorded by an execution that returned
                self._pending = [number]
                self._flush()
                raise _Pause
            tape = self._tape = self._new_tape(number)
        elif tape is not None:
            tape.called(raw, cell.leaves)
        self._pending.append(number)
        ahead = number + 1 - self.front
        on = tape is not None and tape.broken is None and not tape.full
        if (not on and ahead >= self._width(self.front)) or (tape is None and number + 1 == self._last):
            self._flush()
            raise _Pause
        answer = cell.answer(cell.leaves)
        if tape is not None:
            tape.answered(pytree.tree_leaves(answer))
            if ahead > RECENT + self._width(self.front):
                self._cells[number - RECENT].leaves = []  # the tape will say
        return answer

    def _new_tape(self, number: int) -> Tape | None:
        if not self._taping:
            return None
        tape = Tape(number)
        self._modes.enter_context(tape)
        return tape

    def _give_up_taping(self, reason: str) -> None:
        self._taping, self._tape, self._rehearsed, self.stats.untaped = False, None, 0, reason

    def _flush(self) -> None:
        """Settle what is pending as far as possible: on the tape, or else by one round."""
        self._modes.close()
        self._exact = self._pending[0] if self._pending else None
        tape, self._tape = self._tape, None
        if tape is not None and (tape.broken or tape.stale()):
            self._give_up_taping(tape.broken or "the program changes a constant of its tape in place")
            tape = None
        if tape is None:
            need = [number for number in self._pending if self._cells[number].moved() > self._allowed()]
            if need:
                self._evaluator.round(self._cells, need, _nowhere)
            return
        tape.wind_up()
        rehearsal = Rehearsal(
            tape=tape,
            cells=self._cells[: tape.end],
            evaluator=self._evaluator,
            width=self._width,
            tol=self.tol,
            allowed=self._allowed(),
            observe=self.observe,
        )
        self._rehearsed = rehearsal.run()
        exact = not any(cell.strayed for cell in self._cells[: tape.start])
        self.stats.error_bound = rehearsal.error if exact and self._rehearsed == len(self._cells) else None

    def _width(self, number: int) -> int:
        width = self._pace.width(self._cells[number].signature, max(len(self._cells), self.steps()) - number)
        self.stats.window = max(self.stats.window, width)
        return width

    def _allowed(self) -> float:
        """How far arguments may be: errors of many steps add up like independent ones."""
        return self.tol / max(1, self.steps()) ** 0.5

    def _repeated(self, number: int, leaves: Leaves) -> Any:  # noqa: ANN401
        """The last settled call, which must come again with the same arguments."""
        cell = self._cells[number]
        if Cell(signature=cell.signature, leaves=leaves, known=cell.known).moved() > 0:
            raise self._unrepeatable(number)
        return cell.settled().hand()

    def _unrepeatable(self, number: int) -> Refused:
        return Refused(
            f"expected the arguments of call {number} again, found others: the program draws from a source that "
            "is not put back (an unseeded generator, a clock); give it a torch.Generator"
        )

    def _written(self, raw: Leaves, cell: Cell | None) -> Leaves:
        """Arguments as copies; one copy for what is one object, or equal to what is known already."""
        known = [None] * len(raw) if cell is None or cell.known is None else cell.known
        written: Leaves = []
        for leaf, then in zip(raw, known, strict=True):
            if not isinstance(leaf, Tensor):
                written.append(leaf)
                continue
            entry = self._seen.get(id(leaf))
            if entry is not None and entry[0] is leaf and entry[1] == leaf._version:
                written.append(entry[2])
                continue
            copy = then if isinstance(then, Tensor) and torch.equal(leaf, then) else leaf.detach().clone()
            self._seen[id(leaf)] = (leaf, leaf._version, copy)
            written.append(copy)
        return written

    def _report(self, seconds: float) -> None:
        stats = self.stats
        stats.calls, stats.settled, stats.seconds = len(self._cells), self.front, seconds
        stats.plan, stats.sequential_seconds = self._pace.plan, self._pace.sequential(self._cells)
        if not any(cell.strayed for cell in self._cells):
            stats.error_bound = 0.0
        stats.unbatchable = tuple(
            name for name, batcher in self._evaluator.batchers.items() if None in batcher.ways.values()
        )

    @contextmanager
    def _patched(self) -> Iterator[None]:
        with Patches() as patches:
            batchers: dict[str, Batcher] = {}
            for name, module in self.modules.items():
                own, compiled = patches.forward(module, functools.partial(self._answer, name))
                batchers[name] = Batcher(own, single=self.single, max_rows=self.max_rows)
                if (self.pad or compiled) and not self.single:
                    self._pace.narrowest = batchers[name].fill = self.max_rows or self.window or FILL
            for owner, method in self.barriers:
                patches.put(owner, method, self._barrier(getattr(owner, method)))
            self._evaluator = Evaluator(
                batchers=batchers,
                pace=self._pace,
                stats=self.stats,
                secant=self.secant,
                check=Guards.take(self.modules).check,
            )
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
