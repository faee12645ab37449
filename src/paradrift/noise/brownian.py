"""Noises from one Brownian path, shared by every grid on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Array


@dataclass(eq=False)
class Brownian:
    r"""Increments of a Brownian path, scaled to unit variance.

    .. math:: \xi_n = (W(\tau_n) - W(\tau_{n-1})) / \sqrt{|\tau_n - \tau_{n-1}|}, \qquad n = 1 \dots R-1

    Column n is the noise of the step from row n-1 to row n. Two tables whose clocks :math:`\tau` visit the same path
    see the same randomness, which is what strong convergence and coarse-to-fine guesses need. The clock is the user's
    choice and must be the same function of model time for both grids: for an SDE with unit diffusion it is the time
    itself; for an exponential integrator :math:`(\sigma/\alpha)^2` makes the noise of a merged step the
    variance-weighted sum of the noises of its parts.

    Args:
        path: A ``torchsde.BrownianInterval`` of size (S, *shape), or any ``path(lower, upper) -> (S, *shape)``. Its
            values depend on the order of its first questions; here these come column by column whatever the window. Of
            two grids, ask on the finer one first.
        clock: Times :math:`\tau` of the rows, shape (R,), strictly monotone, inside the path.
        initial: The start, shape (S, *shape): a path has none.

    Raises:
        SpecError: if the clock is not strictly monotone.

    Source: Li, Wong, Chen, Duvenaud 2020 (arXiv 2001.01328); Kidger et al. 2021 (arXiv 2105.13493), Brownian interval.
    """

    path: Any
    clock: Array
    initial: Tensor
    _asked: int = field(default=0, init=False, repr=False)  # the last column that the path has met

    def __post_init__(self) -> None:
        steps = np.diff(np.asarray(self.clock, np.float64))
        if not (np.all(steps > 0) or np.all(steps < 0)):
            raise SpecError("expected a strictly monotone clock, found two rows in the wrong order or at the same time")

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :meth:`paradrift.noise.Noise.start`.

        Args:
            samples: Sample indices, shape (S,), int64.

        Returns:
            Shape (S, *shape).
        """
        return self.initial[samples.to(self.initial.device)]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window; zero in column 0, which has no step.

        Args:
            samples: Sample indices, shape (S,), int64.
            columns: Noise columns, shape (S, K), int64.

        Returns:
            Shape (S, K, *shape).
        """
        wanted, places = torch.unique(columns, return_inverse=True)
        reached = min(int(wanted[-1]), len(self.clock) - 1)
        for column in range(self._asked + 1, reached + 1):
            self._increment(column)
        self._asked = max(self._asked, reached)
        table = torch.stack([self._increment(column) for column in wanted.tolist()])
        return table[places.to(table.device), samples.to(table.device)[:, None]]

    def release(self, column: int) -> None:
        """Nothing to forget: the path keeps its own tree.

        Args:
            column: The first column that may still be asked for.
        """

    def finish(self) -> None:
        """Nothing to leave behind."""

    def _increment(self, column: int) -> Tensor:
        if not 0 < column < len(self.clock):
            return torch.zeros_like(self.initial)
        before, after = float(self.clock[column - 1]), float(self.clock[column])
        increment = self.path(min(before, after), max(before, after))
        return increment * (np.sign(after - before) / abs(after - before) ** 0.5)
