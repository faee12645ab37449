r"""The program's own arithmetic between calls, recorded once and played again without the program.

What a program does with the outputs of its networks before it calls the next (guidance, a scheduler's step, an
inpainting blend) is a chain of tensor operations. A :class:`Tape` writes down those that depend on the outputs; all
others (noise, timesteps, coefficients) are constants of the tape. Playing it with other outputs gives the arguments
that the program would have computed, operation by operation the same, without its Python.

A tape is a forecast and never the judge: what it says is checked when the program itself runs over the same calls. So
it may give up (``broken`` says why) on whatever it cannot see through: numbers read out of tensors, tensors changed in
place that are older than the last call, programs whose control flow depends on values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from paradrift.diffusers.calls import Leaves
from paradrift.diffusers.keeping import version
from paradrift.diffusers.operations import Operation, Segment, Slot, Values, filled, numbers

BYTES = 2**30  # of constants; a tape that needs more is cut there
_MARK = "_paradrift_slot"


class Tape(TorchDispatchMode):
    """A recording from one call on; a torch mode that is entered while it records.

    Args:
        start: Number of the first call on the tape.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """The guard against compilation that torch would wrap around every operation costs more than most of them."""
        return False

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self.broken: str | None = None
        self.complete = False
        self.result: list[Slot] = []
        self._segments: list[Segment] = []
        self._token = object()  # of this tape, in the tensors that are on it
        self._birth: dict[int, int] = {}  # slot -> number of segments when its memory was made
        self._storage: dict[int, int] = {}  # slot -> address of its memory
        self._sources: dict[int, tuple[int, int]] = {}  # slot of an answer -> its call and place
        self._constants: dict[int, tuple[Tensor, int | None]] = {}
        self._bytes, self._born = 0, 0
        self._recording = False
        self._newest: Slot | None = None

    @property
    def end(self) -> int:
        """Number of the call whose arguments were recorded last."""
        return self.start + len(self._segments)

    @property
    def full(self) -> bool:
        """Whether no more should be recorded."""
        return self._bytes > BYTES

    def answered(self, outputs: Leaves) -> None:
        """A call was answered: what follows depends on this.

        Args:
            outputs: The flattened answer as the program got it.
        """
        call, segment = self.end, Segment(answers=())
        self._segments.append(segment)
        segment.answers = tuple(self._bear(v).number if isinstance(v, Tensor) else None for v in outputs)
        for place, slot in enumerate(segment.answers):
            if slot is not None:
                self._sources[slot] = (call, place)
        self._recording = self.broken is None

    def pause(self) -> None:
        """What is computed from now on, up to the next answer, is not the program's."""
        self._recording = False

    def called(self, raw: Leaves, written: Leaves) -> None:
        """The next call has come.

        Args:
            raw: Its flattened arguments as the program gave them.
            written: Copies of them.
        """
        self._recording = False
        if self._segments:
            slots = [self._slot(leaf) if isinstance(leaf, Tensor) else None for leaf in raw]
            self._segments[-1].arguments = [
                copy if slot is None else slot for slot, copy in zip(slots, written, strict=True)
            ]

    def finished(self, leaves: Leaves) -> None:
        """The program has come to what follows the last call.

        Args:
            leaves: What it hands to the decoder, or returns.
        """
        self._recording, self.complete = False, True
        states = [v for v in leaves if isinstance(v, Tensor) and v.is_floating_point() and v.ndim >= 2]
        self.result = [slot for slot in map(self._slot, states) if slot is not None]
        if not self.result and self._newest is not None:  # pictures, say, which are no tensors any more
            self.result = [self._newest]
        if self._segments:
            self._segments[-1].arguments = list(self.result)

    def source(self, call: int) -> dict[int, tuple[int, int]]:
        """Which arguments of a call are outputs of earlier calls, handed on as they are.

        Args:
            call: Number of the call.

        Returns:
            For the number of an argument: the earlier call and the place of the output.
        """
        if call <= self.start or call > self.end:
            return {}
        arguments = self._segments[call - 1 - self.start].arguments
        found = {i: self._sources.get(leaf.number) for i, leaf in enumerate(arguments) if isinstance(leaf, Slot)}
        return {index: where for index, where in found.items() if where is not None}

    def place(self, call: int, argument: int) -> Slot | None:
        """Where an argument of a call stands on the tape.

        Args:
            call: Number of the call, after the first.
            argument: Number of the argument.

        Returns:
            Its slot; None for a constant.
        """
        found = self._segments[call - 1 - self.start].arguments[argument] if call > self.start else None
        return found if isinstance(found, Slot) else None

    def play(self, values: Values, call: int, answer: Leaves) -> Leaves:
        """From the answer to one call to the arguments of the next.

        Args:
            values: What stands in the slots; changed.
            call: Number of the call.
            answer: Its flattened answer; owned by the tape from now on.

        Returns:
            Flattened arguments of the next call; after the last call, what :meth:`finished` was given.
        """
        segment = self._segments[call - self.start]
        for slot, value in zip(segment.answers, answer, strict=True):
            if slot is not None:
                values[slot] = value
        for operation in segment.operations:
            operation.play(values)
        arguments = [filled(argument, values) for argument in segment.arguments]
        for slot in segment.last_use:
            values.pop(slot, None)
        return arguments

    def stale(self) -> bool:
        """Whether a constant has been changed in place since it was recorded.

        Returns:
            Whether the tape must not be played.
        """
        return any(version(tensor) != then for tensor, then in self._constants.values())

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator of torch
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Torch's own hook: every tensor operation while the mode is on."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if self._recording and (self._depends(args) or self._depends(kwargs.values())):
            self._record(func, args, kwargs, found)
        return found

    def _slot(self, value: Tensor) -> Slot | None:
        """Where a tensor stands on this tape: written into the tensor itself, so that it lives as long as that."""
        token, slot = getattr(value, _MARK, (None, None))
        return slot if token is self._token else None

    def _depends(self, arguments: Iterable[Any]) -> bool:
        for argument in arguments:
            if isinstance(argument, Tensor):
                if self._slot(argument) is not None:
                    return True
            elif isinstance(argument, list | tuple) and self._depends(argument):
                return True
        return False

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: Any) -> None:  # noqa: ANN401
        written = tuple(self._written(argument) for argument in args)
        mutable = func._schema.is_mutable
        if mutable and written and isinstance(written[0], Slot):
            self._changed(written[0])
        if any(isinstance(value, Tensor) for value in kwargs.values()):
            self._break(f"{func} was given a tensor by name")
        elif mutable and self._birth.get(getattr(written[0], "number", -1)) != len(self._segments):
            older = "is older than the last call" if isinstance(written[0], Slot) else "did not depend on the networks"
            self._break(f"{func} changes a tensor in place that {older}")
        elif torch.Tag.nondeterministic_seeded in func.tags:
            if mutable:  # fresh numbers into memory of the tape: those of this time
                self._append(torch.ops.aten.copy_.default, (written[0], found.clone()), {}, (found,))
            # otherwise (randn_like) it depends on the shape alone, and is a constant
        else:
            results = found if isinstance(found, tuple | list) else (found,)
            if all(isinstance(value, Tensor) for value in results):
                self._append(func, written, kwargs, results)
            else:
                self._break(f"{func} reads a value out of a tensor")

    def _append(
        self, func: Callable[..., Any], written: tuple[Any, ...], kwargs: dict[str, Any], results: Sequence[Tensor]
    ) -> None:
        used = numbers(written)
        slots = tuple((self._slot(value) or self._bear(value, used)).number for value in results)
        if func is torch.ops.aten.detach.default:  # the same view, but the adjoint goes through it
            func = torch.ops.aten.alias.default
        for argument in written:
            self._keep(argument)
        self._segments[-1].operations.append(Operation(func, written, kwargs, slots))

    def _changed(self, slot: Slot) -> None:
        """An answer that is changed in place, perhaps through a view, is not handed on as it is."""
        segment, memory = self._segments[-1], self._storage[slot.number]
        for answer in segment.answers:
            if answer is not None and self._storage[answer] == memory:
                self._sources.pop(answer, None)

    def _bear(self, value: Tensor, used: Sequence[int] = ()) -> Slot:
        """A slot for a new tensor; a view is as old as the memory that it shows."""
        slot, self._born = Slot(self._born), self._born + 1
        storage = value.untyped_storage().data_ptr()
        older = [self._birth[one] for one in used if self._storage.get(one) == storage]
        setattr(value, _MARK, (self._token, slot))
        self._storage[slot.number] = storage
        self._birth[slot.number] = min(older, default=len(self._segments))
        if value.is_floating_point() and value.ndim >= 2:
            self._newest = slot
        return slot

    def _written(self, argument: Any) -> Any:  # noqa: ANN401
        if isinstance(argument, Tensor):
            slot = self._slot(argument)
            return slot or (argument if version(argument) is not None else _ordinary(argument))
        if isinstance(argument, list | tuple) and any(isinstance(item, Tensor) for item in argument):
            return [self._written(item) for item in argument]
        return argument

    def _keep(self, argument: Any) -> None:  # noqa: ANN401
        if isinstance(argument, Tensor):
            if id(argument) not in self._constants:
                self._constants[id(argument)] = (argument, version(argument))
                self._bytes += argument.nbytes
        elif isinstance(argument, list):
            for item in argument:
                self._keep(item)

    def _break(self, reason: str) -> None:
        self.broken, self._recording = reason, False

    def wind_up(self) -> None:
        """The recording is over: find out what may be let go of when."""
        self._recording = False
        seen: set[int] = set()
        for segment in reversed(self._segments):
            used = {slot for operation in segment.operations for slot in operation.results if slot is not None}
            for operation in segment.operations:
                used |= set(numbers(operation.args))
            used |= set(numbers(segment.arguments)) | {slot for slot in segment.answers if slot is not None}
            segment.last_use = sorted(used - seen)
            seen |= used


def _ordinary(argument: Tensor) -> Tensor:
    """A copy of a tensor made in inference mode, which no gradient could go through."""
    with torch.inference_mode(False):
        return argument.clone()
