"""How steep the nodes of a thinned chain are, from changes between evaluations, and what errors there grow to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from paradrift.forms import Array
from paradrift.growth import FLOOR, LEVELS, SIGNAL
from paradrift.slopes import gaussian, in_form, to_data
from paradrift.tableau import Tableau


class Steepness:
    r"""Secants of each node, as the sweep takes them: :math:`s = \langle dx, df\rangle / \langle dx, dx\rangle`.

    The variance of Gaussian data that would be as steep, :math:`v = \rho^2 s_D / (1 - s_D)`, the largest at or before a
    node, says which growth an error there has (:mod:`paradrift.growth`); where nothing was measured nothing is damped.
    That is at most 1 in x / alpha. Between two modes a path is steeper than any Gaussian, and errors grow: what counts
    is the response of the chain to a change in the direction of the secants, where that is more.

    Args:
        table: The thinned chain.
        felt: What a unit error after each node does to the answer, for the variances of
            :func:`paradrift.growth.ladder`, shape (LEVELS, K).
        variance: Data variance per element, the bottom of the ladder.
        samples: Number of samples S.
        device: Where the samples are.
    """

    def __init__(self, table: Tableau, felt: Array, variance: float, samples: int, device: torch.device) -> None:
        assert table.alpha is not None
        assert table.sigma is not None
        self._table, self._variance, self._device, self._growth = table, variance, device, felt
        alpha = np.maximum(table.alpha[:-1], SIGNAL)
        p, q = (vector[:-1] for vector in to_data(table))
        self._skip, self._out = p[:, None], (q / alpha)[:, None]
        self._noise = ((table.sigma[:-1] / alpha) ** 2)[:, None]
        self._prior = in_form(table, gaussian(table, variance))[:-1, None]
        self.slopes = np.full((len(alpha), samples), np.nan)  # few numbers, told on the host

    def see(self, node: Tensor, sample: Tensor, dx: Tensor, df: Tensor, again: Tensor) -> None:
        """Take in changes of nodes that were asked again.

        Args:
            node: Nodes, shape (N,).
            sample: Samples, shape (N,).
            dx: Changes of their states, shape (N, D).
            df: Changes of the model's outputs, shape (N, D).
            again: Which of them were asked before, shape (N,), bool.
        """
        slope = (dx * df).sum(1, dtype=torch.float64) / dx.square().sum(1, dtype=torch.float64)
        known = (again & torch.isfinite(slope)).cpu().numpy()
        where = node.cpu().numpy()[known], sample.cpu().numpy()[known]
        self.slopes[where] = slope.cpu().numpy()[known]

    def felt(self) -> Tensor:
        """What a unit error after each node does to the answer, shape (K, S), float64."""
        with np.errstate(all="ignore"):  # what overflows is felt without limit
            steep = np.nan_to_num((self.slopes - self._skip) / self._out, nan=0.0)
            shown = np.where(steep < 1, self._noise * steep / (1 - steep), np.inf)
            shown = np.where(np.isnan(self.slopes), 0.0, np.maximum(shown, self._variance))
            most = np.maximum.accumulate(shown)
            grade = np.log2(np.where(most > 0, most / self._variance, np.inf)) / 2
            level = np.ceil(np.clip(grade, FLOOR, LEVELS - 1)).astype(np.int64)
            known = self._growth[level, np.arange(len(level))[:, None]]
            unstable = (steep > 1).any(0)
            if unstable.any():
                known = np.where(unstable, np.maximum(known, self._response()), known)
        return torch.as_tensor(known, device=self._device)

    def _response(self) -> Array:
        """What a unit change of the row after each node does to the answer with the secants, shape (K, S)."""
        table, nodes = self._table, len(self.slopes)
        assert table.alpha is not None
        slopes = np.where(np.isnan(self.slopes), self._prior, self.slopes)
        moved = {lag: _moved(table, lag, slopes) for lag in sorted({*table.lags[0], *table.lags[1]})}
        felt = np.zeros((nodes + 1, slopes.shape[1]))
        felt[nodes] = 1 / table.alpha[-1]
        for row in range(nodes - 1, 0, -1):
            for lag, by in moved.items():
                if row + lag <= nodes:
                    felt[row] += by[row] * felt[row + lag]
        return np.abs(felt[1:])


def _moved(table: Tableau, lag: int, slopes: Array) -> Array:
    """What a unit change of each row does to the row some rows later by itself, shape (K, S)."""
    a, b = (np.append(table.band(name, lag)[lag:], np.zeros(lag))[:-1, None] for name in ("a", "b"))
    return a + b * slopes
