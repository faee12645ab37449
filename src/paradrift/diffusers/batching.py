"""Several calls of a module as one: by concatenation or by vmap, whichever reproduces a call that is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers.calls import Cell, Leaves, Signature
from paradrift.diffusers.keeping import copied
from paradrift.errors import ParadriftError

_CLOSE = 3e-5  # rms of a difference over rms, between a batched and a single evaluation in float32
_CLOSE_HALF = 3e-2  # the same in half precision
_FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AttributeError, NotImplementedError, ParadriftError)

Known = tuple[Leaves, Leaves]  # arguments and outputs of a call that was evaluated alone


@dataclass
class Batcher:
    """Evaluates cells of one module together.

    Args:
        forward: The module's own forward.
        max_rows: Most calls in one batch; None for no limit.
        single: Whether every call is evaluated alone, bit by bit as the program would.
        fill: Calls that every batch is filled up to (by repeating one): compiled code and CUDA graphs keep their shape.
        ways: For each signature, the way that was found to work; None: none does.
        known: For each signature, a call that was evaluated alone.
        noise: Largest difference seen between a call in a batch and the same alone, rms over rms: rounding.
    """

    forward: Callable[..., Any]
    max_rows: int | None = None
    single: bool = False
    fill: int | None = None
    ways: dict[Signature, Way | None] = field(default_factory=dict)
    known: dict[Signature, Known] = field(default_factory=dict)
    noise: float = 0.0

    def size(self, calls: int) -> int:
        """How large a batch is made of some calls.

        Args:
            calls: How many there are.

        Returns:
            Calls in the largest batch.
        """
        return 1 if calls == 1 else self.fill or min(calls, self.max_rows or calls)

    def alone(self, cell: Cell) -> tuple[Leaves, Any]:
        """One call by itself.

        Args:
            cell: The call.

        Returns:
            Its flattened outputs and their structure.
        """
        args, kwargs = pytree.tree_unflatten(cell.leaves, cell.signature.structure)
        outputs, structure = pytree.tree_flatten(self.forward(*copied(args), **copied(kwargs)))
        owned = copied(outputs)
        self.known[cell.signature] = (cell.leaves, owned)
        return owned, structure

    def together(self, cells: list[Cell]) -> list[tuple[Leaves, Any]]:
        """Several calls of one signature.

        Args:
            cells: The calls.

        Returns:
            Flattened outputs and structure of each.
        """
        if not cells:
            return []
        kind = cells[0].signature
        if self.single or len(cells) == 1 or self.max_rows == 1 or kind not in self.known:
            return [self.alone(cell) for cell in cells]
        size = self.fill or self.max_rows or len(cells) + 1
        found: list[tuple[Leaves, Any]] = []
        if kind not in self.ways:
            self.ways[kind] = None
            head = cells[: max(1, size - 1)]  # the known call comes with them
            for way in (_concatenated, _sharing, _mapped, _listed):
                answers = self._tried(way, head)
                if answers is not None:
                    self.ways[kind], found = way, answers
                    break
        way = self.ways[kind]
        if way is None:
            return [self.alone(cell) for cell in cells]
        for begin in range(len(found), len(cells), size):
            part = cells[begin : begin + size]
            if len(part) == 1:
                found.append(self.alone(part[0]))
            else:
                leaves = self._filled([cell.leaves for cell in part], self.fill)
                found += way(self.forward, leaves, kind)[: len(part)]
        return found

    def _filled(self, calls: list[Leaves], size: int | None) -> list[Leaves]:
        return calls + calls[-1:] * ((size or 0) - len(calls))

    def _tried(self, way: Way, cells: list[Cell]) -> list[tuple[Leaves, Any]] | None:
        """The calls with a known one behind them: last, so that reading the time of row 0 for all is found out."""
        kind = cells[0].signature
        leaves, expected = self.known[kind]
        try:
            calls = self._filled([cell.leaves for cell in cells], self.fill and self.fill - 1)
            found = way(self.forward, [*calls, leaves], kind)
        except _FAILURES:
            return None
        answers, (check, _) = found[: len(cells)], found[-1]
        if len(check) != len(expected):
            return None
        gaps = [_gap(one, other) for one, other in zip(check, expected, strict=True)]
        if any(gap > _tolerated(other) for gap, other in zip(gaps, expected, strict=True)):
            return None
        self.noise = max(self.noise, *gaps)
        return answers


Way = Callable[[Callable[..., Any], list[Leaves], Signature], list[tuple[Leaves, Any]]]


def _concatenated(forward: Callable[..., Any], calls: list[Leaves], kind: Signature) -> list[tuple[Leaves, Any]]:
    """Along the first dimension: states and embeddings one behind the other, times repeated for their rows."""
    return _rows_together(forward, calls, kind, sharing=False)


def _sharing(forward: Callable[..., Any], calls: list[Leaves], kind: Signature) -> list[tuple[Leaves, Any]]:
    """The same, but what is one object in all calls stays one: a rotary table as long as the batch, say."""
    return _rows_together(forward, calls, kind, sharing=True)


def _rows_together(
    forward: Callable[..., Any], calls: list[Leaves], kind: Signature, *, sharing: bool
) -> list[tuple[Leaves, Any]]:
    rows = next((leaf.shape[0] for leaf in calls[0] if _is_state(leaf)), None)
    if rows is None:
        raise ValueError("expected an argument with a first dimension, found none")
    merged = []
    for index, first in enumerate(calls[0]):
        one = sharing and isinstance(first, Tensor) and all(call[index] is first for call in calls)
        merged.append(first if one else _merged([call[index] for call in calls], rows))
    args, kwargs = pytree.tree_unflatten(merged, kind.structure)
    outputs, structure = pytree.tree_flatten(forward(*args, **kwargs))
    return [
        ([_part(output, number, rows, len(calls)) for output in outputs], structure) for number in range(len(calls))
    ]


def _listed(forward: Callable[..., Any], calls: list[Leaves], kind: Signature) -> list[tuple[Leaves, Any]]:
    """Networks that take a list with one entry for each sample, and return one: the lists one behind the other."""
    trees = [pytree.tree_unflatten(call, kind.structure) for call in calls]
    named = [dict(enumerate(args)) | kwargs for args, kwargs in trees]
    rows = next((len(value) for value in named[0].values() if isinstance(value, list)), None)
    if rows is None:
        raise ValueError("expected a list among the arguments, found none")
    merged = {
        name: [item for call in named for item in call[name]]
        if isinstance(value, list)
        else _merged([call[name] for call in named], rows)
        for name, value in named[0].items()
    }
    args = [merged.pop(index) for index in range(len(trees[0][0]))]
    output = forward(*args, **merged)
    return [pytree.tree_flatten(_listed_part(output, number, rows, len(calls))) for number in range(len(calls))]


def _listed_part(output: Any, number: int, rows: int, calls: int) -> Any:  # noqa: ANN401
    if isinstance(output, list) and len(output) == rows * calls:
        return output[number * rows : (number + 1) * rows]
    if isinstance(output, Tensor):
        return _part(output, number, rows, calls)
    if isinstance(output, tuple):
        return tuple(_listed_part(item, number, rows, calls) for item in output)
    if isinstance(output, dict):
        return type(output)(**{name: _listed_part(item, number, rows, calls) for name, item in output.items()})
    return output


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


def _gap(found: Any, expected: Any) -> float:  # noqa: ANN401
    """Rms of the difference of two outputs, over rms; infinite where they cannot be compared."""
    if not isinstance(expected, Tensor):
        return 0.0
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return math.inf
    if not expected.is_floating_point():
        return 0.0 if torch.equal(found, expected) else math.inf
    if not torch.equal(found.isfinite(), expected.isfinite()):
        return math.inf
    found, expected = (value.double().nan_to_num(0.0, 0.0, 0.0) for value in (found, expected))
    gap, size = (found - expected).square().mean().sqrt(), expected.square().mean().sqrt()
    return 0.0 if gap <= 1e-12 else float((gap / size).nan_to_num(math.inf, math.inf))


def _tolerated(expected: Any) -> float:  # noqa: ANN401
    half = isinstance(expected, Tensor) and expected.dtype in (torch.float16, torch.bfloat16)
    return _CLOSE_HALF if half else _CLOSE
