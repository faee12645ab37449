r"""Fewer nodes than steps where noise is drawn: one evaluation for a whole gap of steps, at the average of its states.

With noise, neighbouring outputs differ by what the noise between them has moved: they cannot be interpolated in time.
But what a gap of steps adds up to is nearly the output at an *average state*: with :math:`\bar x = x / \alpha` and the
outputs F in a form that changes slowly, the rows :math:`k_i, \dots, k_{i+1} - 1` of a gap contribute

.. math:: \sum_m w_m F(\bar x_m, t_m) \approx W\, F\Big(\sum_m \frac{w_m}{W} \bar x_m,\ t_{r_i}\Big), \qquad
          W = \sum_m w_m, \quad r_i = \sum_m \frac{w_m}{W} m,

exactly where F is linear in the state with a derivative that does not change within the gap, whatever its matrix: the
noises of the gap are averaged with the weights that the sampler itself gives them. What is left are curvature and the
change of the derivative, so the error falls faster than with the number of nodes, on the same noises. F is the output
of a network preconditioned as Karras et al. have it, which vanishes for isotropic centred Gaussian data of variance v
(:func:`paradrift.forms.preconditioned`); what it multiplies moves with every step of the fine table.

Averages are linear in the state at the beginning of the gap, the output of the gap before (a prediction), and the
noises; the beginning is linear in the average before. So averages of all gaps are a chain of their own, with two
outputs and one Gaussian a row: a table like any other, whose noises are sums of the fine chain's
(:class:`paradrift.noise.Gathered`).

How far an answer is off is measured: the two halves of a gap have averages of their own, which add up to that of the
whole, so the two outputs there and the one in the middle tell the error of the gap (:attr:`Average.halves`).

Source: averaging the noise within a step is how methods of strong order 1.5 for additive noise use it (Foster,
Oberhauser and Lyons 2020, SIAM J. Numer. Anal. 58, log-ODE methods); here it thins a
given chain instead of discretising an SDE.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paradrift.forms import Affine, Array, Form, preconditioned
from paradrift.gaps import edges_of
from paradrift.growth import SIGNAL, levels
from paradrift.tableau import Tableau
from paradrift.thinning import falling

_WITHOUT_SIGNAL = (Form.DATA, Form.V, Form.FLOW)  # forms that say what the data are even then


@dataclass(frozen=True, kw_only=True, eq=False)
class Average:
    """States, each linear in the state at the beginning of its gap, the gap's output, and the noises of the gap.

    Args:
        gap: Which gap, shape (N,), int64.
        row: The row of the whole chain whose time they are seen at, shape (N,), int64.
        through: How much of the beginning they have, shape (N,).
        gained: How much of the gap's output, shape (N,).
        noises: How much of each of its noises, from the first row after the beginning on, shape (N, G).
        weight: What the outputs that they stand for weigh at the end of the gap, shape (N,).
    """

    gap: NDArray[np.int64]
    row: NDArray[np.int64]
    through: Array
    gained: Array
    noises: Array
    weight: Array

    def of(self, which: NDArray[np.int64]) -> Average:
        """Some of them.

        Args:
            which: Which, int64.

        Returns:
            Those.
        """
        names = ("gap", "row", "through", "gained", "noises", "weight")
        return Average(**{name: getattr(self, name)[which] for name in names})


@dataclass(frozen=True, kw_only=True, eq=False)
class Averaged:
    """A thinned chain with noise.

    Args:
        table: The chain of averages, K nodes, for outputs of the form of the whole one; its noises are
            :class:`paradrift.noise.Gathered`.
        kept: Rows of the whole chain that its nodes are seen at, and the answer, ascending, shape (K + 1,).
        edges: First row of each gap, and the answer, shape (K + 1,).
        fine: The whole chain.
        variance: Data variance per element of the preconditioning.
        wholes: The averages themselves; ``gained`` is of the output of the gap before.
        halves: The averages of the halves of each gap, the first, then the second, shape (2 K,); those of a gap of a
            single row are that row.
        felt: What a unit error at the end of each gap does to the answer, for the variances of
            :func:`paradrift.growth.ladder`, shape (LEVELS, K).
        columns: Noises of the whole chain that each row of the table adds up, shape (K + 1, L), int64.
        shares: And with which weights, shape (K + 1, L).
        inside: The states of all rows but the answer; ``gap`` as everywhere.
    """

    table: Tableau
    kept: NDArray[np.int64]
    edges: NDArray[np.int64]
    fine: Tableau
    variance: float
    wholes: Average
    halves: Average
    felt: Array
    columns: NDArray[np.int64]
    shares: Array
    inside: Average

    def measured(self, rows: NDArray[np.int64]) -> Affine:
        """How outputs turn into F: p times what the model sees, plus q times its output.

        Args:
            rows: Rows of the whole chain, shape (N,).

        Returns:
            The pair (p, q), shapes (N,).
        """
        return _preconditioned(self.fine, self.variance, rows)


def averageable(table: Tableau) -> bool:
    """Whether gaps of a chain can be averaged: one step from row to row, each with its own noise, data at every node.

    Args:
        table: The sampler's table.

    Returns:
        Whether it is so.
    """
    if not table.noisy or table.lags[2] != (0,) or not falling(table):
        return False
    assert table.alpha is not None
    if not np.all(table.alpha[1:-1] > 0) or (table.alpha[0] == 0 and table.form not in _WITHOUT_SIGNAL):
        return False
    outputs = _moving(table, 1.0)[1][1:]
    return bool(np.all(outputs > 0) or np.all(outputs < 0))


@functools.lru_cache(maxsize=8)
def average(table: Tableau, count: int, variance: float) -> Averaged:
    """Thin a chain with noise; made once for the same table.

    Args:
        table: A chain of which :func:`averageable` is true.
        count: How many nodes, about; gaps have odd numbers of rows, so that there is one in the middle.
        variance: Data variance per element.

    Returns:
        The thinned chain.
    """
    assert table.alpha is not None
    assert table.sigma is not None
    alpha, edges = np.maximum(table.alpha, SIGNAL), edges_of(table, count, variance)
    steps, outputs, noises = _moving(table, variance)
    gaps, size, longest = len(edges) - 1, table.rows, int(np.diff(edges).max())
    gap = np.repeat(np.arange(gaps), np.diff(edges))
    through, gained, drawn = np.ones(size - 1), np.zeros(size - 1), np.zeros((size - 1, longest))
    ends = np.ones(gaps), np.zeros(gaps), np.zeros((gaps, longest))
    weights = np.zeros(size - 1)
    for index in range(gaps):
        first, last = edges[index], edges[index + 1]
        state, gain, shaken = 1.0, 0.0, np.zeros(longest)
        for row in range(first + 1, last + 1):
            state, gain, shaken = steps[row] * state, steps[row] * gain + outputs[row], steps[row] * shaken
            shaken[row - first - 1] += noises[row]
            if row < last:
                through[row], gained[row], drawn[row] = state, gain, shaken
        ends[0][index], ends[1][index], ends[2][index] = state, gain, shaken
        after = np.cumprod(np.append(1.0, steps[first + 2 : last + 1][::-1]))[::-1]
        weights[first:last] = outputs[first + 1 : last + 1] * after
    inside = Average(gap=gap, row=np.arange(size - 1), through=through, gained=gained, noises=drawn, weight=weights)
    middle = (edges[:-1] + edges[1:] + 1) // 2
    halves = np.stack([edges[:-1], middle, np.minimum(middle, edges[1:] - 1), edges[1:]])
    wholes = _averages(inside, alpha, edges[:-1], edges[1:])
    parts = [_averages(inside, alpha, halves[0], halves[1]), _averages(inside, alpha, halves[2], halves[3])]
    kept = np.append(wholes.row, size - 1)
    chain, columns, shares = _chain(table, variance, edges, wholes, ends)
    names = ("gap", "row", "through", "gained", "noises", "weight")
    return Averaged(
        table=chain,
        kept=kept,
        edges=edges,
        fine=table,
        variance=variance,
        wholes=wholes,
        halves=Average(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}),
        felt=(levels(table, variance) / alpha)[:, edges[1:]],
        columns=columns,
        shares=shares,
        inside=inside,
    )


def _preconditioned(table: Tableau, variance: float, rows: NDArray[np.int64]) -> Affine:
    assert table.alpha is not None
    assert table.sigma is not None
    scale = table.scale[rows]  # forms speak of what the model sees
    return preconditioned(table.form, table.alpha[rows] * scale, table.sigma[rows] * scale, variance)


def _moving(table: Tableau, variance: float) -> tuple[Array, Array, Array]:
    """The chain for outputs F: weights of the state, of the output and of the noise of each step, shape (R,)."""
    nodes = np.arange(table.rows - 1)
    p, q = _preconditioned(table, variance, nodes)
    steps, outputs = table.band("a", 1), table.band("b", 1)
    steps[1:] -= outputs[1:] * p * table.scale[:-1] / q
    outputs[1:] /= q
    return steps, outputs, table.band("c", 0)


def _averages(inside: Average, alpha: Array, first: NDArray[np.int64], last: NDArray[np.int64]) -> Average:
    """Averages of states over alpha, from one row to before another, at the signal level of the row in their middle."""
    found: list[tuple[int, int, float, float, Array, float]] = []
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        weights = inside.weight[begin:end]
        total = weights.sum()
        row = round(begin + float(weights @ np.arange(end - begin) / total))
        share = weights / total / alpha[begin:end] * alpha[row]
        state, gain = float(share @ inside.through[begin:end]), float(share @ inside.gained[begin:end])
        found.append((int(inside.gap[begin]), row, state, gain, share @ inside.noises[begin:end], float(total)))
    gap, row, through, gained, noises, weight = zip(*found, strict=True)
    return Average(
        gap=np.array(gap),
        row=np.array(row),
        through=np.array(through),
        gained=np.array(gained),
        noises=np.stack(noises),
        weight=np.array(weight),
    )


def _used(weights: Array) -> list[int]:
    """Where weights are not zero."""
    return np.flatnonzero(weights).tolist()


def _chain(
    table: Tableau, variance: float, edges: NDArray[np.int64], wholes: Average, ends: tuple[Array, Array, Array]
) -> tuple[Tableau, NDArray[np.int64], Array]:
    r"""The averages as a chain of their own, and the noises that its rows add up.

    With beginnings :math:`k`, averages :math:`z_i = P_i k_i + Q_i F_{i-1} + n_i` and ends
    :math:`k_{i+1} = A_i k_i + B_i F_i + e_i`,

    .. math:: z_{i+1} = g_i z_i + (P_{i+1} B_i + Q_{i+1}) F_i - g_i Q_i F_{i-1}
                        + n_{i+1} + P_{i+1} e_i - g_i n_i, \qquad g_i = P_{i+1} A_i / P_i .
    """
    gaps = len(wholes.gap)
    size, longest = gaps + 1, wholes.noises.shape[1]
    through, gained = np.append(wholes.through, 1.0), np.append(wholes.gained, 0.0)
    rows = np.append(wholes.row, table.rows - 1)
    a, b, c = np.zeros((size, size)), np.zeros((size, size)), np.zeros((size, size))
    columns = np.ones((size, 2 * longest), np.int64)
    shares = np.zeros((size, 2 * longest))
    fine_p, fine_q = _preconditioned(table, variance, wholes.row)
    fine_p = fine_p * table.scale[wholes.row]
    for row in range(1, size):
        old = row - 1
        grown = through[row] * ends[0][old] / through[old]
        a[row, old] = grown
        for source, weight in ((old, through[row] * ends[1][old] + gained[row]), (old - 1, -grown * gained[old])):
            if source >= 0 and weight != 0:
                a[row, source] += weight * fine_p[source]
                b[row, source] = weight * fine_q[source]
        weights = through[row] * ends[2][old] - grown * wholes.noises[old], *wholes.noises[row:][:1]
        found = [
            (edges[old + place] + 1 + index, one[index]) for place, one in enumerate(weights) for index in _used(one)
        ]
        for place, (column, share) in enumerate(found):
            columns[row, place], shares[row, place] = column, share
        c[row, row] = 1.0
    assert table.alpha is not None
    assert table.sigma is not None
    chain = Tableau(
        t=table.t[rows],
        a=a,
        b=b,
        c=c,
        form=table.form,
        evaluated=np.arange(size) < gaps,
        alpha=table.alpha[rows],
        sigma=table.sigma[rows],
        scale=table.scale[rows],
        start=table.start,
        draws=np.arange(size) > 0,
    )
    return chain, columns, shares
