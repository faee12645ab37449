r"""Coarse steps made from a sampler's own table: its rows, with one output held from the first to the last.

Between two rows s < t of a chain that uses nothing from before s, the closed loop of the table gives

.. math:: z_t = u\, z_s + \sum_j B_j f_j + \sum_n C_n \xi_n .

With every output :math:`f_j` replaced by the first, :math:`f_s`, this is one coarse step of weights u and
:math:`\sum_j B_j`, and its noise is what the fine noises add up to: :math:`\sum_n C_n \xi_n = |C|\,\bar\xi`,
:math:`\bar\xi` a standard normal again. For every exponential integrator (DDIM, DDPM, Euler and flow Euler among them)
it is the integrator's own step from s to t, driven by the same noise; it needs no noise schedule, so tables that were
read from a scheduler have coarse steps too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.tableau import Tableau


class Coarse(NamedTuple):
    """A coarse table and the noises that drive it.

    Args:
        table: Its rows; noise column n belongs to row n.
        mix: Coarse noises as combinations of the fine table's, shape (rows, R): rows of length 1, or 0 where the fine
            table has no noise.
    """

    table: Tableau
    mix: Array


def cuts(table: Tableau) -> list[int]:
    """Rows at which a chain may be cut: what comes after such a row uses nothing from before it.

    Args:
        table: A table.

    Returns:
        Ascending, from row 0 to the last, with a node between any two.
    """
    reaches = np.arange(table.rows)  # the earliest row, or noise, that a row looks at
    for used, sources in table.entries[:2]:
        np.minimum.at(reaches, used, sources)
    noised, noises = table.entries[2]
    np.minimum.at(reaches, noised, noises - 1)  # a cut row's own noise is spent on it
    earliest = np.minimum.accumulate(reaches[::-1])[::-1]
    before = np.concatenate([[0], np.cumsum(table.evaluated)])  # nodes before each row
    found = [0]
    for row in range(1, table.rows - 1):
        if earliest[row + 1] >= row and before[found[-1]] < before[row] < table.nodes:
            found.append(row)
    return [*found, table.rows - 1]


def part(table: Tableau, first: int, last: int) -> Tableau:
    """The rows between two cuts, as a chain of its own.

    Args:
        table: The whole.
        first: Row to start from.
        last: Row to end at, no node of the part.

    Returns:
        A table; its noise column n is column ``first + n`` of the whole.
    """
    rows = slice(first, last + 1)
    a, b, c = (matrix[rows, rows].copy() for matrix in (table.a, table.b, table.c))
    evaluated, draws = table.evaluated[rows].copy(), table.draws[rows].copy()
    c[0], draws[0], evaluated[-1] = 0.0, False, False  # what leads to the first row is not part of it
    return Tableau(
        t=table.t[rows].copy(),
        a=a,
        b=b,
        c=c,
        form=table.form,
        evaluated=evaluated,
        alpha=None if table.alpha is None else table.alpha[rows].copy(),
        sigma=None if table.sigma is None else table.sigma[rows].copy(),
        scale=table.scale[rows].copy(),
        draws=draws | np.any(c != 0, axis=0),
    )


def added(table: Tableau, rows: Sequence[int]) -> tuple[Array, Array]:
    """What the fine noises between some cuts add up to.

    Args:
        table: The sampler's own table.
        rows: Cuts, ascending, K + 1 of them.

    Returns:
        Standard deviations at each row, shape (K + 1,), and the mix of :class:`Coarse`.
    """
    size, mix = np.zeros(len(rows)), np.zeros((len(rows), table.rows))
    for index, (first, last) in enumerate(pairwise(rows), start=1):
        weights = part(table, first, last).gains()[2][-1]
        size[index] = np.linalg.norm(weights)
        if size[index] > 0:
            mix[index, first : last + 1] = weights / size[index]
    return size, mix


def held(table: Tableau, rows: Sequence[int]) -> Coarse:
    """Coarse steps between some cuts, the output of each step's first row held over it.

    Args:
        table: The sampler's own table, in the form that is to be held.
        rows: Cuts, ascending, K + 1 of them.

    Returns:
        A table of K + 1 rows in the same form.

    Raises:
        SpecError: if the model is not evaluated at a row to start from.
    """
    where = np.asarray(rows)
    if not np.all(table.evaluated[where[:-1]]):
        raise SpecError(
            "expected a model evaluation where each coarse step begins, found a row that is moved before it is "
            "evaluated (churn): name a coarse sampler"
        )
    count = len(rows)
    a, b = np.zeros((count, count)), np.zeros((count, count))
    for index, (first, last) in enumerate(pairwise(rows)):
        states, outputs, _ = part(table, first, last).gains()
        a[index + 1, index], b[index + 1, index] = states[-1], outputs[-1].sum()
    size, mix = added(table, rows)
    coarse = Tableau(
        t=table.t[where],
        a=a,
        b=b,
        c=np.diag(size),
        form=table.form,
        evaluated=np.arange(count) < count - 1,
        alpha=None if table.alpha is None else table.alpha[where],
        sigma=None if table.sigma is None else table.sigma[where],
        scale=table.scale[where],
        draws=size > 0,
    )
    return Coarse(coarse, mix)
