"""Several calls of a module as one: by concatenation or by vmap, whichever reproduces a call that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers.calls import Cell, Leaves, Signature, state_of
from paradrift.errors import ParadriftError

_CLOSE = 1e-3  # rms of a difference over rms, between a batched and a single evaluation in float32
_CLOSE_HALF = 5e-2  # the same in half precision
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError, ParadriftError)

Known = tuple[Leaves, Leaves]  # arguments and outputs of a call that was evaluated alone


@dataclass
class Batcher:
    """Evaluates cells of one module together.

    Args:
        forward: The module's own forward.
        max_rows: Most calls in one batch; None for no limit.
        single: Whether every call is evaluated alone, bit by bit as the program would.
        ways: For each signature, the way that was found to work; None: none does.
        known: For each signature, a call that was evaluated alone.
    """

    forward: Callable[..., Any]
    max_rows: int | None = None
    single: bool = False
    ways: dict[Signature, Way | None] = field(default_factory=dict)
    known: dict[Signature, Known] = field(default_factory=dict)

    def alone(self, cell: Cell) -> tuple[Leaves, Any]:
        """One call by itself.

        Args:
            cell: The call.

        Returns:
            Its flattened outputs and their structure.
        """
        args, kwargs = pytree.tree_unflatten(cell.leaves, cell.signature.structure)
        outputs, structure = pytree.tree_flatten(self.forward(*_own(args), **_own(kwargs)))
        owned = [output.clone() if isinstance(output, Tensor) else output for output in outputs]
        self.known[cell.signature] = (cell.leaves, owned)
        return owned, structure

    def together(self, cells: list[Cell]) -> list[tuple[Leaves, Any]]:
        """Several calls of one signature.

        Args:
            cells: The calls.

        Returns:
            Flattened outputs and structure of each.
        """
        kind = cells[0].signature
        if self.single or len(cells) == 1 or kind not in self.known:
            return [self.alone(cell) for cell in cells]
        if kind not in self.ways:
            for way in (_concatenated, _mapped):
                found = self._tried(way, cells)
                if found is not None:
                    self.ways[kind] = way
                    return found
            self.ways[kind] = None
        way = self.ways[kind]
        if way is None:
            return [self.alone(cell) for cell in cells]
        found = []
        size = self.max_rows or len(cells)
        for begin in range(0, len(cells), size):
            found += way(self.forward, [cell.leaves for cell in cells[begin : begin + size]], kind)
        return found

    def _tried(self, way: Way, cells: list[Cell]) -> list[tuple[Leaves, Any]] | None:
        """The calls with a known one behind them: last, so that reading the time of row 0 for all is found out."""
        kind = cells[0].signature
        leaves, expected = self.known[kind]
        try:
            found = way(self.forward, [*(cell.leaves for cell in cells), leaves], kind)
        except _FAILURES:
            return None
        *answers, (check, _) = found
        close = len(check) == len(expected) and all(map(_agree, check, expected))
        return answers if close else None


Way = Callable[[Callable[..., Any], list[Leaves], Signature], list[tuple[Leaves, Any]]]


def _concatenated(forward: Callable[..., Any], calls: list[Leaves], kind: Signature) -> list[tuple[Leaves, Any]]:
    """Along the first dimension: states and embeddings one behind the other, times repeated for their rows."""
    rows = next((leaf.shape[0] for leaf in calls[0] if _is_state(leaf)), None)
    if rows is None:
        raise ValueError("expected an argument with a first dimension, found none")
    merged = [_merged([call[index] for call in calls], rows) for index in range(len(calls[0]))]
    args, kwargs = pytree.tree_unflatten(merged, kind.structure)
    outputs, structure = pytree.tree_flatten(forward(*args, **kwargs))
    return [
        ([_part(output, number, rows, len(calls)) for output in outputs], structure) for number in range(len(calls))
    ]


def _merged(values: Leaves, rows: int) -> Any:  # noqa: ANN401
    first = values[0]
    if not isinstance(first, Tensor):
        if all(value is first or value == first for value in values):
            return first
        if isinstance(first, bool) or not isinstance(first, int | float):
            raise ValueError(f"expected numbers where calls differ, found {type(first).__name__}")
        return torch.tensor(values).repeat_interleave(rows)
    if first.ndim == 0:
        return torch.stack(values).repeat_interleave(rows)
    if first.shape[0] == rows:
        return torch.cat(values)
    if first.shape[0] == 1:
        return torch.cat([value.expand(rows, *value.shape[1:]) for value in values])
    if all(value is first or torch.equal(value, first) for value in values):
        return first
    raise ValueError(f"expected {rows} rows or equal arguments, found a tensor of shape {tuple(first.shape)}")


def _part(output: Any, number: int, rows: int, calls: int) -> Any:  # noqa: ANN401
    if not isinstance(output, Tensor):
        return output
    if output.ndim == 0 or output.shape[0] != rows * calls:
        raise ValueError(f"expected outputs of {rows * calls} rows, found shape {tuple(output.shape)}")
    return output[number * rows : (number + 1) * rows].clone()


def _mapped(forward: Callable[..., Any], calls: list[Leaves], kind: Signature) -> list[tuple[Leaves, Any]]:
    """By ``torch.func.vmap`` over a new dimension: no knowledge of what a batch is."""
    differing = [
        index
        for index, first in enumerate(calls[0])
        if isinstance(first, Tensor)
        and not all(call[index] is first or torch.equal(call[index], first) for call in calls)
    ]
    for index, first in enumerate(calls[0]):
        if not isinstance(first, Tensor) and not all(call[index] is first or call[index] == first for call in calls):
            raise ValueError("expected tensors where calls differ")
    structures: list[Any] = []

    def one(*parts: Tensor) -> tuple[Tensor, ...]:
        leaves = list(calls[0])
        for index, part in zip(differing, parts, strict=True):
            leaves[index] = part
        args, kwargs = pytree.tree_unflatten(leaves, kind.structure)
        outputs, structure = pytree.tree_flatten(forward(*args, **kwargs))
        structures.append(structure)
        return tuple(outputs)

    stacked = [torch.stack([call[index] for call in calls]) for index in differing]
    outputs = torch.func.vmap(one, randomness="same")(*stacked)
    return [([output[number].clone() for output in outputs], structures[0]) for number in range(len(calls))]


def _is_state(leaf: Any) -> bool:  # noqa: ANN401
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim >= 2


def _agree(found: Any, expected: Any) -> bool:  # noqa: ANN401
    if not isinstance(expected, Tensor):
        return True
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    gap = (found.double() - expected.double()).square().mean().sqrt()
    size = expected.double().square().mean().sqrt()
    return bool(gap <= (_CLOSE if expected.dtype in (torch.float32, torch.float64) else _CLOSE_HALF) * size + 1e-12)


def _own(value: Any) -> Any:  # noqa: ANN401
    """Tensors of a call as copies: modules and pipelines may change them in place."""
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


__all__ = ["Batcher", "state_of"]
