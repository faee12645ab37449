r"""Explicit fixed-grid methods as tables.

Every row of such a method continues one earlier state by outputs of earlier rows, weighted in units of one step:

.. math:: y_m = y_{\mathrm{base}(m)} + h_{\mathrm{step}(m)} \sum_j w_{mj} f_j, \qquad
    f_j = f(t_{\mathrm{at}(j)} + c_j h_{\mathrm{at}(j)}, y_j).

A Runge-Kutta step has one row a stage, and a row for the point of the grid that it leads to; a multistep method has a
row for each point of the grid, with more weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.tableau import Tableau

Index = NDArray[np.intp]


class Stages(NamedTuple):
    """One Runge-Kutta step in units of its length.

    Args:
        times: Time of each stage after the first, as a fraction of the step.
        inner: Weights of the stages before it, for each stage after the first.
        outer: Weights of all stages in the step.
    """

    times: tuple[float, ...]
    inner: tuple[tuple[float, ...], ...]
    outer: tuple[float, ...]


RUNGE_KUTTA = {
    "euler": Stages((), (), (1.0,)),
    "midpoint": Stages((1 / 2,), ((1 / 2,),), (0.0, 1.0)),
    "heun2": Stages((1.0,), ((1.0,),), (1 / 2, 1 / 2)),
    "heun3": Stages((1 / 3, 2 / 3), ((1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4)),
    "rk4": Stages((1 / 3, 2 / 3, 1.0), ((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}
METHODS = (*RUNGE_KUTTA, "explicit_adams")
FEWEST, MOST = 3, 11  # outputs in an Adams step: torchdiffeq starts with Runge-Kutta steps, and keeps so many


@dataclass(frozen=True, kw_only=True, eq=False)
class Scheme:
    """A method on a number of steps, whatever their lengths: R rows, row 0 the start, the last row the end.

    Args:
        base: Row whose state each row continues, shape (R,); row 0 continues nothing.
        step: Step whose length multiplies the weights of each row, shape (R,).
        at: Point of the grid before (or at) each row's time, shape (R,).
        fraction: Time of each row after that point, in units of the step that starts there, shape (R,).
        used: Row that each weight belongs to, shape (K,), ascending.
        sources: Row whose output is weighted, shape (K,).
        weights: The weights, shape (K,).
        points: Row of each point of the grid, shape (N + 1,).
    """

    base: Index
    step: Index
    at: Index
    fraction: Array
    used: Index
    sources: Index
    weights: Array
    points: Index

    @property
    def rows(self) -> int:
        """Number of rows R; all but the last are evaluated."""
        return len(self.base)

    def times(self, grid: Array) -> Array:
        """Time of each row.

        Args:
            grid: Points of the grid, shape (N + 1,).

        Returns:
            Shape (R,).
        """
        lengths = np.append(np.diff(grid), 0.0)
        return grid[self.at] + self.fraction * lengths[self.at]

    def tableau(self, grid: Array) -> Tableau:
        """The table on a grid.

        Args:
            grid: Points of the grid, shape (N + 1,), strictly increasing or decreasing.

        Returns:
            A checked table in value form.
        """
        a, b = np.zeros((self.rows, self.rows)), np.zeros((self.rows, self.rows))
        a[np.arange(1, self.rows), self.base[1:]] = 1.0
        b[self.used, self.sources] = self.weights * np.diff(grid)[self.step[self.used]]
        return Tableau(
            t=self.times(grid),
            a=a,
            b=b,
            c=np.zeros((self.rows, self.rows)),
            form=Form.VALUE,
            evaluated=np.arange(self.rows) < self.rows - 1,
            scale=np.ones(self.rows),
            draws=np.zeros(self.rows, bool),
        )


def scheme(method: str, steps: int) -> Scheme:
    """A method by torchdiffeq's name for it.

    Args:
        method: One of ``METHODS``.
        steps: Number of steps N, at least 1.

    Returns:
        The scheme.

    Raises:
        SpecError: if the method is another.

    Example:
        >>> scheme("rk4", 10).rows, scheme("euler", 10).rows
        (41, 11)
    """
    if method not in METHODS:
        raise SpecError(
            f"expected an explicit method on a fixed grid, one of {', '.join(METHODS)}, found {method!r}: adaptive and "
            "implicit methods choose their steps as they go, which is sequential"
        )
    building = _Building()
    for step in range(steps):
        outputs = building.points[: -MOST - 1 : -1]  # the newest first
        if method == "explicit_adams" and len(outputs) >= FEWEST:
            weights = zip(outputs, adams_bashforth(len(outputs)), strict=True)
            building.add(step, step + 1, 0.0, dict(weights), point=True)
        else:
            building.runge_kutta(step, RUNGE_KUTTA["rk4" if method == "explicit_adams" else method])
    return building.done()


def adams_bashforth(order: int) -> tuple[float, ...]:
    r"""Weights of the last outputs, newest first: the integral over the next step of the polynomial through them.

    In backward differences the weights are :math:`\gamma_j = \int_0^1 \binom{s + j - 1}{j} ds`, on an equidistant grid.

    Args:
        order: Number of outputs, at least 1.

    Returns:
        As many weights, in units of the step; exact, then rounded.

    Example:
        >>> adams_bashforth(2)
        (1.5, -0.5)
    """
    gammas = [Fraction(1)]
    for index in range(1, order):  # sum_i gamma_i / (index + 1 - i) = 1
        gammas.append(1 - sum((gamma / (index + 1 - i) for i, gamma in enumerate(gammas)), Fraction(0)))
    weights = [Fraction(0)] * order
    binomials = [Fraction(1)]
    for gamma in gammas:  # the j-th backward difference has the coefficients (-1)^i (j over i)
        for i, binomial in enumerate(binomials):
            weights[i] += gamma * binomial
        binomials = [
            (binomials[i] if i < len(binomials) else 0) - (binomials[i - 1] if i else 0)
            for i in range(len(binomials) + 1)
        ]
    return tuple(float(weight) for weight in weights)


@dataclass
class _Building:
    """A scheme under construction; it starts with row 0."""

    points: list[int] = dataclasses.field(default_factory=lambda: [0])
    rows: list[tuple[int, int, int, float]] = dataclasses.field(default_factory=lambda: [(0, 0, 0, 0.0)])
    entries: list[tuple[int, int, float]] = dataclasses.field(default_factory=list)

    def add(self, step: int, at: int, fraction: float, weights: dict[int, float], *, point: bool) -> int:
        """A row that continues the last point of the grid; itself the next point, or a stage on the way."""
        row = len(self.rows)
        self.rows.append((self.points[-1], step, at, fraction))
        self.entries += [(row, source, weight) for source, weight in weights.items() if weight != 0]
        if point:
            self.points.append(row)
        return row

    def runge_kutta(self, step: int, stages: Stages) -> None:
        """One step: its stages, and the point that it leads to."""
        nodes = [self.points[-1]]
        for time, inner in zip(stages.times, stages.inner, strict=True):
            at, fraction = (step + 1, 0.0) if time == 1 else (step, time)  # the end of a step is a point of the grid
            nodes.append(self.add(step, at, fraction, dict(zip(nodes, inner, strict=True)), point=False))
        self.add(step, step + 1, 0.0, dict(zip(nodes, stages.outer, strict=True)), point=True)

    def done(self) -> Scheme:
        """The scheme."""
        base, step, at, fraction = zip(*self.rows, strict=True)
        used, sources, weights = zip(*self.entries, strict=True)
        return Scheme(
            base=np.array(base, np.intp),
            step=np.array(step, np.intp),
            at=np.array(at, np.intp),
            fraction=np.array(fraction, np.float64),
            used=np.array(used, np.intp),
            sources=np.array(sources, np.intp),
            weights=np.array(weights, np.float64),
            points=np.array(self.points, np.intp),
        )
