r"""Gaussian data: every state of every sampler is an affine function of the start and the noises, so laws are exact.

For one coordinate :math:`N(\mu, v)` on ``OU`` the score is :math:`f = k x + q` with :math:`C = 1 + e^{-t}(v - 1)`,
:math:`k = -1/C`, :math:`q = e^{-t/2}\mu/C`. A state is a row of coefficients with respect to :math:`(1, z_0, \xi_1,
\dots)`: its first entry is the mean, and products of the others are covariances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paradrift.forms import Array, Form
from paradrift.tableau import Tableau


@dataclass(frozen=True)
class Line:
    """One coordinate of Gaussian data, with a score that may be wrong.

    Args:
        mean: mu.
        variance: v.
        tilt: Size of the wrong term, ``tilt (1 + x / 2)``.
    """

    mean: float = 0.7
    variance: float = 2.5
    tilt: float = 0.0

    def law(self, t: Array | float) -> tuple[Array, Array]:
        """Mean and variance of the noisy data.

        Args:
            t: Times.

        Returns:
            The two, in the shape of the times.
        """
        left = np.exp(-np.asarray(t, float))
        return np.sqrt(left) * self.mean, 1 + left * (self.variance - 1)

    def score(self, t: Array | float) -> tuple[Array, Array]:
        """Slope and offset of the score.

        Args:
            t: Times.

        Returns:
            The two, in the shape of the times.
        """
        centre, spread = self.law(t)
        return self.tilt / 2 - 1 / spread, self.tilt + centre / spread

    def outputs(self, table: Tableau) -> tuple[Array, Array]:
        """Slope and offset of the model's output at each row, in the form of the table: SCORE or RESIDUAL.

        Args:
            table: The table.

        Returns:
            Shape (R,) each, zero at rows that are not nodes.
        """
        slope, offset = self.score(table.t)
        slope = slope + (table.form is Form.RESIDUAL)
        return np.where(table.evaluated, slope, 0.0), np.where(table.evaluated, offset, 0.0)


def sequential(table: Tableau, line: Line) -> Array:
    """Coefficients of the sequential sampler's states.

    Args:
        table: Any table in score or residual form.
        line: The data.

    Returns:
        Shape (R, 1 + R), with respect to 1, the start, and the noises of rows 1 to R - 1.
    """
    slope, offset = line.outputs(table)
    return _solved(np.eye(table.rows) - table.a - table.b * slope, _given(table, offset))


def picard(table: Tableau, line: Line, sweeps: int) -> tuple[Array, Array]:
    """Coefficients after so many Picard sweeps of the whole chain from the constant path, and before the last of them.

    Args:
        table: A table in score or residual form.
        line: The data.
        sweeps: K.

    Returns:
        Two of shape (R, 1 + R).
    """
    slope, offset = line.outputs(table)
    states = np.zeros((table.rows, table.rows + 1))
    states[:, 1] = 1
    before, transition = states, np.eye(table.rows) - table.a
    for _ in range(sweeps):
        before = states
        states = _solved(transition, _given(table, offset) + table.b @ (slope[:, None] * states))
    return states, before


def _solved(matrix: Array, right: Array) -> Array:
    return np.asarray(np.linalg.solve(matrix, right), np.float64)


def _given(table: Tableau, offset: Array) -> Array:
    """What each row holds apart from states."""
    given = np.zeros((table.rows, table.rows + 1))
    given[0, 1], given[:, 0] = table.start, table.b @ offset
    given[:, 2:] = table.c[:, 1:]
    return given


def picard_nats(table: Tableau, line: Line, sweeps: int) -> float:
    """KL(paths after K sweeps | sequential paths), by Girsanov's theorem on the grid.

    Args:
        table: A one-step table with noise in every row.
        line: The data.
        sweeps: K.

    Returns:
        Nats.
    """
    states, before = picard(table, line, sweeps)
    slope, _ = line.outputs(table)
    weight = np.diagonal(table.b, -1) / np.diagonal(table.c)[1:] * slope[:-1]
    return float(((weight[:, None] * (before - states)[:-1]) ** 2).sum() / 2)


def wrong_nats(table: Tableau, line: Line) -> float:
    """KL(paths with the wrong score | paths with the true one) of the sequential sampler.

    Args:
        table: A one-step table with noise in every row.
        line: The data.

    Returns:
        Nats.
    """
    states = sequential(table, line)[:-1]
    wrong = line.tilt * states / 2
    wrong[:, 0] += line.tilt
    return float(((np.diagonal(table.b, -1) / np.diagonal(table.c)[1:])[:, None] ** 2 * wrong**2).sum() / 2)


def continuous_nats(table: Tableau, line: Line) -> float:
    r"""KL(sequential sampler, filled in between its rows | continuous reverse SDE) for the reverse SDE in score form.

    .. math:: \sum_j \int_0^{\epsilon_j} \tfrac12 \mathbb E |s_{t_j}(y_j) - s_{t_j - r}(y_r)|^2 \, dr, \qquad
              y_r = e^{r/2} y_j + 2 (e^{r/2} - 1) s_{t_j}(y_j) + N(0, e^r - 1),

    the expectations in closed form and the integrals by 8 Gauss points, from the sampler's own start.

    Args:
        table: The table of ``Exponential()`` on ``OU``.
        line: The data, with the true score.

    Returns:
        Nats.
    """
    states, t = sequential(table, line), table.t
    mean, variance = states[:-1, 0], (states[:-1, 1:] ** 2).sum(1)
    slope, offset = line.score(t[:-1])
    total = np.zeros(len(t) - 1)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        r = -node * np.diff(t)
        k, q = line.score(t[:-1] - r)
        growth, held = np.exp(r / 2), 2 * np.expm1(r / 2)
        gain = slope - k * (growth + held * slope)
        rest = offset - q - k * held * offset
        total -= weight * np.diff(t) * (gain**2 * variance + (gain * mean + rest) ** 2 + k**2 * np.expm1(r)) / 2
    return float(total.sum())


def flow(line: Line, first: float, last: float, stochasticity: float) -> tuple[float, float]:
    """Mean and variance of the continuous dynamics from N(0, 1): the exact law of its end.

    Args:
        line: The data, with the true score.
        first: Time of the start.
        last: Time of the end.
        stochasticity: lambda.

    Returns:
        Mean and variance.
    """
    (centre, spread), (end, width) = line.law(first), line.law(last)
    square = stochasticity**2
    gain = (width / spread) ** ((1 + square) / 2) * np.exp((last - first) / 2) ** square
    return float(end - gain * centre), float(width + gain**2 * (1 - spread))


def between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """KL between two normal laws.

    Args:
        one: Mean and variance.
        other: Mean and variance.

    Returns:
        Nats.
    """
    ratio = one[1] / other[1]
    return ((one[0] - other[0]) ** 2 / other[1] + ratio - 1 - float(np.log(ratio))) / 2


def apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Squared Wasserstein distance between two normal laws.

    Args:
        one: Mean and variance.
        other: Mean and variance.

    Returns:
        In the data's unit, squared.
    """
    return (one[0] - other[0]) ** 2 + (one[1] ** 0.5 - other[1] ** 0.5) ** 2


def end(states: Array) -> tuple[float, float]:
    """Law of the last row.

    Args:
        states: Coefficients, shape (R, 1 + R).

    Returns:
        Mean and variance.
    """
    return float(states[-1, 0]), float((states[-1, 1:] ** 2).sum())
