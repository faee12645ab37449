r"""A fixed divergence from the data, spent on horizon, steps and the parallel method, in any dimension.

The data are d independent coordinates, each the same mixture of two modes with unit variance, noised for a time
:math:`\eta`. Then every divergence is d times that of one coordinate, and the budget can be spent exactly,

.. math:: \mathrm{KL}(Q\,\|\,P) = \mathrm{KL}(N(0, I)\,\|\,p_T) + \text{drift}, \qquad
          \text{drift} \approx \text{discretisation} + \text{parallel},

an equality for the laws of the paths. A quarter goes to the horizon T (by quadrature, the larger of both directions), a
half to the step (by a pilot run of single coordinates), a quarter to the parallel method, whose divergence from the
sequential sampler is certified. The steps are the fewest that fit, and so are a method's sweeps. The network's error is
zero: the score is known.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

import paradrift as pd
from paradrift import discretisation
from paradrift.bench.problems import Product
from paradrift.forms import Array, Form
from paradrift.tableau import Tableau

LAST = 0.1  # eta
SHARES = {"truncation": 0.25, "discretisation": 0.5, "parallel": 0.25}
PILOT = 512  # steps beyond which the discretisation is taken to fall like one over their number


def product(schedule: pd.OU, tilt: float = 0.0) -> Product:
    """Modes at plus and minus sqrt(0.8) of variance 0.2.

    Args:
        schedule: The noise schedule.
        tilt: Size of a wrong term in the score.

    Returns:
        The denoiser.
    """
    away = math.sqrt(0.8)
    return Product(weights=(0.5, 0.5), means=(-away, away), variances=(0.2, 0.2), schedule=schedule, tilt=tilt)


def flow(schedule: pd.OU, start: Tensor) -> Tensor:
    """Where the exact probability-flow ODE takes each coordinate: one dimension is monotone and keeps its mass.

    Args:
        schedule: The schedule, from first to last.
        start: States at its first time, any shape, float64.

    Returns:
        States at its last time: the points below which p_last has the mass that p_first has below the start.
    """
    model = product(schedule)

    def below(x: Tensor, t: float) -> Tensor:
        alpha, noise = float(schedule.alpha(t)), float(schedule.sigma(t)) ** 2
        parts = zip(model.weights, model.means, model.variances, strict=True)
        return sum(
            (w * torch.special.ndtr((x - alpha * m) / math.sqrt(alpha**2 * v + noise)) for w, m, v in parts),
            torch.zeros_like(x),
        )

    side = start.sign()  # symmetric data: the lower tail keeps all digits
    mass = below(-start.abs(), schedule.first)
    low, high = torch.full_like(start, -20.0), torch.zeros_like(start)
    for _ in range(60):
        middle = (low + high) / 2
        short = below(middle, schedule.last) < mass
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return -side * high


@functools.cache
def truncation(horizon: float) -> tuple[float, float]:
    """KL(p_T | N) and KL(N | p_T) of one coordinate.

    Args:
        horizon: T.

    Returns:
        The two, in nats, by the trapezoidal rule.
    """
    x = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    model = product(pd.OU(horizon=horizon + 1)).coordinate()
    noisy = model.log_density(x[:, None], torch.full_like(x, horizon))
    normal = -(x**2) / 2 - math.log(2 * math.pi) / 2
    forward = torch.trapezoid(noisy.exp() * (noisy - normal), x)
    return float(forward), float(torch.trapezoid(normal.exp() * (normal - noisy), x))


def horizon(nats: float) -> float:
    """The shortest horizon whose truncation is at most this for one coordinate.

    Args:
        nats: Share of one coordinate.

    Returns:
        T, at least twice the early stop.
    """
    low, high = 2 * LAST, 40.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if max(truncation(middle)) <= nats else (middle, high)
    return high


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is asked of all methods.

    Args:
        dim: Dimension d.
        nats: Budget of KL.
        form: What the sequential sampler freezes over a step: the score, as the paper, or score plus state.
        careful: Whether T is that of the theorem, d exp(-T) within its share, instead of the shortest that will do.
        thinned: Only one in so many steps, to find out cheaply how many sweeps there must be.
    """

    dim: int
    nats: float
    form: Form = Form.SCORE
    careful: bool = False
    thinned: int = 1

    @functools.cached_property
    def schedule(self) -> pd.OU:
        """The schedule, from the horizon to the early stop."""
        share = SHARES["truncation"] * self.nats
        return pd.OU(horizon=math.log(self.dim / share) if self.careful else horizon(share / self.dim), last=LAST)

    @functools.cached_property
    def table(self) -> Tableau:
        """The sequential sampler, made once: long tables take a while."""
        return pd.Exponential(form=self.form, stochasticity=1.0).tableau(self.schedule, self.times)

    @property
    def steps(self) -> int:
        """The fewest steps whose discretisation fits."""
        return self._enough // self.thinned

    @functools.cached_property
    def _enough(self) -> int:
        share = SHARES["discretisation"] * self.nats / self.dim
        fits = PILOT * self._pilot(PILOT) / share
        if fits >= PILOT:
            return math.ceil(fits)
        low, high = 1, math.ceil(fits) + 8
        while self._pilot(high) > share:
            low, high = high, high + 8
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._pilot(middle) <= share else (middle, high)
        return high

    @property
    def times(self) -> Array:
        """The shrinking grid."""
        return pd.grids.shrinking(self.schedule, self.steps)

    @property
    def blocks(self) -> int:
        """Blocks of forward time about 1, at least two."""
        return max(2, round(self.schedule.horizon - LAST))

    @property
    def samples(self) -> int:
        """How many samples are drawn: fewer where they are long."""
        return max(2, min(32, (1 << 12) // self.dim))

    def _pilot(self, steps: int) -> float:
        return pilot(self.form, self.schedule, steps)


@functools.cache
def pilot(form: Form, schedule: pd.OU, steps: int) -> float:
    """Discretisation of one coordinate in nats, unbiased: the mean over 8192 of them.

    Args:
        form: What is frozen.
        schedule: The schedule.
        steps: Steps of the shrinking grid.

    Returns:
        Nats.
    """
    model, shape = product(schedule), (128, 64)
    solution = pd.sample(
        model,
        shape,
        sampler=pd.Exponential(form=form, stochasticity=1.0),
        times=pd.grids.shrinking(schedule, steps),
        solver=pd.sequential(),
        trajectory=True,
        dtype=torch.float64,
    )
    return discretisation.kl(solution, model).mean / shape[1]
