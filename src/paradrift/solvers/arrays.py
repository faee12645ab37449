"""Arrays of a solve: numpy's where numbers are few and on the host, torch's elsewhere.

A round of a small problem is hundreds of operations on a few numbers each: what moved, what is settled, which slope
implies which variance. Numpy begins such an operation sooner than torch, and both round sums, products and quotients of
elements as the standard says, so a solve is the same to the bit whichever holds its arrays. Sums over elements, roots
and logarithms are left to torch in either case. Code that works on both takes functions that have one name from
:func:`library`, and those that have two from here.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Values: TypeAlias = Any  # an array of numpy or of torch
Places: TypeAlias = tuple[Any, ...]  # one vector for each axis

SMALL = 1 << 14  # numbers of a row of all samples that numpy handles faster, at most


def few(row: Tensor) -> bool:
    """Whether numpy is faster for rows like one.

    Args:
        row: One row of all samples, shape (S, D).

    Returns:
        Whether it lies on the host, has few numbers, and a dtype that numpy knows.
    """
    return row.device.type == "cpu" and row.numel() <= SMALL and row.dtype in (torch.float32, torch.float64)


def of(values: Tensor, host: bool) -> Values:
    """A tensor as an array of a solve; the memory is shared.

    Args:
        values: The tensor, on the device of the solve.
        host: Whether the solve holds numpy arrays.

    Returns:
        The array.
    """
    if not host:
        return values
    return (values.detach() if values.requires_grad else values).numpy()


def as_in(values: Tensor, array: Values) -> Values:
    """A tensor in the library of an array; the memory is shared.

    Args:
        values: The tensor.
        array: The array.

    Returns:
        The tensor as an array.
    """
    return of(values, isinstance(array, np.ndarray))


def tensor(values: Values) -> Tensor:
    """An array of a solve as a tensor; the memory is shared.

    Args:
        values: The array.

    Returns:
        The tensor.
    """
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def library(array: Values) -> Any:  # noqa: ANN401
    """The module whose functions work on an array: where, maximum, isfinite and others have one name in both.

    Args:
        array: The array.

    Returns:
        numpy or torch.
    """
    return np if isinstance(array, np.ndarray) else torch


def steps(begin: int, end: int, like: Values) -> Values:
    """Integers as a column.

    Args:
        begin: The first.
        end: The one after the last.
        like: An array in whose library and on whose device they are wanted.

    Returns:
        Shape (end - begin, 1), int64.
    """
    if isinstance(like, np.ndarray):
        return np.arange(begin, end)[:, None]
    return torch.arange(begin, end, device=like.device)[:, None]


def at(position: Values) -> Places:
    """Where one position of each sample is.

    Args:
        position: Positions, shape (S,) or (K, S), int64.

    Returns:
        Positions and samples.
    """
    count = position.shape[-1]
    if isinstance(position, np.ndarray):
        return position, np.arange(count)
    return position, torch.arange(count, device=position.device)


def places(mask: Values) -> Places:
    """Where a mask is true.

    Args:
        mask: Bool.

    Returns:
        One vector of int64 for each of its axes.
    """
    return mask.nonzero() if isinstance(mask, np.ndarray) else mask.nonzero(as_tuple=True)


def copy(values: Values) -> Values:
    """The same in new memory.

    Args:
        values: The array.

    Returns:
        The copy.
    """
    return values.copy() if isinstance(values, np.ndarray) else values.clone()


def cast(values: Values, like: Values) -> Values:
    """The same numbers in the dtype of another array.

    Args:
        values: The array.
        like: The other one.

    Returns:
        The array, which is ``values`` itself where nothing changes.
    """
    return values.astype(like.dtype, copy=False) if isinstance(values, np.ndarray) else values.to(like.dtype)


def whole(values: Values) -> Values:
    """The same numbers as int64.

    Args:
        values: The array.

    Returns:
        The array.
    """
    return values.astype(np.int64) if isinstance(values, np.ndarray) else values.long()


def clip(values: Values, low: float | None = None, high: float | None = None) -> Values:
    """Values within bounds; what is not a number stays so.

    Args:
        values: The array.
        low: The least; None for any.
        high: The largest; None for any.

    Returns:
        The array.
    """
    if not isinstance(values, np.ndarray):
        return values.clamp(low, high)
    if low is not None:
        values = np.maximum(values, low)
    return values if high is None else np.minimum(values, high)


def running_max(values: Values) -> Values:
    """The largest up to each row.

    Args:
        values: Shape (K, ...).

    Returns:
        The same shape.
    """
    return np.maximum.accumulate(values) if isinstance(values, np.ndarray) else values.cummax(0).values


def roll(values: Values, count: int) -> Values:
    """Rows moved forward; the first ones come last.

    Args:
        values: Shape (K, ...).
        count: By how many rows, at most K.

    Returns:
        The same shape, in new memory.
    """
    if isinstance(values, np.ndarray):
        return np.concatenate([values[count:], values[:count]])
    return values.roll(-count, 0)


def norm(values: Values) -> Values:
    """Root sums of squares over elements.

    Args:
        values: Shape (..., D).

    Returns:
        Shape (...).
    """
    return as_in(torch.linalg.vector_norm(tensor(values), dim=-1), values)


def total(values: Values) -> Values:
    """Sums over elements in float64.

    Args:
        values: Shape (..., D).

    Returns:
        Shape (..., 1).
    """
    return as_in(tensor(values).sum(-1, keepdim=True, dtype=torch.float64), values)


def root(values: Values) -> Values:
    """Square roots.

    Args:
        values: The array.

    Returns:
        The same shape.
    """
    return as_in(tensor(values).sqrt(), values)


def log2(values: Values) -> Values:
    """Logarithms to base two.

    Args:
        values: The array.

    Returns:
        The same shape.
    """
    return as_in(torch.log2(tensor(values)), values)


def add_at(values: Values, index: Values, more: Values) -> None:
    """Add to some entries, in place, as often as they are named.

    Args:
        values: Shape (N,).
        index: Which, shape (K,), int64.
        more: What, shape (K,).
    """
    if isinstance(values, np.ndarray):
        np.add.at(values, index, more)
    else:
        values.index_add_(0, index, more)
