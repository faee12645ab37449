r"""A policy: sixteen waypoints in the plane, around an obstacle on the left or on the right, as demonstrated.

An observation o is five numbers: the heights of start and goal, at :math:`\mp 0.9` across, and an obstacle's place and
radius. A demonstration runs from start to goal on a line bent around the obstacle,

.. math:: y(\tau) = (1 - \tau) y_0 + \tau y_1 + a_\pm e^{-(\tau - \tau_o)^2 / 2 w^2}
    + \text{slow waves}, \qquad a_\pm = \text{centre} - \text{line} \pm (\text{radius} + \text{margin}),

and takes the shorter side more often. The same observation has demonstrations on both sides, which is why such
policies are diffusion models: their mean would run into the obstacle. The network is a transformer over the sixteen
waypoints, each told time and observation, of the size of such policies, with the squared cosine schedule and noise
prediction; data predictions are clipped to [-1, 1], as their schedulers do. A hundred steps are what such policies were
trained with; this one has a thousand training times, so that finer grids exist too.

Source: Chi et al. 2023, Diffusion Policy, arXiv 2303.04137; the data are made up.
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.bench.networks import kept, training
from paradrift.bench.networks.kept import Recipe

RECIPE = Recipe(steps=1200, batch=32, rate=2e-3)
HORIZON, ACTIONS, OBSERVED = 16, 2, 5
BEND = 0.18  # width of the bend, in units of the way from start to goal
VARIANCE = 0.188  # of demonstrations, per element
EPISODES = 1024  # observations that samples are drawn for, in turn
SCHEDULE = pd.Discrete.cosine(1000)


def observations(count: int, generator: torch.Generator) -> Tensor:
    """Where start, goal and obstacle are.

    Args:
        count: How many.
        generator: Of all of it.

    Returns:
        Heights of start and goal, place of the obstacle across and up, its radius: shape (count, 5).
    """
    low = torch.tensor([-0.3, -0.3, -0.2, -0.2, 0.25])
    high = torch.tensor([0.3, 0.3, 0.2, 0.2, 0.35])
    return low + (high - low) * torch.rand(count, OBSERVED, generator=generator)


@functools.cache
def episodes() -> Tensor:
    """The observations of samples 0, 1, ...; sample i has the same one however many are drawn.

    Returns:
        Shape (1024, 5).
    """
    return observations(EPISODES, torch.Generator().manual_seed(5))


def demonstrations(seen: Tensor, generator: torch.Generator) -> Tensor:
    """One demonstration for each observation.

    Args:
        seen: Observations, shape (R, 5).
        generator: Of sides, margins and waves.

    Returns:
        Waypoints, shape (R, 16, 2), inside [-1, 1].
    """
    start, goal, across, up, radius = seen.unbind(1)
    way = torch.linspace(0, 1, HORIZON)[None]
    middle = (across + 0.9) / 1.8
    gap = up - (start + middle * (goal - start))  # from the straight line to the obstacle's centre
    over = torch.rand(len(seen), generator=generator) < torch.sigmoid(-6 * gap)
    margin = 0.1 + 0.1 * torch.rand(len(seen), generator=generator)
    height = gap + (radius + margin) * torch.where(over, 1.0, -1.0)
    bend = height[:, None] * torch.exp(-((way - middle[:, None]) ** 2) / (2 * BEND**2))
    # waves that leave the ends where they are: of the height, and of the pace
    waves = torch.stack([(torch.pi * n * way[0]).sin() / n for n in (1, 2, 3)])
    up_and_down, pace = 0.03 * torch.randn(2, len(seen), 3, generator=generator) @ waves
    x = 0.9 * (2 * way - 1) + pace
    y = start[:, None] + way * (goal - start)[:, None] + bend + up_and_down
    return torch.stack([x.expand_as(y), y], dim=2).clamp(-1, 1)


def side(paths: Tensor, seen: Tensor) -> Tensor:
    """Whether paths pass over the obstacle or under it, where they are beside it.

    Args:
        paths: Waypoints, shape (R, 16, 2).
        seen: Observations, shape (R, 5).

    Returns:
        1 over, 0 under, shape (R,), int64.
    """
    offset = paths - seen[:, None, 2:4]
    near = torch.exp(-(offset[..., 0] ** 2) / (2 * 0.15**2))
    return ((near * offset[..., 1]).sum(1) > 0).long()


def classes(samples: Tensor) -> Tensor:
    """The side of samples 0, 1, ..., whose observations are those of :func:`episodes`.

    Args:
        samples: Shape (S, 16, 2), in the order in which they were drawn.

    Returns:
        Shape (S,), int64.
    """
    return side(samples.detach().cpu().float(), episodes()[torch.arange(len(samples)) % EPISODES])


def clear(paths: Tensor, seen: Tensor) -> float:
    """The share of paths no waypoint of which lies in the obstacle.

    Args:
        paths: Waypoints, shape (R, 16, 2).
        seen: Observations, shape (R, 5).

    Returns:
        Between 0 and 1.
    """
    return float(((paths - seen[:, None, 2:4]).norm(dim=2).amin(1) > seen[:, 4]).double().mean())


class Layer(nn.Module):
    """Attention among the tokens and a perceptron for each, both on normalised input and added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.answer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """One layer.

        Args:
            hidden: Shape (R, tokens, width).

        Returns:
            Shape (R, tokens, width).
        """
        rows, tokens, width = hidden.shape
        split = self.ask(self.before(hidden)).reshape(rows, tokens, 3, self.heads, width // self.heads)
        mixed = nn.functional.scaled_dot_product_attention(*split.permute(2, 0, 3, 1, 4))
        hidden = hidden + self.answer(mixed.transpose(1, 2).reshape(rows, tokens, width))
        return hidden + self.narrow(nn.functional.gelu(self.wide(self.after(hidden))))


class Transformer(nn.Module):
    """Waypoints as tokens, each told the time and the observation.

    Args:
        width: Of a token.
        depth: Number of layers.
        heads: Of the attention.
    """

    alpha: Tensor
    sigma: Tensor

    def __init__(self, width: int = 128, depth: int = 5, heads: int = 4) -> None:
        super().__init__()
        alpha, sigma = training.levels(SCHEDULE)
        self.register_buffer("alpha", alpha, persistent=False)
        self.register_buffer("sigma", sigma, persistent=False)
        self.point, self.time, self.seen = nn.Linear(ACTIONS, width), nn.Linear(64, width), nn.Linear(OBSERVED, width)
        self.place = nn.Embedding(HORIZON, width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(depth))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, ACTIONS)

    def forward(self, x: Tensor, t: Tensor, observation: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: Noisy waypoints, shape (R, 16, 2).
            t: Training times, shape (R,), int64.
            observation: Shape (R, 5).

        Returns:
            Shape (R, 16, 2).
        """
        told = self.time(training.waves(t.to(x.dtype), 32, 1.0, 1e-3)) + self.seen(3 * observation)

        def raw(state: Tensor) -> Tensor:
            hidden = self.point(state) + self.place.weight + told[:, None]
            for layer in self.layers:
                hidden = layer(hidden)
            return self.last(self.norm(hidden))

        alpha, sigma = self.alpha[t].reshape(-1, 1, 1), self.sigma[t].reshape(-1, 1, 1)
        return training.preconditioned(raw, x, alpha, sigma, VARIANCE)


def network(recipe: Recipe = RECIPE) -> Transformer:
    """The network, trained or read.

    Args:
        recipe: How it is trained.

    Returns:
        The network.
    """

    def train(net: Transformer) -> None:
        def loss(generator: torch.Generator) -> Tensor:
            seen = observations(recipe.batch, generator)
            noisy, times, noise = training.noised(SCHEDULE, demonstrations(seen, generator), generator)
            return (net(noisy, times, seen) - noise).square().mean()

        training.fit(net, "policy", recipe, loss)

    return kept.kept(Transformer, "policy", recipe, (sys.modules[__name__], training), train)


def denoiser(net: Transformer) -> pd.Denoiser:
    """The model around the network, for samples of :func:`episodes`.

    Args:
        net: The network.

    Returns:
        The denoiser: noise prediction, clipped, so in the data form.
    """
    return pd.Clipped(
        pd.denoiser(
            net,
            predicts="noise",
            schedule=SCHEDULE,
            variance=VARIANCE,
            conditioning={"observation": episodes()},
        )
    )
