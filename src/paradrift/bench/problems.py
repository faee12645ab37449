"""The problem set: from exact mixtures to trained networks, smooth and rough. Made in code, nothing to download."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import paradrift as pd
from paradrift import grids
from paradrift.denoisers import levels
from paradrift.forms import Array, Form


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A denoiser with a sequential sampler to be met.

    Args:
        name: Word for records and legends.
        denoiser: Makes the model for a number of samples.
        shape: Shape of one sample.
        sampler: The sequential method.
        times: Its grid.
        dtype: Precision of the states.
    """

    name: str
    denoiser: Callable[[int], pd.Denoiser]
    shape: tuple[int, ...]
    sampler: pd.Sampler
    times: Array
    dtype: torch.dtype = torch.float32

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.times) - 1

    def solve(
        self,
        samples: int,
        solver: pd.Solver,
        *,
        seed: int = 0,
        start: Tensor | None = None,
        max_rows: int | None = None,
    ) -> pd.Solution:
        """Sample it.

        Args:
            samples: How many.
            solver: The method.
            seed: Seed of the noise.
            start: The start instead of drawn noise, shape (S, *shape).
            max_rows: Most rows in one model call.

        Returns:
            The solution.
        """
        return pd.sample(
            self.denoiser(samples),
            (samples, *self.shape),
            sampler=self.sampler,
            times=self.times,
            solver=solver,
            seed=seed,
            start=start,
            max_rows=max_rows,
            dtype=self.dtype,
        )


def modes(count: int = 8, size: int = 64, seed: int = 0) -> Tensor:
    """Standard normal mode centres, shape (count, size), float64."""
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(stochastic: bool) -> Problem:
    """64 dimensions, eight modes of variance 0.05 about 11 apart; EDM, Karras times 80 ... 0.02 and 0, 50 steps.

    Args:
        stochastic: Euler-ancestral instead of Euler.

    Returns:
        The problem, in float64.
    """
    schedule = pd.EDM(sigma_min=0.02, sigma_max=80.0)
    toy = pd.GaussianMixture(
        weights=torch.ones(8) / 8, means=modes(), variances=torch.full((8,), 0.05), schedule=schedule
    )
    return Problem(
        name="mixture-64 SDE 50" if stochastic else "mixture-64 ODE 50",
        denoiser=lambda samples: toy,
        shape=(64,),
        sampler=pd.Ancestral() if stochastic else pd.Euler(),
        times=grids.karras(schedule, 50),
        dtype=torch.float64,
    )


def digits(sampler: pd.Sampler, steps: int, name: str, guidance: float | None = 2.0) -> Problem:
    """The embedded model, labels 0 to 9 in turn.

    Args:
        sampler: The sequential method.
        steps: Number of steps.
        name: Word for records.
        guidance: Scale of classifier-free guidance, or None.

    Returns:
        The problem.
    """
    model = pd.pretrained("digits", guidance=guidance)
    schedule = model.schedule
    assert schedule is not None
    return Problem(
        name=name,
        denoiser=lambda samples: model,
        shape=(1, 28, 28),
        sampler=sampler,
        times=grids.default(schedule, steps),
    )


@dataclass(frozen=True, kw_only=True)
class Product:
    r"""A denoiser: d independent coordinates, each of the same one-dimensional mixture, on the schedule ``OU``.

    Every divergence is d times that of one coordinate. With :math:`C_i = \alpha^2 v_i + \sigma^2`, elementwise,

    .. math:: s(x) = -\sum_i r_i \frac{x - \alpha\mu_i}{C_i}, \qquad
        r_i \propto \frac{w_i}{\sqrt{C_i}} \exp\Big(-\frac{(x - \alpha\mu_i)^2}{2 C_i}\Big).

    Args:
        weights: Shape (K,), of sum one.
        means: Shape (K,).
        variances: Shape (K,).
        schedule: The noise schedule.
        tilt: Size of a wrong term :math:`\delta \sin 2x` in the score.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]
    schedule: pd.OU
    tilt: float = 0.0
    form = Form.SCORE

    @property
    def variance(self) -> float:
        """Data variance per coordinate."""
        parts = list(zip(self.weights, self.means, self.variances, strict=True))
        mean = sum(w * m for w, m, _ in parts)
        return sum(w * (v + (m - mean) ** 2) for w, m, v in parts)

    def coordinate(self) -> pd.GaussianMixture:
        """One coordinate alone, with its density.

        Returns:
            The mixture, of shape (1,).
        """
        return pd.GaussianMixture(
            self.weights, torch.tensor(self.means, dtype=torch.float64)[:, None], self.variances, self.schedule
        )

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor | None = None) -> Tensor:
        """The score, computed in the dtype of the states with coefficients in float64.

        Args:
            x: States, shape (R, d).
            t: Times, shape (R,).
            sample: Unused: there is no conditioning.

        Returns:
            Shape (R, d), in the dtype of the states.
        """
        alpha, sigma = (torch.from_numpy(level)[:, None] for level in levels(self.schedule, t))
        logs, pulls = [], []
        for weight, mean, variance in zip(self.weights, self.means, self.variances, strict=True):
            spread, centre = alpha**2 * variance + sigma**2, alpha * mean
            constant = math.log(weight) - spread.log() / 2 - centre**2 / (2 * spread)
            inverse, shift = (1 / spread).to(x.dtype), (centre / spread).to(x.dtype)
            pulls.append(torch.addcmul(-shift, inverse, x))
            logs.append((shift - inverse / 2 * x).mul_(x).add_(constant.to(x.dtype)))
        shares = torch.stack(logs).softmax(0)
        score = -(shares.mul_(torch.stack(pulls))).sum(0)
        return score + self.tilt * (2 * x).sin() if self.tilt else score


class RoughNet(nn.Module):
    """A network that is steeper than its data: LayerNorm on the raw input removes the scale that noise has."""

    def __init__(self, size: int, width: int = 256) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Linear(size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(3)
        )
        self.last = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: States, shape (R, size).
            t: Model times, shape (R,).

        Returns:
            Shape (R, size).
        """
        angles = t[:, None].float() * torch.exp(-math.log(1000) * torch.arange(32, device=t.device) / 32)
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        hidden = self.first(self.norm(x)) + time
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return self.last(hidden)


def rough(sampler: pd.Sampler, steps: int, name: str, training: int = 300) -> Problem:
    """A rough network on the 64-dimensional mixture: few steps of training, noise prediction, DDPM's linear schedule.

    Args:
        sampler: The sequential method.
        steps: Number of steps.
        name: Word for records.
        training: Training steps.

    Returns:
        The problem.
    """
    schedule = pd.Discrete.linear(1000)
    levels = np.arange(1000.0)
    alpha = torch.as_tensor(schedule.alpha(levels), dtype=torch.float32)
    sigma = torch.as_tensor(schedule.sigma(levels), dtype=torch.float32)
    centres = modes().float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = RoughNet(64)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        for _ in range(training):
            data = centres[torch.randint(8, (256,))] + math.sqrt(0.05) * torch.randn(256, 64)
            t, noise = torch.randint(1000, (256,)), torch.randn(256, 64)
            loss = (net(alpha[t, None] * data + sigma[t, None] * noise, t) - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model = pd.denoiser(net.eval().requires_grad_(False), predicts="noise", schedule=schedule, variance=1.05)
    return Problem(
        name=name,
        denoiser=lambda samples: model,
        shape=(64,),
        sampler=sampler,
        times=grids.default(schedule, steps),
    )
