"""A table lowered to the device: cast once per solve, padded so that windows may hang over the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.forms import Array
from paradrift.growth import SIGNAL, influence
from paradrift.slopes import Slopes, to_data
from paradrift.tableau import Tableau
from paradrift.windows import Window


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """Vectors over rows, shape (R + pad,), in the dtype of the states unless said otherwise.

    Args:
        a: Weights of earlier states by lag.
        b: Weights of earlier outputs by lag.
        c: Weights of noises by lag.
        t: Model times.
        scale: Input scaling.
        alpha: Signal levels, 1 where there are none.
        ratio: sigma / alpha, 0 where there is none.
        p: Coefficient of the state in ``f = p x + q D``.
        q: Coefficient of the data prediction.
        prior: Slopes before measurement, in the table's form.
        influence: What a unit defect of a node's output does to the answer, shape (LEVELS, R + pad).
        posterior: Standard deviation of DDPM's noise on the step that leaves each row.
        node: Whether a row is evaluated, bool.
        before: Number of nodes before each row, int64.
        of_node: Row of each node, then the last row, shape (M + 1,), int64.
        noisy: Whether any noise is drawn.
        scheduled: Whether the table has a noise schedule.
    """

    a: dict[int, Tensor]
    b: dict[int, Tensor]
    c: dict[int, Tensor]
    t: Tensor
    scale: Tensor
    alpha: Tensor
    ratio: Tensor
    p: Tensor
    q: Tensor
    prior: Tensor
    influence: Tensor
    posterior: Tensor
    node: Tensor
    before: Tensor
    of_node: Tensor
    noisy: bool
    scheduled: bool

    def limits(self, front: Tensor, window: Window) -> Tensor:
        """The last row that each sample's window reaches.

        Args:
            front: First unsettled row of each sample, shape (S,), a node.
            window: Where windows end.

        Returns:
            Shape (S,), int64.
        """
        nodes = len(self.of_node) - 1
        return self.of_node[window.limit(self.before[front], nodes)]


def lower(
    table: Tableau, slopes: Slopes, variance: float, pad: int, dtype: torch.dtype, device: torch.device
) -> Lowered:
    """Cast a table for one solve.

    Args:
        table: The sampler's table.
        slopes: Where slopes come from.
        variance: Data variance per element, the reference of the growth.
        pad: Rows of padding behind the last row.
        dtype: Dtype of the states.
        device: Device of the states.

    Returns:
        The lowered table.
    """

    def padded(values: Array, fill: float = 0.0) -> Tensor:
        tail = np.full((*values.shape[:-1], pad), fill)
        return torch.as_tensor(np.concatenate([values, tail], axis=-1)).to(device=device, dtype=dtype)

    # A start without signal has an infinite x / alpha; a floor far below any other level keeps the measures finite.
    alpha = np.ones(table.rows) if table.alpha is None else np.maximum(table.alpha, SIGNAL)
    ratio = np.zeros(table.rows) if table.sigma is None else table.sigma / alpha
    p, q = to_data(table)
    a_lags, b_lags, c_lags = table.lags
    before = np.concatenate([[0], np.cumsum(table.evaluated)[:-1]])
    of_node = np.append(np.flatnonzero(table.evaluated), table.rows - 1)
    node = np.concatenate([table.evaluated, np.zeros(pad, bool)])
    return Lowered(
        a={lag: padded(table.band("a", lag)) for lag in a_lags},
        b={lag: padded(table.band("b", lag)) for lag in b_lags},
        c={lag: padded(table.band("c", lag)) for lag in c_lags},
        t=padded(np.where(table.evaluated, table.t, 0.0)),
        scale=padded(table.scale, 1.0),
        alpha=padded(alpha, 1.0),
        ratio=padded(ratio),
        p=padded(p),
        q=padded(q, 1.0),
        prior=padded(slopes.prior(table)),
        influence=padded(influence(table, variance)),
        posterior=padded(_posterior(table)),
        node=torch.as_tensor(node).to(device),
        before=torch.as_tensor(before).to(device),
        of_node=torch.as_tensor(of_node).to(device),
        noisy=table.noisy,
        scheduled=table.alpha is not None,
    )


def _posterior(table: Tableau) -> Array:
    """sigma_s sqrt(1 - r^2) with r = (alpha_t sigma_s) / (alpha_s sigma_t), for the step that leaves each row."""
    std = np.zeros(table.rows)
    if table.alpha is not None and table.sigma is not None:
        ahead = table.alpha[:-1] * table.sigma[1:]
        behind = table.alpha[1:] * table.sigma[:-1]
        ratio = np.divide(ahead, behind, out=np.ones_like(ahead), where=behind > 0)
        std[:-1] = table.sigma[1:] * np.sqrt(np.clip(1 - ratio**2, 0, None))
    return std
