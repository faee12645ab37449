r"""Two-dimensional data with many modes: the dark cells of a board of six by six, and a perceptron that learned them.

Cells have centres :math:`(i - 5/2, j - 5/2)\,c` with i + j even, c = 0.58, and are filled evenly up to 0.8 c, so that
there is a gap at their corners and the data have unit variance. The network is the raw one of EDM: it sees the state at
unit variance with its sines and cosines, and :math:`\tfrac14\log\sigma`.

Source: Karras et al. 2022, arXiv 2206.00364, table 1, for preconditioning, noise levels and weights of the loss.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.bench.networks import kept, training
from paradrift.bench.networks.kept import Recipe

RECIPE = Recipe(steps=4000, batch=512, rate=4e-3)
CELLS, SIDE, FILLED = 6, 0.58, 0.8
SIGMA_DATA = 1.0


def centres() -> Tensor:
    """The centres of the dark cells.

    Returns:
        Shape (18, 2).
    """
    dark = [(i, j) for i in range(CELLS) for j in range(CELLS) if (i + j) % 2 == 0]
    return (torch.tensor(dark, dtype=torch.float32) - (CELLS - 1) / 2) * SIDE


def data(count: int, generator: torch.Generator) -> Tensor:
    """Independent points.

    Args:
        count: How many.
        generator: Of cells and places in them.

    Returns:
        Shape (count, 2).
    """
    middle = centres()
    chosen = middle[torch.randint(len(middle), (count,), generator=generator)]
    return chosen + SIDE * FILLED * (torch.rand(count, 2, generator=generator) - 0.5)


class Perceptron(nn.Module):
    """The raw network: three residual layers over the state, its waves, and the noise level.

    Args:
        width: Of the layers.
        depth: Number of residual layers.
    """

    def __init__(self, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(2 * (1 + 2 * 3), width)
        self.level = nn.Linear(16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The raw prediction F.

        Args:
            x: States at unit variance, shape (R, 2).
            t: A quarter of the logarithm of the noise level, shape (R,).

        Returns:
            Shape (R, 2).
        """
        angles = torch.cat([x * frequency for frequency in (1.5, 3.0, 6.0)], dim=1)
        hidden = self.first(torch.cat([x, angles.sin(), angles.cos()], dim=1))
        hidden = hidden + self.level(training.waves(t, 8, 8.0, 0.5))
        for layer in self.layers:
            hidden = hidden + layer(nn.functional.silu(hidden))
        return self.last(nn.functional.silu(hidden))


def network(recipe: Recipe = RECIPE) -> Perceptron:
    """The network, trained or read.

    Args:
        recipe: How it is trained.

    Returns:
        The raw network.
    """

    def train(net: Perceptron) -> None:
        def loss(generator: torch.Generator) -> Tensor:
            clean = data(recipe.batch, generator)
            # wider than the source's levels: cells appear between 0.05 and 1, and the ends are to be right too
            sigma = (1.6 * torch.randn(recipe.batch, 1, generator=generator) - 1.2).exp()
            scale = (sigma**2 + SIGMA_DATA**2).sqrt()
            noisy = clean + sigma * torch.randn(recipe.batch, 2, generator=generator)
            target = (clean - (SIGMA_DATA / scale) ** 2 * noisy) * scale / (sigma * SIGMA_DATA)
            return (net(noisy / scale, sigma[:, 0].log() / 4) - target).square().mean()

        training.fit(net, "plane", recipe, loss)

    return kept.kept(Perceptron, "plane", recipe, (sys.modules[__name__], training), train)


def denoiser(net: Perceptron) -> pd.Denoiser:
    """The model around the network.

    Args:
        net: The raw network.

    Returns:
        The denoiser, in the data form on EDM.
    """
    return pd.edm_network(net, sigma_data=SIGMA_DATA, schedule=pd.EDM(sigma_min=0.002, sigma_max=80.0))


def inside(samples: Tensor) -> float:
    """The share of samples inside dark cells; a third of the board's area is dark and filled.

    Args:
        samples: Shape (S, 2).

    Returns:
        Between 0 and 1.
    """
    apart = (samples[:, None] - centres()).abs().amax(2).amin(1)
    return float((apart < SIDE * FILLED / 2 + 0.01).double().mean())
