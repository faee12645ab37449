r"""A graph network that turns with its molecule: places of the beads of a chain, seen through noise.

Messages run along all 45 pairs, and know of places only the distance :math:`d_{ij}` and of identity only how many bonds
lie between i and j (:math:`e_{ij}`), so that predictions turn, shift and reflect with the state:

.. math::
    m_{ij} = \phi(h_i + h_j, d_{ij}, e_{ij}), \qquad h_i \mathrel{+}= \psi\Big(\sum_j m_{ij}\Big), \qquad
    x_i \mathrel{+}= \frac13 \sum_j w(m_{ij})\,\frac{x_i - x_j}{1 + d_{ij}},

layer by layer, each with the distances that the last one left. Distances are described by bumps, for a bond's length
matters to a few hundredths. Messages are the same in both directions, so a pair is one message, and sums over pairs are
products with the signed and unsigned incidence matrices: no gathers. The centre of mass of the data is fixed; that of a
state is noise alone, which is known exactly: the network predicts the noise of the rest, as displacements.

It is thin and deep, so that a call costs about the same for one molecule as for many, as larger ones do on a GPU.

Source: Satorras et al. 2021, arXiv 2102.09844, equations 3 to 6 (here symmetric, and with a sum of displacements);
Hoogeboom et al. 2022, arXiv 2203.17003, for diffusion with a fixed centre of mass.
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.bench.networks import chains, kept, training
from paradrift.bench.networks.chains import BEADS
from paradrift.bench.networks.kept import Recipe

RECIPE = Recipe(steps=3000, batch=64, rate=5e-3)
SCHEDULE = pd.Discrete.cosine(1000)
SHELLS, REACH = 8, 4.0  # bumps that a distance is described by, up to where, in units of the state's deviation


@functools.cache
def variance() -> float:
    """Data variance per element.

    Returns:
        Measured on 4096 conformers.
    """
    return float(chains.chains(4096, torch.Generator().manual_seed(7)).square().mean())


class Messages(nn.Module):
    """One layer: messages along pairs, and what nodes and places make of them.

    Args:
        width: Of nodes and messages.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.node, self.distance, self.bonds = (
            nn.Linear(width, width),
            nn.Linear(SHELLS + 1, width, bias=False),
            nn.Embedding(BEADS, width),
        )
        self.message, self.weight = nn.Linear(width, width), nn.Linear(width, 1, bias=False)
        self.update = nn.Linear(2 * width, width)

    def forward(
        self, hidden: Tensor, shells: Tensor, steps: Tensor, apart: Tensor, ends: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One layer.

        Args:
            hidden: Nodes, shape (R, 10, width).
            shells: Distances of pairs as bumps, shape (R, 45, 9).
            steps: Bonds between the two of each pair, shape (45,).
            apart: Displacements of pairs over 1 + distance, shape (R, 45, 3).
            ends: Which beads a pair has, shape (45, 10): ones.

        Returns:
            Nodes (R, 10, width), and pulls along pairs (R, 45, 3).
        """
        both = ends @ self.node(hidden) + self.distance(shells) + self.bonds(steps)
        message = nn.functional.silu(self.message(nn.functional.silu(both)))
        heard = torch.cat([hidden, ends.T @ message], dim=2)
        return hidden + nn.functional.silu(self.update(heard)), self.weight(message) * apart


class GraphNet(nn.Module):
    """The network; sizes of its layers are equal.

    Args:
        width: Of nodes and messages.
        depth: Number of layers.
    """

    alpha: Tensor
    sigma: Tensor
    ends: Tensor
    signs: Tensor
    steps: Tensor
    shells: Tensor

    def __init__(self, width: int = 24, depth: int = 4) -> None:
        super().__init__()
        first, second = torch.triu_indices(BEADS, BEADS, 1)
        eye = torch.eye(BEADS)
        alpha, sigma = training.levels(SCHEDULE)
        for name, value in {
            "alpha": alpha,
            "sigma": sigma,
            "ends": eye[first] + eye[second],
            "signs": eye[first] - eye[second],
            "steps": second - first,
            "shells": torch.linspace(0, REACH, SHELLS),
        }.items():
            self.register_buffer(name, value, persistent=False)
        self.time, self.place = nn.Linear(32, width), nn.Embedding(BEADS, width)
        self.layers = nn.ModuleList(Messages(width) for _ in range(depth))
        self.gain = nn.Linear(32, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: Noisy places, shape (R, 10, 3).
            t: Training times, shape (R,), int64.

        Returns:
            Shape (R, 10, 3).
        """
        alpha, sigma = self.alpha[t].reshape(-1, 1, 1), self.sigma[t].reshape(-1, 1, 1)
        waves = training.waves(t.to(x.dtype), 16, 1.0, 1e-3)
        centre = x.mean(1, keepdim=True)

        def moved(state: Tensor) -> Tensor:
            return self._moved(state, waves)

        return training.preconditioned(moved, x - centre, alpha, sigma, variance()) + centre / sigma

    def _moved(self, state: Tensor, waves: Tensor) -> Tensor:
        """Where beads are moved to, less where they were, with a share of that: shape (R, 10, 3)."""
        # beads the same number of bonds from the nearer end are alike: a chain has no direction
        ends = torch.arange(BEADS, device=state.device)
        hidden = self.place(torch.minimum(ends, BEADS - 1 - ends)) + self.time(waves)[:, None]
        place = state
        for layer in self.layers:
            apart = self.signs @ place
            distance = apart.square().sum(2, keepdim=True).sqrt()
            shells = torch.cat([distance, torch.exp(-(((distance - self.shells) * SHELLS / REACH) ** 2))], dim=2)
            hidden, pull = layer(hidden, shells, self.steps, apart / (1 + distance), self.ends)
            place = place + self.signs.T @ pull / 3
        return place - state + self.gain(waves)[:, None] * state


def network(recipe: Recipe = RECIPE) -> GraphNet:
    """The network, trained or read.

    Args:
        recipe: How it is trained.

    Returns:
        The network.
    """

    def train(net: GraphNet) -> None:
        def loss(generator: torch.Generator) -> Tensor:
            noisy, times, noise = training.noised(SCHEDULE, chains.chains(recipe.batch, generator), generator)
            return (net(noisy, times) - noise).square().mean()

        training.fit(net, "graph", recipe, loss)

    return kept.kept(GraphNet, "graph", recipe, (sys.modules[__name__], chains, training), train)


def denoiser(net: GraphNet) -> pd.Denoiser:
    """The model around the network.

    Args:
        net: The network.

    Returns:
        The denoiser: noise prediction.
    """
    return pd.denoiser(net, predicts="noise", schedule=SCHEDULE, variance=variance())
