r"""Banded systems of blocks, row by row: substitution, and damped least squares.

The system is :math:`A = I - G`, G strictly lower triangular with blocks :math:`G_{m,m-l}` for a few lags l. Many
systems of one shape are worked on at once. Blocks have shape (W, ..., n, n), right-hand sides (W, ..., n).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Blocks = dict[int, Tensor]


def substitute(gains: Mapping[int, Tensor], right: Tensor) -> Tensor:
    r"""Solve :math:`x_m = r_m + \sum_l G_{m,m-l}\, x_{m-l}` from the first row on.

    Args:
        gains: G by lag, each of shape (W, ..., n, n).
        right: r, shape (W, ..., n).

    Returns:
        x, shape (W, ..., n).
    """
    rows = list(right.unbind())
    for m in range(len(rows)):
        for lag, gain in gains.items():
            if lag <= m:
                rows[m] = rows[m] + _times(gain[m], rows[m - lag])
    return torch.stack(rows)


def damped(gains: Mapping[int, Tensor], right: Tensor, damping: Tensor) -> Tensor:
    r"""Minimise :math:`|A x - r|^2 + \lambda |x|^2`, by elimination in :math:`(A^T A + \lambda) x = A^T r`.

    What Levenberg and Marquardt ask for, and what a Kalman smoother computes: downwards and back, so that every row
    looks at all others.

    Args:
        gains: G by lag, each of shape (W, ..., n, n).
        right: r, shape (W, ..., n).
        damping: lambda, positive, of a shape that broadcasts with (..., n, n).

    Returns:
        x, shape (W, ..., n).
    """
    size, n = len(right), right.shape[-1]
    eye = torch.eye(n, dtype=right.dtype, device=right.device)
    factors = {0: eye.expand(*right.shape, n), **{lag: -gain for lag, gain in gains.items()}}
    normal: Blocks = {0: damping * factors[0]}
    target = torch.zeros_like(right)
    for p, above in factors.items():  # column m of A has its blocks in the rows m + p
        target[: size - p] += _times(above[p:].mT, right[p:])
        for q, below in factors.items():
            if q >= p:
                lag = q - p
                band = torch.zeros_like(factors[0])
                band[lag : size - p] = above[p + lag :].mT @ below[p + lag :]
                normal[lag] = normal[lag] + band if lag in normal else band
    return _banded(normal, target)


def _banded(lower: Mapping[int, Tensor], right: Tensor) -> Tensor:
    """Solve a symmetric positive system of bands, given by those on and below the diagonal."""
    size, reach = len(right), max(lower)
    inverses: list[Tensor] = []
    left: list[dict[int, Tensor]] = []  # of each row: its blocks left of the diagonal, what is before them eliminated
    forward: list[Tensor] = []
    for m in range(size):
        row = {lag: lower[lag][m] for lag in range(min(reach, m), -1, -1) if lag in lower}
        for lag in range(min(reach, m), 0, -1):
            block = row.setdefault(lag, torch.zeros_like(lower[0][m]))
            for far in range(lag + 1, min(reach, m) + 1):
                if far - lag in left[m - lag]:
                    block = block - row[far] @ inverses[m - far] @ left[m - lag][far - lag].mT
            row[lag] = block
        pivot, value = row.pop(0), right[m]
        for lag, block in row.items():
            scaled = block @ inverses[m - lag]
            pivot, value = pivot - scaled @ block.mT, value - _times(scaled, forward[m - lag])
        inverses.append(1 / pivot if pivot.shape[-1] == 1 else torch.linalg.inv_ex(pivot)[0])
        left.append(row)
        forward.append(value)
    found: list[Tensor] = [*forward]
    for m in reversed(range(size)):
        for lag in range(1, min(reach, size - 1 - m) + 1):
            if lag in left[m + lag]:
                found[m] = found[m] - _times(left[m + lag][lag].mT, found[m + lag])
        found[m] = _times(inverses[m], found[m])
    return torch.stack(found)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrices times vectors; products of single numbers are not worth a matrix product."""
    if matrix.shape[-1] == 1:
        return matrix[..., 0] * vector
    return (matrix @ vector[..., None])[..., 0]
