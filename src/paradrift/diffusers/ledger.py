"""The calls of a program over all its executions: each arrives again and again, and is recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers.calls import Cell, Leaves, Signature, signature
from paradrift.diffusers.keeping import version
from paradrift.diffusers.lending import RECENT
from paradrift.errors import Refused

_REMEDY = (
    "the program draws from a source that is not put back (an unseeded generator, a clock); give it a torch.Generator"
)


@dataclass
class Ledger:
    """All calls so far, in their order.

    Args:
        cells: The calls.
        front: How many of them are settled, and have been seen to be by the program itself.
        position: Calls of this execution so far.
    """

    cells: list[Cell] = field(default_factory=list)
    front: int = 0
    position: int = 0
    _seen: dict[int, tuple[Tensor, int | None, Tensor]] = field(default_factory=dict)
    _kinds: dict[Signature, Signature] = field(default_factory=dict)
    _tally: Counter[Signature] = field(default_factory=Counter)

    @property
    def shares(self) -> dict[Signature, float]:
        """Share of each kind among the calls so far."""
        return {kind: count / len(self.cells) for kind, count in self._tally.items() if count}

    @property
    def complete(self) -> bool:
        """Whether all calls are settled."""
        return self.front == len(self.cells)

    def again(self) -> None:
        """The program starts from the top."""
        self.position, self._seen = 0, {}

    def passed(self) -> Any:  # noqa: ANN401
        """The answer to the next call, if nothing is left to check about it.

        Returns:
            The answer; None if the call must be looked at.
        """
        if self.position >= self.front - 1:
            return None
        self.position += 1
        return self.cells[self.position - 1].settled().hand()

    def arrive(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, Leaves]:
        """The next call has come.

        Args:
            name: Name of the network.
            args: Its arguments.
            kwargs: Its arguments by name.

        Returns:
            Number of the call, and its flattened arguments as the program gave them; copies are in its cell.

        Raises:
            Refused: if it needs gradients, or is not the call that it was.
        """
        raw, structure = pytree.tree_flatten((tuple(args), kwargs))
        if torch.is_grad_enabled() and any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in raw):
            raise Refused(f"expected no gradients through {name}, found an argument that requires one: use no_grad")
        kind = signature(name, raw, structure)
        kind = self._kinds.setdefault(kind, kind)  # one object each, so that comparing costs nothing
        number, self.position = self.position, self.position + 1
        if number < len(self.cells) and self.cells[number].signature is not kind:
            if number < self.front:
                raise Refused(f"expected call {number} of {name} again, found another kind: {_REMEDY}")
            self._cut(number)
        if number == len(self.cells):
            self.cells.append(Cell(signature=kind, leaves=[]))
            self._tally[kind] += 1
        cell = self.cells[number]
        leaves = self._written(raw, cell.known)
        if number < self.front:
            if Cell(signature=kind, leaves=leaves, known=cell.known).moved() > 0:
                raise self.unrepeatable(number)
        else:
            cell.leaves = leaves
        return number, raw

    def settle(self, number: int) -> Any:  # noqa: ANN401
        """The next call is settled, with its present arguments.

        Args:
            number: Number of the call.

        Returns:
            Its answer, owned by the caller.
        """
        answer = self.cells[number].settle()
        self.front = number + 1
        if number >= RECENT:
            self.cells[number - RECENT].forget()
        return answer

    def end(self) -> None:
        """The program has come to its end: calls beyond are none of its own (an interrupted loop)."""
        self._cut(self.position)

    def doubt(self) -> None:
        """What was evaluated ahead is worth nothing any more."""
        self._cut(self.front)

    def _cut(self, number: int) -> None:
        self._tally.subtract(cell.signature for cell in self.cells[number:])
        del self.cells[number:]

    def unrepeatable(self, number: int) -> Refused:
        """What to raise when the arguments of a call do not come again.

        Args:
            number: Number of the call.

        Returns:
            The refusal.
        """
        return Refused(f"expected the arguments of call {number} again, found others: {_REMEDY}")

    def _written(self, raw: Leaves, known: Leaves | None) -> Leaves:
        """Arguments as copies; one copy for what is one object, or equal to what is known already."""
        written: Leaves = []
        for leaf, then in zip(raw, [None] * len(raw) if known is None else known, strict=True):
            if not isinstance(leaf, Tensor):
                written.append(leaf)
                continue
            count, entry = version(leaf), self._seen.get(id(leaf))
            if entry is not None and entry[0] is leaf and entry[1] == count is not None:
                written.append(entry[2])
                continue
            copy = then if isinstance(then, Tensor) and torch.equal(leaf, then) else leaf.detach().clone()
            self._seen[id(leaf)] = (leaf, count, copy)
            written.append(copy)
        return written
