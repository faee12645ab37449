"""A judge for the embedded digits: which digit a picture shows, learned from the model's own pictures.

The model is asked for digits, so it labels what it draws. A small convolutional network learns those labels from
guided pictures, shifted at random, and then tells which digit a sample came out as. It is no judge of quality (it never
saw a real digit), and needs none: it only has to answer the same for two pictures that show the same.
"""

from __future__ import annotations

import functools
import sys

import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift.bench.networks import kept, training
from paradrift.bench.networks.kept import Recipe

RECIPE = Recipe(steps=300, batch=64, rate=4e-3)
PICTURES, STEPS, SHIFT = 400, 12, 2


@functools.cache
def pictures(count: int = PICTURES, seed: int = 11) -> Tensor:
    """The embedded model's own pictures of 0 to 9 in turn, guided, by DPM++ 2M.

    Args:
        count: How many.
        seed: Of their noise.

    Returns:
        Shape (count, 1, 28, 28).
    """
    model = pd.pretrained("digits", guidance=2.0)
    solver, sampler = pd.sequential(), pd.DPMpp2M()
    return pd.sample(model, (count, 1, 28, 28), sampler=sampler, steps=STEPS, solver=solver, seed=seed).samples


class Judge(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 49, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten digits.

        Args:
            x: Pictures, shape (S, 1, 28, 28).

        Returns:
            Shape (S, 10).
        """
        return self.body(x)


def network(recipe: Recipe = RECIPE, count: int = PICTURES) -> Judge:
    """The judge, trained or read.

    Args:
        recipe: How it is trained.
        count: Pictures that it learns from.

    Returns:
        The network.
    """

    def train(net: Judge) -> None:
        drawn = pictures(count)

        def loss(generator: torch.Generator) -> Tensor:
            chosen = torch.randint(count, (recipe.batch,), generator=generator)
            down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
            moved = drawn[chosen].roll((down, right), (2, 3))
            moved = moved + 0.1 * torch.randn(moved.shape, generator=generator)
            return nn.functional.cross_entropy(net(moved), chosen % 10)

        training.fit(net, "judge", recipe, loss)

    return kept.kept(Judge, f"judge-{count}", recipe, (sys.modules[__name__], training), train)


@functools.cache
def judge() -> Judge:
    """The judge with its own recipe, read once.

    Returns:
        The network.
    """
    return network()


def classes(samples: Tensor) -> Tensor:
    """The digit that each picture shows.

    Args:
        samples: Shape (S, 1, 28, 28).

    Returns:
        Shape (S,), int64.
    """
    with torch.inference_mode():
        return judge()(samples.detach().cpu().float()).argmax(1).clone()
