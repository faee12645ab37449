"""What a tape is made of: tensor operations between numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """A place on the tape.

    Args:
        number: Its number.
    """

    number: int


Values = dict[int, Tensor]  # what stands in the slots


@dataclass(frozen=True)
class Operation:
    """One tensor operation.

    Args:
        function: The operator.
        args: Its arguments, with slots in the places of what depends on the outputs.
        kwargs: Its arguments by name, constants all.
        results: Slots of its results; None for what is not kept.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int | None, ...]

    def play(self, values: Values) -> None:
        """Compute it with what stands in the slots now.

        Args:
            values: What stands in the slots; the results are added.
        """
        found = self.function(*(filled(a, values) for a in self.args), **self.kwargs)
        for slot, value in zip(self.results, found if isinstance(found, tuple | list) else (found,), strict=True):
            if slot is not None:
                values[slot] = value


def filled(argument: Any, values: Values) -> Any:  # noqa: ANN401
    """An argument with values in the places of slots.

    Args:
        argument: A slot, a list with slots in it, or a constant.
        values: What stands in the slots.

    Returns:
        The argument.
    """
    if isinstance(argument, Slot):
        return values[argument.number]
    if isinstance(argument, list):
        return [filled(item, values) for item in argument]
    return argument


@dataclass
class Segment:
    """What happens between the answer to one call and the next call.

    Args:
        answers: Slots of the answer; None for what is no tensor.
        operations: The operations.
        arguments: Arguments of the next call: slots, or constants.
        last_use: Slots that nobody needs afterwards.
    """

    answers: tuple[int | None, ...]
    operations: list[Operation] = field(default_factory=list)
    arguments: list[Any] = field(default_factory=list)
    last_use: list[int] = field(default_factory=list)


def numbers(items: Sequence[Any]) -> list[int]:
    """The slots among some arguments.

    Args:
        items: Arguments.

    Returns:
        Numbers of the slots, in lists too.
    """
    found: list[int] = []
    for item in items:
        if isinstance(item, Slot):
            found.append(item.number)
        elif isinstance(item, list):
            found += numbers(item)
    return found
