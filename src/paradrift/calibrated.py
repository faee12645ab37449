r"""A guess from two moments of the data: the sequential sampler's whole path, were the data Gaussian.

For Gaussian data of mean :math:`\mu` and covariance :math:`\sum_k v_k u_k u_k^T` the data prediction is

.. math:: D_\rho(\bar x) = \mu + \sum_k \frac{v_k}{v_k + \rho^2}\, u_k u_k^T (\bar x - \mu),
          \qquad \bar x = x / \alpha, \quad \rho = \sigma / \alpha,

which costs no evaluation. In the coordinates of the directions it acts on every number by itself, so the path from the
very start and noises of a solve is found by the sequential sampler's own table, on numbers alone, and its data
predictions are proposed to the solver. They are exact at high noise and for Gaussian data, and wrong where modes part;
from there on nodes take what the proposal got wrong at the last one known into account.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.growth import SIGNAL
from paradrift.guesses import Model, Proposal, Proposing, Repeat
from paradrift.moments import Moments
from paradrift.noise import Noise
from paradrift.slopes import Zero, to_data
from paradrift.solvers.solver import Solver
from paradrift.solvers.sweep import sweep
from paradrift.stopping import Tolerance
from paradrift.tableau import Tableau
from paradrift.windows import Sliding

AHEAD = 64  # columns of noise that are turned at once, in blocks that begin at fixed columns
LEVELS = 128  # nodes whose data predictions are kept, evenly spaced; more would only take memory


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Propose the path of Gaussian data with the moments of the data at hand.

    The gain is largest for few dimensions and for data near a Gaussian, and in windows as wide as the chain; see
    ``docs/choosing.md``. With noise in the sampler a proposal uses noises up to its own row, so paths keep their
    certificates.

    Args:
        moments: Fitted on samples of the data: :meth:`paradrift.Moments.fit`.

    Cost: no evaluation; a pass of the sequential sampler on K + D numbers a sample (K directions of D elements), a
    tenth of a millisecond a step for small ones, and K D products for each noise and each of at most 128 predictions.
    Memory for those predictions, and with a generator for all noises of the chain.

    Example:
        >>> from paradrift import DDIM, Gaussian, Whole, sample, schedules
        >>> data = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([2.0, 1.0, 0.1])
        >>> model = Gaussian([0.0, 0.0, 0.0], [4.0, 1.0, 0.01], schedules.Discrete.linear(1000))
        >>> chain = {"sampler": DDIM(), "steps": 50, "window": Whole(), "tol": 1e-2}
        >>> plain = sample(model, (4, 3), **chain)
        >>> calibrated = sample(model, (4, 3), guess=Calibrated(Moments.fit(data)), **chain)
        >>> calibrated.converged, calibrated.stats.rounds < plain.stats.rounds
        (True, True)
    """

    moments: Moments

    @property
    def models(self) -> tuple[Model, ...]:
        """None: numbers are enough."""
        return ()

    def states(self, samples: Tensor, rows: Tensor, last: Tensor) -> Tensor | None:
        """None: march with what was proposed.

        Args:
            samples: Sample indices, shape (S,).
            rows: Entering rows, shape (K, S).
            last: Last states, shape (S, D).

        Returns:
            None.
        """
        return None

    def propose(self, table: Tableau, start: Tensor, noise: Noise) -> Proposing:  # noqa: DOC405
        """Find the Gaussian path.

        Args:
            table: The table of the solve.
            start: Starting states, shape (S, *shape).
            noise: Where noises come from.

        Yields:
            Nothing.

        Returns:
            Its data predictions.

        Raises:
            SpecError: if samples have another shape than the moments, or the table has no noise schedule.
        """
        mean = self.moments.mean
        if start.shape[1:] != mean.shape:
            raise SpecError(
                f"expected samples of the moments' shape {tuple(mean.shape)}, found {tuple(start.shape[1:])}: fit "
                "moments on data of the same kind"
            )
        if table.alpha is None or table.sigma is None:
            raise SpecError("expected a table with a noise schedule for calibrated guesses, found none: use Coast()")
        return self._proposal(table, start, noise)
        yield  # what makes it a generator

    def _proposal(self, table: Tableau, start: Tensor, noise: Noise) -> Proposal:
        turned = _Turned(self.moments, noise, start, table.rows)
        nodes = np.flatnonzero(table.evaluated)
        kept = nodes[np.linspace(0, len(nodes) - 1, min(LEVELS, len(nodes))).round().astype(int)]
        path = turned.path(table, set(kept.tolist()))
        place = np.interp(np.arange(table.rows), kept, np.arange(len(kept)))
        first = np.floor(place)
        # between two levels: interpolated, or with noise the one before, as the other knows later noises
        share = np.zeros(table.rows) if table.noisy else place - first
        return Proposal(
            data=turned.back(torch.stack([path[row] for row in kept.tolist()], 1)).transpose(0, 1).contiguous(),
            first=torch.as_tensor(first, dtype=torch.int64, device=start.device),
            share=torch.as_tensor(share).to(start),
        )


class _Turned:
    """A source of noise, and a sampler's start, in the coordinates of the directions: K numbers, and what is left."""

    def __init__(self, moments: Moments, noise: Noise, start: Tensor, columns: int) -> None:
        self._noise, self._columns, self._blocks = noise, columns, dict[int, Tensor]()
        self._directions = moments.directions.flatten(1).to(start)
        self._spread = torch.cat([moments.variances, torch.full((moments.mean.numel(),), moments.rest)]).to(start)
        self._mean = self.of(moments.mean.to(start).flatten()[None, None])[0, 0]
        self._start = self.of(start.flatten(1)[:, None])[:, 0]

    def of(self, rows: Tensor) -> Tensor:
        """Coordinates of rows, shape (S, N, D), and what the directions leave of them: shape (S, N, K + D)."""
        along = _products(rows, self._directions.T)
        return torch.cat([along, rows - _products(along, self._directions)], -1)

    def back(self, turned: Tensor) -> Tensor:
        """The rows that :meth:`of` took apart."""
        count = len(self._directions)
        return turned[..., count:] + _products(turned[..., :count], self._directions)

    def path(self, table: Tableau, kept: set[int]) -> dict[int, Tensor]:
        """Data predictions of some nodes of the sequential sampler's path, turned."""
        p, q = to_data(table)
        assert table.alpha is not None
        assert table.sigma is not None
        alpha = np.maximum(table.alpha, SIGNAL)
        ratio, found = table.sigma / alpha, dict[int, Tensor]()
        sequential = Solver(window=Sliding(1), slopes=Zero(), guess=Repeat(), stop=Tolerance(0.0), verify=0)
        solving = sweep(table, self._start, self, sequential, variance=1.0)

        def predicted(row: int, state: Tensor) -> Tensor:
            """The Gaussian's data prediction."""
            slope = self._spread / (self._spread + float(ratio[row]) ** 2)
            return self._mean + slope * (state / float(alpha[row]) - self._mean)

        try:
            request = next(solving)
            while True:
                row = int(request.node[0])
                state = request.x / float(table.scale[row])
                data = predicted(row, state)
                if row in kept:
                    found[row] = data
                request = solving.send(float(p[row]) * state + float(q[row]) * data)
        except StopIteration:
            return found

    # what makes it a source of noise

    def start(self, samples: Tensor) -> Tensor:
        """The start is given."""
        return self._start[samples]

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """Noises, turned in blocks that do not depend on the batch, as a product rounds with the number of its rows."""
        first, last = int(columns.min()) // AHEAD, int(columns.max()) // AHEAD
        for block in range(first, last + 1):
            if block not in self._blocks:
                self._blocks[block] = self._block(range(block * AHEAD, min((block + 1) * AHEAD, self._columns)))
        turned = torch.cat([self._blocks[block] for block in range(first, last + 1)], 1)
        return turned[samples[:, None], columns - first * AHEAD]

    def _block(self, columns: range) -> Tensor:
        everyone = torch.arange(len(self._start), device=self._start.device)
        wanted = torch.tensor(columns, device=everyone.device).expand(len(everyone), -1)
        return self.of(self._noise.draw(everyone, wanted).to(self._start).flatten(2))

    def release(self, column: int) -> None:
        """Forget what was turned; the solve itself needs the noises again."""
        for block in [block for block in self._blocks if (block + 1) * AHEAD <= column]:
            del self._blocks[block]

    def finish(self) -> None:
        """The solve goes on."""


def _products(rows: Tensor, matrix: Tensor) -> Tensor:
    """Products of each sample's rows with a matrix, sample by sample: one product of all would round with the batch."""
    return torch.stack([one @ matrix for one in rows])
