r"""Fewer nodes than steps: what a chain without noise needs not be asked, because it can be interpolated.

Along a path without noise the model's outputs are a smooth function of the noise level, and neighbouring nodes of a
long chain say nearly the same. So the model is asked at a few *kept* rows :math:`k_0 < k_1 < \dots`, and every other
output is a cubic through four kept ones, in :math:`\lambda = \log(\alpha/\sigma)` and in the form
:math:`\hat\epsilon - \hat x_0`, which is finite at both ends of any schedule. The weights of the steps stay those of
the fine table: with :math:`z_m = a_m z_{m-1} + b_m f_{m-1}`,

.. math:: z_{k_i} = A_i z_{k_{i-1}} + \sum_j w_{ij} \tilde f_j, \qquad
          w_{ij} = b_{j+1} \prod_{l=j+2}^{k_i} a_l, \quad A_i = \prod_{l=k_{i-1}+1}^{k_i} a_l,

and :math:`\tilde f_j = \sum_n \ell_n(\lambda_j) f_{k_n}`. So what is approximated is the sampler's own answer, its
discretisation error included, not the differential equation behind it. A row may only use outputs before it, so it is
first *predicted* with the quadratic through three earlier nodes, evaluated there, and its successors start from it
*corrected* with the cubic that contains its own output: an Adams-Bashforth-Moulton method (predict, evaluate, correct)
whose quadrature is exact for the steps at hand. Prediction and correction share their states, so both are weights of
outputs, and the result is a table like any other.

How far an answer is off is told by a second cubic, through the four nodes nearest to each gap instead of the last four:
where the two disagree, neither is to be believed. See :attr:`Thin.doubt`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paradrift.forms import Affine, Array, Form, convert
from paradrift.growth import SIGNAL, levels
from paradrift.tableau import Tableau

PREDICTOR, CORRECTOR = 3, 4  # nodes of the two polynomials
MEASURED = Form.FLOW  # the form that is interpolated


@dataclass(frozen=True, kw_only=True, eq=False)
class Thin:
    r"""A thinned chain.

    Args:
        table: The thinned chain, for outputs of the form of the whole one.
        kept: Rows of the whole chain that it keeps, ascending, shape (K + 1,): K nodes and the answer.
        asked: The form of its outputs.
        fine: The whole chain, for outputs of the form that is interpolated.
        variance: Data variance per element.
        doubt: What the two cubics disagree about in each gap: weights of the K outputs, shape (K, K), row i for the gap
            before ``kept[i + 1]``.
        sources: Which kept outputs each output of the chain is made of, shape (R - 1, 4), int64: the same for all of a
            gap.
        shares: And with which weights, shape (R - 1, 4).
        through: How much of the last kept state before it each row has, shape (R,).
        gained: How much of the outputs that its gap is made of each row has, shape (R, 4).
        sizes: What a unit error of all outputs from one kept row to the next does at the latter, shape (K,).
        felt: What a unit error there does to the answer, for the variances of :func:`paradrift.growth.ladder`, shape
            (LEVELS, K).
    """

    table: Tableau
    kept: NDArray[np.int64]
    asked: Form
    fine: Tableau
    variance: float
    doubt: Array
    sources: NDArray[np.int64]
    shares: Array
    through: Array
    gained: Array
    sizes: Array
    felt: Array

    @property
    def middles(self) -> NDArray[np.int64]:
        """The row in the middle from each kept row to the next, or the first where none is skipped; shape (K,)."""
        return (self.kept[:-1] + self.kept[1:]) // 2

    def measured(self, rows: NDArray[np.int64]) -> Affine:
        """How outputs turn into those that are interpolated: p times what the model sees, plus q times its output.

        Args:
            rows: Rows of the whole chain, shape (N,).

        Returns:
            The pair (p, q), shapes (N,).
        """
        fine = self.fine
        assert fine.alpha is not None
        assert fine.sigma is not None
        return convert(self.asked, MEASURED, fine.alpha[rows] * fine.scale[rows], fine.sigma[rows] * fine.scale[rows])


def thinnable(table: Tableau) -> bool:
    """Whether a chain can be thinned: one step from row to row, no noise, and noise levels that fall.

    Args:
        table: The sampler's table.

    Returns:
        Whether it is so.
    """
    return not table.noisy and falling(table)


def falling(table: Tableau) -> bool:
    """Whether a chain goes one step from row to row, every one but the answer a node, at noise levels that fall.

    Args:
        table: The sampler's table.

    Returns:
        Whether it is so.
    """
    if table.reach > 1 or table.alpha is None or table.sigma is None or table.form is Form.VALUE:
        return False
    if not table.evaluated[:-1].all() or not np.all(table.sigma[:-1] > 0) or not np.all(table.alpha[-1:] > 0):
        return False
    return bool(np.all(np.diff(_lambda(table)) > 0))


def spread(table: Tableau, count: int, density: Callable[[Array], Array] = np.ones_like) -> NDArray[np.int64]:
    """Rows to keep: evenly spread over a mean of log-SNR and of the steps, the first, the last node and the answer.

    Steps are dense where their author saw need, log-SNR where outputs change: half of each was as good as the better
    one on every problem (``docs/decisions.md``).

    Args:
        table: A chain that can be thinned.
        count: How many nodes; about, as two may fall on one row.
        density: How much denser rows are kept at some log(alpha / sigma), shape (N,), than that.

    Returns:
        Rows, ascending, int64.
    """
    measure, nodes = _lambda(table), table.nodes
    apart = np.diff(measure) / (measure[-1] - measure[0]) + 1 / (nodes - 1)
    place = np.append(0.0, np.cumsum(apart * density((measure[:-1] + measure[1:]) / 2)))
    found = np.searchsorted(place, place[-1] * (np.linspace(0, 1, count) - 1e-12))
    return np.append(np.unique([0, *np.minimum(found, nodes - 1), nodes - 1]), nodes)


@functools.lru_cache(maxsize=8)
def thin(table: Tableau, count: int, variance: float) -> Thin:
    """Thin a chain; made once for the same table.

    Args:
        table: A chain that can be thinned.
        count: How many nodes to keep, at least 5.
        variance: Data variance per element, for :attr:`Thin.felt`.

    Returns:
        The thinned chain.
    """
    fine, kept = _fine(table), spread(table, count)
    assert fine.alpha is not None
    assert fine.sigma is not None
    measure, nodes = _lambda(table), len(kept) - 1
    growth = levels(fine, variance) / np.maximum(fine.alpha, SIGNAL)
    size, moved = nodes + 1, np.zeros(nodes)
    a, b, doubt = np.zeros((size, size)), np.zeros((size, size)), np.zeros((nodes, nodes))
    felt, sizes = np.zeros((len(growth), nodes)), np.zeros(nodes)
    sources, shares = np.zeros((table.nodes, CORRECTOR), np.int64), np.zeros((table.nodes, CORRECTOR))
    through, gained = np.ones(table.rows), np.zeros((table.rows, CORRECTOR))
    steps, outputs = fine.band("a", 1), fine.band("b", 1)

    def polynomial(rows: NDArray[np.int64], begin: int, end: int) -> Array:
        """Weights of the outputs of nodes ``begin`` to ``end`` at some rows."""
        weights = np.zeros((len(rows), nodes))
        weights[:, begin:end] = _lagrange(measure[rows], measure[kept[begin:end]])
        return weights

    for index in range(1, size):
        rows = np.arange(kept[index - 1], kept[index])
        after = np.cumprod(np.append(1.0, steps[rows[1:] + 1][::-1]))[::-1]
        whole, weights = steps[rows[0] + 1] * after[0], outputs[rows + 1] * after
        newest = min(index + 1, nodes)
        nearest = min(max(0, index - CORRECTOR // 2), max(0, nodes - CORRECTOR))
        predicted = polynomial(rows, max(0, index - PREDICTOR), index)
        corrected = polynomial(rows, max(0, newest - CORRECTOR), newest)
        centred = polynomial(rows, nearest, min(nodes, nearest + CORRECTOR))
        a[index, index - 1] = whole
        b[index, :nodes] = weights @ predicted + whole * moved
        moved = weights @ (corrected - predicted)
        doubt[index - 1] = weights @ (corrected - centred)
        felt[:, index - 1] = growth[:, kept[index]]
        sizes[index - 1] = np.abs(weights).sum()
        used = np.arange(max(0, newest - CORRECTOR), newest)
        sources[rows, : len(used)], shares[rows, : len(used)] = used, corrected[:, used]
        state, gain = 1.0, np.zeros(CORRECTOR)
        for row in rows:
            state, gain = steps[row + 1] * state, steps[row + 1] * gain + outputs[row + 1] * shares[row]
            through[row + 1], gained[row + 1] = state, gain
    thinned = Tableau(
        t=table.t[kept],
        a=a,
        b=b,
        c=np.zeros((size, size)),
        form=MEASURED,
        evaluated=np.arange(size) < nodes,
        alpha=fine.alpha[kept],
        sigma=fine.sigma[kept],
        scale=table.scale[kept],
        start=table.start,
        draws=np.zeros(size, bool),
    )
    return Thin(
        table=thinned.reform(table.form),
        kept=kept,
        asked=table.form,
        fine=fine,
        variance=variance,
        doubt=doubt,
        sources=sources,
        shares=shares,
        through=through,
        gained=gained,
        felt=felt,
        sizes=sizes,
    )


@functools.lru_cache(maxsize=2)  # dense matrices, shared by all numbers of nodes
def _fine(table: Tableau) -> Tableau:
    return table.reform(MEASURED)


def _lambda(table: Tableau) -> Array:
    """log(alpha / sigma) of each node, shape (M,); a start without signal counts as having next to none."""
    assert table.alpha is not None
    assert table.sigma is not None
    return np.log(np.maximum(table.alpha[:-1], SIGNAL)) - np.log(table.sigma[:-1])


def _lagrange(at: Array, points: Array) -> Array:
    """Values of the polynomials that are 1 at one point and 0 at the others, shape (N, P)."""
    values = np.ones((len(at), len(points)))
    for point, found in enumerate(points):
        for other in np.delete(points, point):
            values[:, point] *= (at - other) / (found - other)
    return values
