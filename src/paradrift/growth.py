r"""How far a change of one row is felt in the answer.

With the slopes :math:`s_m` of Gaussian data of variance v, the table is linear and a unit change of row j reaches the
last row multiplied by :math:`y_j`, the solution of the adjoint recursion

.. math:: y_{R-1} = 1, \qquad y_j = \sum_{m > j} (a_{mj} + b_{mj} s_j) \, y_m ,

here for states in x / alpha. For one-step tables of stochasticity :math:`\lambda` it is close to
:math:`(v / (v + \sigma_j^2/\alpha_j^2))^{(1+\lambda^2)/2}`: small at the noise end, and 1 everywhere as v grows. Real
networks are steeper than their data in some directions; the largest v that their slopes show stands in for them.
"""

from __future__ import annotations

import functools

import numpy as np

from paradrift.forms import Array
from paradrift.slopes import gaussian, in_form
from paradrift.tableau import Tableau

SIGNAL = 1e-4  # floor of alpha: a start without signal has an infinite x / alpha
FLOOR = 2  # growth is never taken below that of 16 times the data variance: errors are smooth, and data vary most there
LEVELS = 10  # variances v0 4^k, k = 0..9: the last is "unknown", 2.6e5 times the data variance


def response(table: Tableau, variances: Array) -> Array:
    """Growth from each row to the last, for Gaussian data of several variances.

    Args:
        table: The sampler's table.
        variances: Data variances per element, shape (K,).

    Returns:
        Shape (K, R), non-negative; all ones for tables without a noise schedule, where nothing is known.
    """
    if table.alpha is None:
        return np.ones((len(variances), table.rows))
    return np.abs(_signed(table, variances)) * table.alpha / table.alpha[-1]


def _signed(table: Tableau, variances: Array) -> Array:
    """What one unit of each row's state adds to the answer, with its sign, shape (K, R)."""
    slopes = np.stack([in_form(table, gaussian(table, variance)) for variance in variances])
    size = table.rows
    # transition[lag][:, row]: what one unit of the row adds to the row ``lag`` further on
    transitions = []
    for lag in range(1, table.reach + 1):
        a, b = table.band("a", lag)[lag:], table.band("b", lag)[lag:]
        transitions.append(np.pad(a + b * slopes[:, : size - lag], ((0, 0), (0, lag))))
    y = np.zeros((len(variances), size + table.reach))
    y[:, size - 1] = 1.0
    for row in range(size - 2, -1, -1):
        y[:, row] = sum(transition[:, row] * y[:, row + lag] for lag, transition in enumerate(transitions, start=1))
    return y[:, :size]


def ladder(variance: float) -> Array:
    """The variances that growth is known for: ``variance * 4**k``.

    Args:
        variance: Data variance per element, v0.

    Returns:
        Shape (LEVELS,).
    """
    return np.array([variance * 4.0**level for level in range(LEVELS)])


def levels(table: Tableau, variance: float) -> Array:
    """Growth for a ladder of variances.

    Args:
        table: The sampler's table.
        variance: Data variance per element, v0.

    Returns:
        Shape (LEVELS, R); each level at least as large as the one below.
    """
    return np.maximum.accumulate(response(table, ladder(variance)), axis=0)


@functools.lru_cache(maxsize=4)  # as many as tables are kept: for 1000 rows it takes as long as ten rounds
def influence(table: Tableau, variance: float, lawful: bool) -> Array:
    r"""What a unit defect of each node's output does to the answer: :math:`|\sum_m b_{mj} y_m| / \alpha_{R-1}`.

    Where an output enters several rows, with opposite signs in multistep rules, what counts for the answer is what is
    left of it: the rows follow each other closely, and what they are felt by in the answer is nearly the same. Where
    each row has a law of its own that is to be met, sizes are added.

    Args:
        table: The sampler's table.
        variance: Data variance per element, v0.
        lawful: Whether the law of each row counts, and not the answer alone.

    Returns:
        Shape (LEVELS, R), for the ladder of :func:`levels`; without a noise schedule sums of sizes.
    """
    signed = table.alpha is not None and not lawful
    alpha = np.ones(table.rows) if table.alpha is None else np.maximum(table.alpha, SIGNAL)
    felt = _signed(table, ladder(variance)) / alpha[-1] if signed else levels(table, variance) / alpha
    total = np.zeros_like(felt)
    for lag in table.lags[1]:
        weights = table.band("b", lag)[lag:]
        total[:, : table.rows - lag] += (weights if signed else np.abs(weights)) * felt[:, lag:]
    total = np.maximum.accumulate(np.abs(total), axis=0)
    total.flags.writeable = False  # kept, so shared
    return total
