"""Gaussian data: the denoiser is affine, so the law of every row of a table is known exactly."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from paradrift.forms import Array, from_data
from paradrift.tableau import Tableau


class Law(NamedTuple):
    """Mean and variance of every row, in one dimension."""

    mean: Array
    var: Array


def law_of(table: Tableau, value: float, mean: float, start: tuple[float, float]) -> Law:
    """The law of each row for data N(mean, value) and row 0 from N(start[0], start[1])."""
    alpha, sigma, nodes = table.alpha, table.sigma, table.evaluated
    spread = alpha**2 * value + sigma**2
    p, q = np.zeros(table.rows), np.zeros(table.rows)
    p[nodes], q[nodes] = from_data(table.form, alpha[nodes], sigma[nodes])
    slope, shift = p + q * alpha * value / spread, q * mean * sigma**2 / spread
    # every row as an affine function of (1, z0 - its mean, noises)
    loads = np.zeros((table.rows, 2 + (table.rows if table.noisy else 0)))
    loads[0, :2] = start[0], 1.0
    reach = max(table.reach, 1)
    for row in range(1, table.rows):
        past = slice(max(row - reach, 0), row)
        loads[row] = (table.a[row, past] + table.b[row, past] * slope[past]) @ loads[past]
        loads[row, 0] += table.b[row, past] @ shift[past]
        if table.noisy:
            loads[row, 2:] += table.c[row]
    return Law(loads[:, 0], loads[:, 1] ** 2 * start[1] + (loads[:, 2:] ** 2).sum(axis=1))


@pytest.fixture(name="law_of", scope="session")
def _law_of() -> Callable[..., Law]:
    return law_of
