"""Which tables give paths a density: what divergences in nats, and drafts that are verified, need."""

from __future__ import annotations

import numpy as np

from paradrift.errors import SpecError
from paradrift.tableau import Tableau


def check_noise(table: Tableau) -> None:
    """Refuse tables in which the path of the sequential sampler has no density: a row before the last without noise.

    Rows that repeat earlier ones, without output and noise, are the same in both laws and may stay.

    Args:
        table: The sampler's table.

    Raises:
        SpecError: naming the first such row.
    """
    own = np.diagonal(table.c) != 0
    free = ~(table.b.any(axis=1) | table.c.any(axis=1))
    bad = np.flatnonzero(~(own | free)[1:-1]) + 1
    if len(bad):
        row = int(bad[0])
        raise SpecError(
            f"expected noise in every row but the last, found none in row {row} (t={table.t[row]:g}): a divergence in "
            "nats needs a sampler with noise at every step, such as DDPM()"
        )


def check_steps(table: Tableau) -> None:
    """Refuse tables whose noises cannot be told apart while a window moves: noises of one step enter another.

    A step is made of the rows after a node, up to the next node.

    Args:
        table: The sampler's table.

    Raises:
        SpecError: naming the first such row, or a row without noise.
    """
    check_noise(table)
    rows, noises = table.entries[2]
    before = np.cumsum(table.evaluated) - table.evaluated  # nodes before each row: the number of its step
    bad = np.flatnonzero(before[rows] != before[noises])
    if len(bad):
        row, noise = int(rows[bad[0]]), int(noises[bad[0]])
        raise SpecError(
            f"expected every step to have noises of its own, found row {row} using that of row {noise}: a verdict in "
            "nats cannot follow it; use tol= and audit the path"
        )
