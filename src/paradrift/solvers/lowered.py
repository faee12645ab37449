"""A table lowered to the device: cast once per solve, padded so that windows may hang over the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from paradrift.forms import Array
from paradrift.growth import SIGNAL, influence
from paradrift.slopes import Slopes, to_data
from paradrift.solvers import arrays
from paradrift.solvers.arrays import Values
from paradrift.solvers.solver import stride
from paradrift.tableau import Tableau
from paradrift.windows import Window


class Levels(NamedTuple):
    """What the table says of a row besides its weights.

    Args:
        alpha: Signal level, 1 where there is none.
        variance: (sigma / alpha)^2, 0 where there is none.
        p: Coefficient of the state in ``f = p x + q D``.
        q: Coefficient of the data prediction.
        gain: alpha / q: turns a slope of f against x, less p, into one of D against x / alpha.
        prior: Slope before measurement, in the table's form.
        posterior: Standard deviation of DDPM's noise on the step that leaves the row.
    """

    alpha: Values
    variance: Values
    p: Values
    q: Values
    gain: Values
    prior: Values
    posterior: Values


@dataclass(frozen=True, kw_only=True)
class Here:
    """The rows under the windows and what the table says of them, gathered once a move.

    Args:
        row: Absolute row of each position, possibly past the end, never negative; shape (B, S), int64.
        node: Whether it is evaluated, shape (B, S), bool.
        checked: Whether it is evaluated once more after it was accepted, shape (B, S), bool.
        a: Weights of earlier states by lag, shape (B, S, 1).
        b: Weights of earlier outputs by lag, shape (B, S, 1).
        c: Weights of noises by lag, shape (B, S, 1).
        stack: The levels, shape (7, B, S).
        mixed: Whether the table has rows between its nodes that are no nodes.
    """

    row: Values
    node: Values
    checked: Values
    a: dict[int, Values]
    b: dict[int, Values]
    c: dict[int, Values]
    stack: Values
    mixed: bool

    def levels(self, *where: Values | slice | int | None) -> Levels:
        """Levels of some positions.

        Args:
            *where: Index of positions and samples; all if there is none.

        Returns:
            One array a level.
        """
        return Levels(*self.stack[(slice(None), *where)])


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A table on the device; vectors over rows are padded behind the last row.

    Args:
        lags: The lags of a, of b and of c.
        vectors: Weights by lag, then those of :class:`Levels`, one vector each, shape (K, R + pad), in the
            dtype of states.
        marks: ``node`` and ``checked``, shape (2, R + pad), bool.
        t: Model times, shape (R + pad,).
        scale: Input scaling, shape (R + pad,).
        influence: What a unit defect of a node's output does to the answer, shape (LEVELS, R + pad).
        before: Number of nodes before each row, int64.
        of_node: Row of each node, then the last row, shape (M + 1,), int64.
        gap: Most rows between two nodes, or between the last node and the answer.
        stride: One of so many nodes is evaluated once more after it was accepted.
        noisy: Whether any noise is drawn.
        scheduled: Whether the table has a noise schedule.
    """

    lags: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    vectors: Values
    marks: Values
    t: Values
    scale: Values
    influence: Values
    before: Values
    of_node: Values
    gap: int
    stride: int
    noisy: bool
    scheduled: bool

    def limits(self, front: Values, window: Window) -> Values:
        """The last row that each sample's window reaches.

        Args:
            front: First unsettled row of each sample, shape (S,), a node.
            window: Where windows end.

        Returns:
            Shape (S,), int64.
        """
        nodes = len(self.of_node) - 1
        ends = window.limit(arrays.tensor(self.before[front]), nodes)
        return self.of_node[arrays.as_in(ends, front)]

    def at(self, front: Values, offsets: Values) -> Here:
        """What the table says of the rows under the windows.

        Args:
            front: First unsettled row of each sample, shape (S,), int64.
            offsets: Distance of each position to the front, shape (B, 1), int64.

        Returns:
            Rows and coefficients.
        """
        row = arrays.clip(offsets + front, low=0)
        node, checked = self.marks[:, row]
        vectors = self.vectors[:, row]
        weights = iter(vectors[..., None])
        a, b, c = ({lag: next(weights) for lag in lags} for lags in self.lags)
        stack = vectors[-len(Levels._fields) :]
        return Here(row=row, node=node, checked=checked, a=a, b=b, c=c, stack=stack, mixed=self.gap > 0)


def lower(
    table: Tableau,
    slopes: Slopes,
    variance: float,
    verify: int,
    pad: int,
    dtype: torch.dtype,
    device: torch.device,
    lawful: bool,
    host: bool = False,
) -> Lowered:
    """Cast a table for one solve.

    Args:
        table: The sampler's table.
        slopes: Where slopes come from.
        variance: Data variance per element, the reference of the growth.
        verify: Most accepted nodes that are evaluated once more, evenly spread; 0 for none.
        pad: Rows of padding behind the last row.
        dtype: Dtype of the states.
        device: Device of the states.
        lawful: Whether the law of each row counts, and not the answer alone.
        host: Whether the solve holds numpy arrays.

    Returns:
        The lowered table.
    """

    def padded(values: Array, fill: float = 0.0) -> Tensor:
        tail = np.full((*values.shape[:-1], pad), fill)
        return torch.as_tensor(np.concatenate([values, tail], axis=-1)).to(device=device, dtype=dtype)

    def held(values: Tensor) -> Values:
        return arrays.of(values, host)

    # A start without signal has an infinite x / alpha; a floor far below any other level keeps the measures finite.
    alpha = np.ones(table.rows) if table.alpha is None else np.maximum(table.alpha, SIGNAL)
    ratio = np.zeros(table.rows) if table.sigma is None else table.sigma / alpha
    p, q = to_data(table)
    weights = [table.band(name, lag) for name, lags in zip("abc", table.lags, strict=True) for lag in lags]
    levels = [alpha, ratio**2, p, q, alpha / q, slopes.prior(table), posterior(table)]  # as Levels has them
    fills = [*np.zeros(len(weights)), 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    before = np.concatenate([[0], np.cumsum(table.evaluated)[:-1]])
    of_node = np.append(np.flatnonzero(table.evaluated), table.rows - 1)
    node = np.concatenate([table.evaluated, np.zeros(pad, bool)])
    counted = np.concatenate([before, np.full(pad, table.nodes)])
    every = stride(table.nodes, verify)
    checked = node & (counted % every == 0) & (verify > 0)
    return Lowered(
        lags=table.lags,
        vectors=held(torch.stack(list(map(padded, [*weights, *levels], fills)))),
        marks=held(torch.as_tensor(np.stack([node, checked])).to(device)),
        t=held(padded(np.where(table.evaluated, table.t, 0.0))),
        scale=held(padded(table.scale, 1.0)),
        influence=held(padded(influence(table, variance, lawful))),
        before=held(torch.as_tensor(before).to(device)),
        of_node=held(torch.as_tensor(of_node).to(device)),
        gap=int(np.diff(of_node).max()) - 1,
        stride=every,
        noisy=table.noisy,
        scheduled=table.alpha is not None,
    )


def posterior(table: Tableau) -> Array:
    """The noise of DDPM: sigma_s sqrt(1 - r^2), r = (alpha_t sigma_s) / (alpha_s sigma_t).

    Args:
        table: The sampler's table.

    Returns:
        Standard deviation for the step that leaves each row, shape (R,); zero without a noise schedule.
    """
    std = np.zeros(table.rows)
    if table.alpha is not None and table.sigma is not None:
        ahead = table.alpha[:-1] * table.sigma[1:]
        behind = table.alpha[1:] * table.sigma[:-1]
        ratio = np.divide(ahead, behind, out=np.ones_like(ahead), where=behind > 0)
        std[:-1] = table.sigma[1:] * np.sqrt(np.clip(1 - ratio**2, 0, None))
    return std
