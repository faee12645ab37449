"""What calls that are not known yet, or not well, take from those beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paradrift.diffusers.calls import Cell, Leaves, Signature

RECENT = 16  # calls whose arguments are kept, and among which a donor is looked for
_DONORS = 8  # of the same signature


def borrow(cells: Sequence[Cell], number: int) -> bool:
    """Give a call that was not evaluated yet the outputs of the latest call that shares most arguments.

    Args:
        cells: Calls in their order.
        number: Number of the call; changed.

    Returns:
        Whether it has outputs now.
    """
    cell = cells[number]
    if cell.outputs and not cell.borrowed:
        return True
    answered = [other for other in cells[max(0, number - RECENT) : number] if other.leaves and other.outputs]
    donors = [other for other in answered if other.signature is cell.signature]
    if not donors:  # a second network that takes over: what the first one said is better than nothing
        donors = [other for other in answered if other.signature.alike(cell.signature)]
    if donors:

        def shared(other: Cell) -> int:
            return sum(a is b for a, b in zip(cell.leaves, other.leaves, strict=True))

        best = max(reversed(donors[-_DONORS:]), key=shared)
        cell.outputs, cell.structure, cell.borrowed = best.outputs, best.structure, True
        cell.slopes = [None] * len(best.outputs)
    return bool(cell.outputs)


def recognised(leaves: Leaves, known: Leaves | None) -> Leaves:
    """Arguments, with those that are equal to known ones as the same objects: comparing them later costs nothing.

    Args:
        leaves: Flattened arguments.
        known: Others of the same signature, or None.

    Returns:
        The arguments.
    """
    if known is None:
        return leaves
    return [
        then if isinstance(now, Tensor) and now is not then and torch.equal(now, then) else now
        for now, then in zip(leaves, known, strict=True)
    ]


def lend(cells: Sequence[Cell]) -> None:
    """Calls that were evaluated only once are taken to be as rough as the last one before (or after) evaluated twice.

    Args:
        cells: Calls in their order; changed.
    """
    for order in (cells, cells[::-1]):
        known: dict[Signature, list[Tensor | None]] = {}
        for cell in order:
            if any(rough is not None for rough in cell.rough):
                known[cell.signature] = cell.rough
            else:
                cell.rough = known.get(cell.signature, [])
