"""How steep the nodes of a thinned chain are, from changes between evaluations, and what errors there grow to."""

from __future__ import annotations

import torch
from torch import Tensor

from paradrift.forms import Affine, Array
from paradrift.growth import FLOOR, LEVELS


class Steepness:
    r"""Secants of each node, as the sweep takes them: :math:`s = \langle dx, dF\rangle / \langle dx, dx\rangle`.

    The variance of Gaussian data that would be as steep, :math:`v = \rho^2 s_D / (1 - s_D)`, the largest at or before a
    node, says which growth an error there has (:mod:`paradrift.growth`). Where nothing was measured nothing is damped.

    Args:
        data: How the data prediction follows from the state and the output: p times the state plus q times F, shapes
            (K,).
        alpha: Signal level of each node, shape (K,), positive.
        sigma: Noise level, shape (K,).
        felt: What a unit error does to the answer, for the variances of :func:`paradrift.growth.ladder`, shape
            (LEVELS, K).
        variance: Data variance per element, the bottom of the ladder.
        samples: Number of samples S.
        device: Where the samples are.
    """

    def __init__(
        self, data: Affine, alpha: Array, sigma: Array, felt: Array, variance: float, samples: int, device: torch.device
    ) -> None:
        self._variance = variance
        self._skip, self._out, self._noise, self._growth = (
            torch.as_tensor(one, dtype=torch.float64, device=device)
            for one in (data.p * alpha, data.q * alpha, (sigma / alpha) ** 2, felt)
        )
        self.slopes = torch.full((len(alpha), samples), torch.nan, dtype=torch.float64, device=device)

    def see(self, node: Tensor, sample: Tensor, dx: Tensor, df: Tensor) -> None:
        """Take in changes of nodes that were asked again.

        Args:
            node: Nodes, shape (N,).
            sample: Samples, shape (N,).
            dx: Changes of their states, shape (N, D).
            df: Changes of their outputs F, shape (N, D).
        """
        slope = (dx.double() * df).sum(1) / dx.double().square().sum(1)
        self.slopes[node, sample] = torch.where(torch.isfinite(slope), slope, self.slopes[node, sample])

    def felt(self) -> Tensor:
        """What a unit error from each node on does to the answer, shape (K, S), float64."""
        slope = (self._skip[:, None] + self._out[:, None] * self.slopes).nan_to_num(0.0)
        shown = torch.where(slope < 1, self._noise[:, None] * slope / (1 - slope), torch.inf).clamp(min=self._variance)
        shown = torch.where(self.slopes.isnan(), 0.0, shown).cummax(0).values
        grade = torch.where(shown > 0, shown / self._variance, torch.inf).log2() / 2
        level = grade.clamp(FLOOR, LEVELS - 1).ceil().long()
        return self._growth[level, torch.arange(len(level), device=level.device)[:, None]]
