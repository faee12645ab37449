r"""How the small networks are trained: Adam, a rate that rises and falls, and an average of the weights.

The loss of a noise prediction at random times of a schedule is

.. math:: E \| \epsilon - F(\alpha_t x_0 + \sigma_t \epsilon, t) \|^2,

with t spread evenly. What is kept is not the last weights but their exponential average, whose samples are much better
for so short a training.

Source: Ho et al. 2020, arXiv 2006.11239, equation 14; Kingma and Ba 2015, arXiv 1412.6980.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import paradrift as pd
from paradrift.bench.networks.kept import Recipe

AVERAGE = 0.997  # of the weights, a step


def fit(net: nn.Module, name: str, recipe: Recipe, loss: Callable[[torch.Generator], Tensor]) -> None:
    """Train a network in place, the same way each time: one thread, seeds of its own, gradients on.

    Args:
        net: The network; its first weights are drawn anew.
        name: Word for the progress line.
        recipe: Steps, batch, rate and seed.
        loss: The loss of one batch, drawn from the generator it is given.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of sums, and so the weights, depends on the number of threads
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(recipe.seed)
            restart(net)
            net.train().requires_grad_(True)
            _steps(net, name, recipe, loss)
    finally:
        torch.set_num_threads(threads)


def restart(net: nn.Module) -> None:
    """Draw the first weights anew, layer by layer, from torch's global generator.

    Args:
        net: A network whose weights all belong to layers with ``reset_parameters``.
    """
    for layer in net.modules():
        reset = getattr(layer, "reset_parameters", None)
        if callable(reset):
            reset()


def _steps(net: nn.Module, name: str, recipe: Recipe, loss: Callable[[torch.Generator], Tensor]) -> None:
    generator = torch.Generator().manual_seed(recipe.seed)
    weights = list(net.parameters())
    averages = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, lr=recipe.rate)
    warm = max(1, recipe.steps // 20)
    for step in tqdm(range(recipe.steps), desc=f"training {name}, once", disable=None, leave=False):
        done = step / recipe.steps
        optimizer.param_groups[0]["lr"] = recipe.rate * min(1, (step + 1) / warm) * (1 + math.cos(math.pi * done)) / 2
        optimizer.zero_grad()
        loss(generator).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        # the first weights are forgotten faster than the average lasts
        share = min(AVERAGE, (1 + step) / (10 + step))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight.detach(), 1 - share)
    for weight, average in zip(weights, averages, strict=True):
        weight.data.copy_(average)


def noised(schedule: pd.Discrete, data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A batch of the loss of noise predictions.

    Args:
        schedule: The noise schedule.
        data: Shape (R, *shape).
        generator: Of times and noise.

    Returns:
        Noisy states (R, *shape), their times (R,), int64, and the noise in them (R, *shape).
    """
    # one time in each of R equal parts of the schedule: the same mean loss with less noise in its gradient
    spread = (torch.arange(len(data)) + torch.rand(len(data), generator=generator)) / len(data)
    times = (schedule.steps * spread).long().clamp(max=schedule.steps - 1)
    noise = torch.randn(data.shape, generator=generator)
    alpha, sigma = levels(schedule)
    ends = (1,) * (data.ndim - 1)
    return alpha[times].reshape(-1, *ends) * data + sigma[times].reshape(-1, *ends) * noise, times, noise


def levels(schedule: pd.Discrete) -> tuple[Tensor, Tensor]:
    """Signal and noise levels of all training times.

    Args:
        schedule: The noise schedule.

    Returns:
        Two tensors of shape (n,), float32.
    """
    times = np.arange(float(schedule.steps))
    alpha, sigma = (torch.as_tensor(level(times), dtype=torch.float32) for level in (schedule.alpha, schedule.sigma))
    return alpha, sigma


def waves(values: Tensor, count: int, fastest: float, slowest: float) -> Tensor:
    """Sines and cosines of a number at frequencies spread evenly in their logarithm.

    Args:
        values: Shape (R,).
        count: Frequencies.
        fastest: The highest frequency, in radians per unit.
        slowest: The lowest.

    Returns:
        Shape (R, 2 count).
    """
    spread = torch.linspace(math.log(fastest), math.log(slowest), count, device=values.device).exp()
    angles = values[:, None] * spread
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def preconditioned(net: Callable[[Tensor], Tensor], x: Tensor, alpha: Tensor, sigma: Tensor, variance: float) -> Tensor:
    r"""The noise prediction of a network that sees, and is asked for, numbers of size one.

    .. math:: \epsilon = \frac{\sigma}{s^2} x + \frac{\alpha\sqrt v}{s} F(x / s), \qquad s^2 = \alpha^2 v + \sigma^2,

    exact for Gaussian data of variance v with F = 0. Without it a network with normalised layers would have to learn to
    pass its own input on, to the last digit, wherever the state is nearly all noise.

    Args:
        net: F, of states.
        x: States, shape (R, *shape).
        alpha: Signal levels, shape (R, 1, ...).
        sigma: Noise levels, shape (R, 1, ...).
        variance: Data variance per element, v.

    Returns:
        Noise predictions, shape (R, *shape).

    Source: Karras et al. 2022, arXiv 2206.00364, table 1, written for noise predictions.
    """
    scale = (alpha**2 * variance + sigma**2).sqrt()
    state = x / scale
    return sigma / scale * state + alpha * variance**0.5 / scale * net(state)
