"""A table walked the plain way, and a small nonlinear denoiser: what contracts are checked against."""

from collections.abc import Callable

import numpy as np
import pytest

from paradrift.forms import Array, from_data
from paradrift.tableau import Tableau

WIDTH = 3
MIX = np.array([[0.9, 0.4, -0.2], [-0.3, 1.1, 0.2], [0.1, -0.5, 0.8]])


def denoised(x: Array, alpha: float, sigma: float) -> Array:
    """A bounded, smooth, coupled data prediction of (..., 3) states, defined at alpha = 0 too."""
    return np.tanh(alpha * (x @ MIX) / (sigma**2 + 0.4 * alpha**2)) + 0.2 * np.sin(x / (1 + sigma))


def walk(table: Tableau, start: Array, noises: Array, denoise: Callable[[Array, float, float], Array]) -> Array:
    """All rows of the table, shape (R, WIDTH), one model call a node; noises has one row per drawn noise."""
    xi = np.zeros((table.rows, *start.shape))
    xi[table.draws] = noises[: table.draws.sum()]
    z, f = np.zeros_like(xi), np.zeros_like(xi)
    z[0] = start
    nodes = table.evaluated
    p, q = np.zeros(table.rows), np.zeros(table.rows)
    p[nodes], q[nodes] = from_data(table.form, table.alpha[nodes], table.sigma[nodes])
    for row in range(table.rows):
        if row > 0:
            z[row] = (
                table.a[row, :row] @ z[:row] + table.b[row, :row] @ f[:row] + table.c[row, : row + 1] @ xi[: row + 1]
            )
        if table.evaluated[row]:
            f[row] = p[row] * z[row] + q[row] * denoise(z[row], table.alpha[row], table.sigma[row])
    return z


@pytest.fixture(name="walk", scope="session")
def _walk() -> Callable[..., Array]:
    return walk


@pytest.fixture(name="denoised", scope="session")
def _denoised() -> Callable[[Array, float, float], Array]:
    return denoised


@pytest.fixture
def start() -> Array:
    """A starting state of unit size."""
    return np.array([0.3, -1.2, 0.8])


@pytest.fixture
def noises() -> Array:
    """More noises than any sampler draws here."""
    return np.random.default_rng(5).standard_normal((2100, WIDTH))
