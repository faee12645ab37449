"""The schedule of a network trained at n integer times: a table of cumulative products, as diffusers stores it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.schedules.base import inside, ordered, real


@dataclass(frozen=True)
class Discrete:
    r"""Variance-preserving levels at integer times n-1, ..., 0, and a clean end at time -1.

    .. math:: \alpha_t^2 = \bar\alpha_t = \prod_{s \le t} (1 - \beta_s), \qquad \sigma_t^2 = 1 - \bar\alpha_t, \qquad
        \alpha_{-1}^2 = \text{final}.

    Between two integers log(sigma / alpha) is linear in time. Source: Ho et al. 2020, arXiv 2006.11239, equation 4.

    Args:
        alphas_cumprod: The n products, from least to most noise: decreasing, in (0, 1), the last one may be 0.
        final: The product at time -1: 1 for a noiseless end, ``alphas_cumprod[0]`` for what diffusers calls
            ``set_alpha_to_one=False``.

    Raises:
        SpecError: if the products do not decrease inside (0, 1), or ``final`` is not in [alphas_cumprod[0], 1].

    Example:
        >>> schedule = Discrete([0.9, 0.5, 0.1])
        >>> schedule.first, schedule.last, schedule.alpha([-1, 0]).round(4).tolist()
        (2.0, -1.0, [1.0, 0.9487])
    """

    alphas_cumprod: Iterable[float]
    final: float = 1.0

    def __post_init__(self) -> None:
        products = np.array([float(product) for product in self.alphas_cumprod])
        if len(products) < 2:
            raise SpecError(f"expected at least 2 entries in alphas_cumprod, found {len(products)}: pass all of them")
        if not (products[0] < 1 and products[-1] >= 0):
            raise SpecError(
                f"expected alphas_cumprod in (0, 1), found {products[0]} first and {products[-1]} last: "
                "pass cumulative products of 1 - beta, not betas or their square roots"
            )
        bad = np.flatnonzero(~(np.diff(products) < 0))
        if len(bad):
            at = int(bad[0])
            raise SpecError(
                f"expected alphas_cumprod to decrease, found {products[at]} then {products[at + 1]} at index {at + 1}: "
                "order them from least to most noise"
            )
        if not (products[0] <= self.final <= 1):
            raise SpecError(
                f"expected final in [alphas_cumprod[0], 1] = [{products[0]}, 1], found {self.final}: "
                "use 1.0 for a noiseless end or alphas_cumprod[0]"
            )
        object.__setattr__(self, "alphas_cumprod", tuple(products.tolist()))
        object.__setattr__(self, "final", float(self.final))

    @classmethod
    def linear(cls, n: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02, final: float = 1.0) -> Discrete:
        """The schedule of DDPM: beta grows linearly.

        Args:
            n: Number of training times.
            beta_first: Rate at time 0.
            beta_last: Rate at time n - 1.
            final: The product at time -1.

        Returns:
            The schedule, in float64 (a network's own table may be float32).

        Example:
            >>> Discrete.linear().steps
            1000
        """
        ordered("beta_first", beta_first, "beta_last", beta_last)
        return cls(np.cumprod(1 - np.linspace(beta_first, beta_last, n)), final)

    @classmethod
    def scaled_linear(
        cls, n: int = 1000, beta_first: float = 0.00085, beta_last: float = 0.012, final: float = 1.0
    ) -> Discrete:
        """The schedule of latent diffusion: the square root of beta grows linearly.

        Args:
            n: Number of training times.
            beta_first: Rate at time 0.
            beta_last: Rate at time n - 1.
            final: The product at time -1.

        Returns:
            The schedule, in float64.
        """
        ordered("beta_first", beta_first, "beta_last", beta_last)
        return cls(np.cumprod(1 - np.linspace(beta_first**0.5, beta_last**0.5, n) ** 2), final)

    @classmethod
    def cosine(cls, n: int = 1000, beta_max: float = 0.999, final: float = 1.0) -> Discrete:
        """The cosine schedule as networks were trained with it: n ratios of squared cosines, each beta capped.

        Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17 and the cap after it.

        Args:
            n: Number of training times.
            beta_max: Cap on beta.
            final: The product at time -1.

        Returns:
            The schedule, in float64.
        """
        inside("beta_max", beta_max, 0.0, 1.0)
        bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * np.pi / 2) ** 2
        return cls(np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], beta_max)), final)

    @property
    def steps(self) -> int:
        """Number n of training times."""
        return len(self._products) - 1

    @property
    def first(self) -> float:
        """Time of the noise end, n - 1."""
        return float(self.steps - 1)

    @property
    def last(self) -> float:
        """Time of the clean end, -1."""
        return -1.0

    @cached_property
    def _products(self) -> Array:
        return np.array([self.final, *self.alphas_cumprod])

    @cached_property
    def _log_noise(self) -> Array:
        with np.errstate(divide="ignore"):
            return 0.5 * (np.log1p(-self._products) - np.log(self._products))

    def _levels(self, t: ArrayLike) -> tuple[Array, Array]:
        position = np.asarray(real(t) + 1)
        if not np.all((position >= 0) & (position <= self.steps)):
            raise SpecError(
                f"expected times in [-1, {self.steps - 1}], found {float(np.min(t))} to {float(np.max(t))}: "
                f"this schedule has {self.steps} training times"
            )
        low = np.asarray(np.floor(position)).astype(np.int64)
        high = np.asarray(np.ceil(position)).astype(np.int64)
        alpha = np.asarray(np.sqrt(self._products[low]))
        sigma = np.asarray(np.sqrt(1 - self._products[low]))
        between = np.asarray(low != high)
        if np.any(between):
            part = (position - low)[between]
            log_noise = self._log_noise[low[between]] * (1 - part) + self._log_noise[high[between]] * part
            if not np.all(np.isfinite(log_noise)):
                raise SpecError(
                    "expected integer times next to a level of zero noise or zero signal, found a time between: "
                    "move it to the nearest integer"
                )
            alpha[between] = np.exp(-0.5 * np.logaddexp(0.0, 2 * log_noise))
            sigma[between] = np.exp(-0.5 * np.logaddexp(0.0, -2 * log_noise))
        return alpha, sigma

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape in [-1, n - 1]."""
        return self._levels(t)[0]

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape in [-1, n - 1]."""
        return self._levels(t)[1]

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values, held at the ends of the table."""
        value = real(log_snr)
        finite = np.isfinite(self._log_noise)
        times = np.interp(-value, self._log_noise[finite], np.arange(-1.0, self.steps)[finite])
        times = np.where((value == np.inf) & ~finite[0], -1.0, times)
        return np.where((value == -np.inf) & ~finite[-1], self.first, times)
