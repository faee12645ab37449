r"""Blocks of equal time with shrinking steps: their number of steps and their times.

With r the remaining forward time, block n of N leads from :math:`r = \eta + (N - n) h` down by h.
Its steps obey :math:`r_m - r_{m+1} \le \epsilon \min(1, r_{m+1})`: equal while :math:`r > 1`, geometric after that.

Source of the condition: Benton et al. 2024, arXiv 2308.03686.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paradrift.forms import Array

Counts = NDArray[np.int64]


def edges(blocks: int, length: float, last: float) -> Array:
    """Remaining times between blocks.

    Args:
        blocks: Number of blocks N.
        length: Time h of a block.
        last: Remaining time eta at which sampling stops.

    Returns:
        Shape (N + 1,), decreasing, ending in ``last``.
    """
    return last + length * np.arange(blocks, -1.0, -1.0)


def counts(ends: Array, step: float) -> tuple[Counts, Counts]:
    """How many equal and how many geometric steps each block needs.

    Args:
        ends: Remaining times between blocks, shape (N + 1,).
        step: Step size epsilon.

    Returns:
        Two of shape (N,).
    """
    far, near = np.maximum(ends, 1.0), np.minimum(ends, 1.0)
    slack = 1 - 1e-9  # a quotient that is whole but for its rounding is whole
    equal = np.ceil(-np.diff(far) / step * slack)
    geometric = np.ceil(-np.diff(np.log(near)) / np.log1p(step) * slack)
    return equal.astype(np.int64), geometric.astype(np.int64)


def remaining(ends: Array, step: float) -> Array:
    """The grid: remaining time after each step.

    Args:
        ends: Remaining times between blocks, shape (N + 1,).
        step: Step size epsilon.

    Returns:
        Shape (steps + 1,), decreasing.
    """
    parts = [ends[:1]]
    for high, low, equal, geometric in zip(ends[:-1], ends[1:], *counts(ends, step), strict=True):
        if equal:
            parts.append(np.linspace(high, max(low, 1.0), equal + 1)[1:])
        if geometric:
            parts.append(np.geomspace(min(high, 1.0), low, geometric + 1)[1:])
    return np.concatenate(parts)
