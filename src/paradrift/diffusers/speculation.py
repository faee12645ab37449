r"""Speculative replay: any program that calls networks one after the other, parallel in time, unchanged.

The program itself is the recurrence. It is run with its networks replaced: call k is answered with what is known of it,
the surrogate of :mod:`paradrift.diffusers.calls`, and its arguments are written down. When a window of unsettled calls
is full, those whose arguments moved are evaluated in one batch, and the program starts again from the top, its random
states and its objects put back. The first unsettled call has exact arguments, so each execution settles at least one:
there are never more evaluations in a row than the program has calls. Nothing needs to be known of the program but that
it can be run again, that its networks are functions of their arguments, and that their calls can be merged; all three
are checked while it runs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from paradrift.diffusers.batching import Batcher
from paradrift.diffusers.calls import Cell, Leaves, Signature, signature
from paradrift.diffusers.keeping import Kept, copied
from paradrift.diffusers.patching import Patches
from paradrift.diffusers.snapshot import Attributes, Processors, Randomness
from paradrift.diffusers.stepping import StepMemory
from paradrift.errors import Refused, SpecError

_DONORS = 8  # latest calls of the same signature among which a new call looks for its guess
_KEPT = 16  # settled calls whose arguments are kept, to guess from


class _Pause(BaseException):
    """Unwinds the program; not an Exception, because programs catch those."""


@dataclass
class ReplayStats:
    """What a run cost.

    Args:
        rounds: Batches evaluated one after the other.
        evaluations: Calls evaluated, over all rounds.
        calls: Calls that the program makes.
        executions: How often the program was run.
        seconds: Wall time of everything.
        model_seconds: Wall time inside the networks.
        fallback: Why the program was run plainly instead; None if it was not.
        unbatchable: Networks whose calls could not be merged, and were evaluated one by one.
    """

    rounds: int = 0
    evaluations: int = 0
    calls: int = 0
    executions: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    fallback: str | None = None
    unbatchable: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Replay:
    """A program in the course of being replayed.

    Args:
        modules: The networks, by name.
        objects: Objects whose attributes the program changes, and which are put back before each execution.
        barriers: Methods that must see settled values only, each run once: owner and name of the method.
        tol: How far arguments may be from where a call was evaluated, rms over rms, times the root of ``steps``.
        steps: How many steps share the tolerance; read when needed, because programs set their timesteps late.
        window: Calls beyond the settled ones that are worked on.
        secant: Whether stale calls are answered with secant slopes, or as they are.
        single: Whether every call is evaluated alone; with tol 0 the program's own bits.
        max_rows: Most calls in one batch.
        observe: Called with the number of settled calls whenever one is settled.
    """

    modules: Mapping[str, nn.Module]
    objects: Sequence[Any] = ()
    barriers: Sequence[tuple[Any, str]] = ()
    tol: float = 1e-3
    steps: Callable[[], int] = lambda: 1
    window: int = 16
    secant: bool = True
    single: bool = False
    max_rows: int | None = None
    observe: Callable[[int], None] | None = None
    stats: ReplayStats = field(default_factory=ReplayStats)
    front: int = 0
    _position: int = 0
    _last: int | None = None
    _exact: int | None = None
    _visits: int = 0
    _inside: bool = False
    _cells: list[Cell] = field(default_factory=list)
    _pending: list[int] = field(default_factory=list)
    _memory: list[tuple[Kept, Randomness, dict[str, Any]]] = field(default_factory=list)
    _seen: dict[int, tuple[Tensor, int, Tensor]] = field(default_factory=dict)
    _batchers: dict[str, Batcher] = field(default_factory=dict)
    _kinds: dict[Signature, Signature] = field(default_factory=dict)
    _memories: list[StepMemory] = field(default_factory=list)
    _hooks: int = 0
    _generators: list[torch.Generator] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.tol >= 0:
            raise SpecError(f"expected a tolerance of at least 0, found {self.tol}")
        if self.window < 1:
            raise SpecError(f"expected a window of at least 1 call, found {self.window}")
        if not self.modules:
            raise SpecError("expected at least one network to replay, found none: name them with modules={...}")

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
        self._generators = list(generators)
        random, before = Randomness.take(generators), Attributes.take(self.objects)
        processors = Processors.take(self.modules.values())
        done = False
        try:
            with self._patched():
                attributes = Attributes.take(self.objects)
                while True:
                    self._position = self._visits = 0
                    self._pending, self._seen = [], {}
                    for memory in self._memories:
                        memory.position = 0
                    self.stats.executions += 1
                    try:
                        result = program()
                        if not self._pending:
                            done = True
                            return result
                        # What is pending must be evaluated inside the program, whose settings (attention processors,
                        # contexts) hold there alone: next time the last call does it.
                        self._last = self._position
                    except _Pause:
                        pass
                    except Exception as error:
                        if isinstance(error, Refused) or not self._pending:
                            raise
                        self.window = 1  # perhaps it met a speculative value: if not, it comes again, with exact ones
                    random.put_back()
                    attributes.put_back()
                    processors.put_back()
        finally:
            if not done:  # an exception, an interrupt, a refusal: everything as it was
                processors.put_back()
                random.put_back()
                before.put_back()
            self.stats.calls = len(self._cells)
            self.stats.unbatchable = tuple(
                name for name, batcher in self._batchers.items() if None in batcher.ways.values()
            )
            self.stats.seconds = time.perf_counter() - begin

    def visit(self, call: Callable[[], Any], owner: Any = None, *, skip: bool = False) -> Any:  # noqa: ANN401
        """Something that must happen once, with settled values: a text encoder, a decoder, a user's callback.

        Args:
            call: What to do.
            owner: An object whose attributes it may change, replayed too.
            skip: Whether to leave it out while values are not settled, instead of settling them.

        Returns:
            What it returned; the same again in later executions.

        Raises:
            _Pause: to settle the values first.
        """
        if self._inside:
            return call()
        if self._visits < len(self._memory):
            result, random, changed = self._memory[self._visits]
            self._visits += 1
            random.put_back()
            if owner is not None:
                owner.__dict__.update(changed)
            return result.hand()
        if self._pending:
            if skip:
                return {}
            self._flush()
            raise _Pause
        before = dict(vars(owner)) if owner is not None else {}
        self._inside = True
        try:
            result = call()
        finally:
            self._inside = False
        after = {} if owner is None else {k: v for k, v in vars(owner).items() if before.get(k, self) is not v}
        self._memory.append((Kept(copied(result)), Randomness.take(self._generators), after))
        self._visits += 1
        return result

    def _answer(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        if self._inside:
            return self._batchers[name].forward(*args, **kwargs)
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
        if not self._pending and (cell.known is not None or not self._guess(cell) or self.window == 1):
            # The first unsettled call: its arguments are exact, and come again.
            if number == self._exact and cell.moved() > 0:
                raise self._unrepeatable(number)
            if cell.known is None or (self.window == 1 and cell.moved() > self._allowed()):
                self._evaluate([cell])
            if cell.moved() <= self._allowed():
                answer = cell.answer(leaves)
                outputs, _ = pytree.tree_flatten(answer)
                cell.outputs, cell.known = copied(outputs), leaves
                self.front = number + 1
                if self.observe is not None:
                    self.observe(self.front)
                if number >= _KEPT:
                    self._cells[number - _KEPT].forget()
                return answer
        if cell.known is None and not cell.outputs and not self._guess(cell):
            self._flush()  # nothing to answer with: settle what is before
            raise _Pause
        self._pending.append(number)
        if number + 1 - self.front >= self.window or number + 1 == self._last:
            self._flush()
            raise _Pause
        return cell.answer(leaves)

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

    def _allowed(self) -> float:
        """How far arguments may be: errors of many steps add up like independent ones."""
        return self.tol / max(1, self.steps()) ** 0.5

    def _guess(self, cell: Cell) -> bool:
        """Borrow outputs and slopes from the latest call that shares most arguments."""
        if cell.outputs:
            return True
        recent = self._cells[-1 - _KEPT : -1]
        answered = [other for other in recent if other.leaves and other.outputs]
        donors = [other for other in answered if other.signature is cell.signature]
        if not donors:  # a second network that takes over: what the first one said is better than nothing
            donors = [other for other in answered if other.signature.alike(cell.signature)]
        if not donors:
            return False

        def shared(other: Cell) -> int:
            return sum(a is b for a, b in zip(cell.leaves, other.leaves, strict=True))

        best = max(reversed(donors[-_DONORS:]), key=shared)
        cell.outputs, cell.structure, cell.slopes = best.outputs, best.structure, [None] * len(best.outputs)
        return True

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

    def _flush(self) -> None:
        """Evaluate what moved, in one round."""
        self._exact = self._pending[0] if self._pending else None
        need = [self._cells[number] for number in self._pending if self._cells[number].moved() > self._allowed()]
        if need:
            self._evaluate(need)

    def _count_hooks(self) -> int:
        """Hooks on all parts of the networks."""
        parts = [part for module in self.modules.values() for part in module.modules()]
        return sum(len(vars(part)["_forward_hooks"]) + len(vars(part)["_forward_pre_hooks"]) for part in parts)

    def _evaluate(self, cells: list[Cell]) -> None:
        if self._count_hooks() != self._hooks:
            raise Refused(
                "expected no hooks to be set on the networks while the program runs, found some: what they see or "
                "change would be that of a batch; run the program plainly"
            )
        self.stats.rounds += 1
        self.stats.evaluations += len(cells)
        begin = time.perf_counter()
        groups: dict[Any, list[Cell]] = {}
        for cell in cells:
            groups.setdefault(cell.signature, []).append(cell)
        for kind, group in groups.items():
            batcher = self._batchers[kind.module]
            found = []
            if kind not in batcher.known:
                found.append(batcher.alone(group[0]))
                if not self.single:
                    self._check_purity(batcher, group[0], found[0][0])
            found += batcher.together(group[len(found) :])
            for cell, (outputs, structure) in zip(group, found, strict=True):
                cell.take(outputs, structure, self.secant)
        self.stats.model_seconds += time.perf_counter() - begin

    def _check_purity(self, batcher: Batcher, cell: Cell, outputs: Leaves) -> None:
        again, _ = batcher.alone(cell)
        for one, other in zip(outputs, again, strict=True):
            if isinstance(one, Tensor) and not torch.equal(one.nan_to_num(), other.nan_to_num()):
                raise Refused(
                    f"expected {cell.signature.module} to be a function of its arguments, found two answers to one "
                    "call: it keeps a state or draws noise; put it in eval mode, or turn its cache off"
                )

    @contextmanager
    def _patched(self) -> Iterator[None]:
        with Patches() as patches:
            for name, module in self.modules.items():
                original = module.forward
                self._batchers[name] = Batcher(original, max_rows=self.max_rows, single=self.single)
                patches.put(module, "forward", self._forward(name, original))
            for owner, method in self.barriers:
                patches.put(owner, method, self._barrier(getattr(owner, method)))
            self._memories = [StepMemory(each) for each in self.objects if callable(getattr(each, "step", None))]
            for memory in self._memories:
                replacement = memory.patched(lambda: not self._pending, lambda: Randomness.take(self._generators))
                patches.put(memory.scheduler, "step", replacement)
            self._hooks = self._count_hooks()
            yield

    def _forward(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return self._answer(name, args, kwargs)

        return forward

    def _barrier(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return self.visit(lambda: original(*args, **kwargs))

        return method
