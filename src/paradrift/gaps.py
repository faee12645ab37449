"""Where the gaps of a thinned chain with noise lie.

The error of a gap, felt in the answer, is nearly nothing where noise drowns the data, and largest at the end, where
fine details come out (measured on the problem set: ``docs/decisions.md``). Gaps of the same error are the best use of a
number of nodes; where they would be differs between models, so the density is what does for all of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from paradrift.forms import Array
from paradrift.tableau import Tableau
from paradrift.thinning import spread

DROWNED = 0.4, -2.75  # density below some log(alpha sqrt(v) / sigma)
FINE = 2.0, 3.5  # and above


def edges_of(table: Tableau, count: int, variance: float) -> NDArray[np.int64]:
    """First rows of gaps.

    Args:
        table: A chain that can be averaged.
        count: How many gaps, about.
        variance: Data variance per element v.

    Returns:
        Rows, ascending from 0, and the answer, int64; gaps have odd numbers of rows.
    """
    return odd(spread(table, count, lambda ratio: density(ratio + math.log(variance) / 2)))


def density(ratio: Array) -> Array:
    """How dense gaps are spread, as their errors are: few where noise drowns the data, more at its end.

    Args:
        ratio: log(alpha sqrt(v) / sigma), shape (N,).

    Returns:
        Shape (N,).
    """
    (few, begin), (many, end) = DROWNED, FINE
    noisy, late = (1 / (1 + np.exp(-4 * (ratio - edge))) for edge in (begin, end))
    return (few + (1 - few) * noisy) * (1 + (many - 1) * late)


def odd(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """First rows of gaps of odd lengths: the first node and the last by themselves.

    Args:
        rows: First rows, ascending, from 0, and the answer, int64.

    Returns:
        The same, each at most one row later.
    """
    last, found = int(rows[-1]), [0, 1]
    for row in rows[1:-1].tolist():
        row += (row - found[-1]) % 2 == 0
        if found[-1] < row < last - 1:
            found.append(row)
    if (last - 1 - found[-1]) % 2 == 0:  # an even gap is left: two odd ones
        found.append(found[-1] + 1)
    return np.array([*found, last - 1, last]) if found[-1] < last - 1 else np.array([*found, last])
