"""Schedules that preserve variance, alpha^2 + sigma^2 = 1, in continuous time: VP, Cosine, OU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paradrift.forms import Array
from paradrift.schedules.base import inside, ordered, real


@dataclass(frozen=True)
class VP:
    r"""The variance-preserving diffusion with a linear rate, in continuous time.

    .. math:: B(t) = \beta_{\min} t + \tfrac12(\beta_{\max}-\beta_{\min})t^2, \qquad
        \alpha = e^{-B/2}, \quad \sigma^2 = 1 - e^{-B}.

    Source: Song et al. 2021, arXiv 2011.13456, equations 32 and 33; its sampling code also stops at 1e-3.

    Args:
        beta_min: Noise rate at t = 0.
        beta_max: Noise rate at t = 1.
        last: Time at which sampling stops; the network is not trained below it.

    Raises:
        SpecError: unless ``0 < beta_min < beta_max`` and ``0 <= last < 1``.

    Example:
        >>> float(VP().alpha(0.0)), float(VP().sigma(0.0))
        (1.0, 0.0)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    last: float = 1e-3

    def __post_init__(self) -> None:
        ordered("beta_min", self.beta_min, "beta_max", self.beta_max)
        inside("last", self.last, 0.0, 1.0)

    @property
    def first(self) -> float:
        """Time of the noise end, 1."""
        return 1.0

    def _integral(self, t: ArrayLike) -> Array:
        t = real(t)
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape."""
        return np.exp(-self._integral(t) / 2)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape."""
        return np.sqrt(-np.expm1(-self._integral(t)))

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        integral = np.logaddexp(0.0, -2 * real(log_snr))
        root = np.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * integral)
        return 2 * integral / (self.beta_min + root)


@dataclass(frozen=True)
class Cosine:
    r"""The cosine schedule in continuous time.

    .. math:: \alpha(t) = \cos u_t / \cos u_0, \qquad u_t = \frac{t + s}{1 + s}\frac{\pi}{2}, \qquad
        \sigma^2 = 1 - \alpha^2 = \frac{\sin(u_t - u_0)\sin(u_t + u_0)}{\cos^2 u_0}.

    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17 (its square root). Alpha reaches zero at t = 1,
    where no noise prediction can be turned into data, so sampling starts a little earlier.

    Args:
        offset: The small shift s that keeps the first noise level above the pixel quantum.
        first: Time of the noise end; 0.9946 has a log-SNR of about -5, as noisy as :class:`VP` at its start.
        last: Time at which sampling stops.

    Raises:
        SpecError: unless ``offset > 0`` and ``0 <= last < first <= 1``.

    Example:
        >>> from paradrift.schedules import log_snr
        >>> round(float(log_snr(Cosine(), 0.9946)), 1)
        -4.8
    """

    offset: float = 0.008
    first: float = 0.9946
    last: float = 1e-3

    def __post_init__(self) -> None:
        ordered("offset", self.offset, "1", 1.0)
        ordered("first", self.first, "1 + 1e-12", 1.0 + 1e-12)
        inside("last", self.last, 0.0, self.first)

    def _angles(self, t: ArrayLike) -> tuple[Array, float]:
        quarter = np.pi / 2 / (1 + self.offset)
        return (real(t) + self.offset) * quarter, self.offset * quarter

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape."""
        angle, start = self._angles(t)
        return np.cos(angle) / np.cos(start)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape."""
        angle, start = self._angles(t)
        return np.sqrt(np.sin(angle - start) * np.sin(angle + start)) / np.cos(start)

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        _, start = self._angles(0.0)
        signal = np.exp(-np.logaddexp(0.0, -2 * real(log_snr)))
        noise = np.exp(-np.logaddexp(0.0, 2 * real(log_snr)))
        sine = np.sqrt(np.sin(start) ** 2 + np.cos(start) ** 2 * noise)
        angle = np.arctan2(sine, np.cos(start) * np.sqrt(signal))
        return angle * (1 + self.offset) * 2 / np.pi - self.offset


@dataclass(frozen=True)
class OU:
    r"""The Ornstein-Uhlenbeck process at unit rate, the schedule of PIADM.

    .. math:: dx_t = -\tfrac12 x_t\,dt + dw_t, \qquad \alpha = e^{-t/2}, \quad \sigma^2 = 1 - e^{-t}.

    Source: Chen, Ren, Ying and Rotskoff 2024, arXiv 2405.15986.

    Args:
        horizon: Forward time T at which sampling starts, O(log dimension).
        last: Forward time at which sampling stops early, the eta of the paper.

    Raises:
        SpecError: unless ``0 <= last < horizon``.

    Example:
        >>> from paradrift.schedules import log_snr
        >>> round(float(OU(horizon=8.0).time(log_snr(OU(horizon=8.0), 2.0))), 12)
        2.0
    """

    horizon: float = 8.0
    last: float = 1e-3

    def __post_init__(self) -> None:
        inside("last", self.last, 0.0, self.horizon)

    @property
    def first(self) -> float:
        """Time of the noise end, the horizon."""
        return self.horizon

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape."""
        return np.exp(-real(t) / 2)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape."""
        return np.sqrt(-np.expm1(-real(t)))

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        return np.logaddexp(0.0, -2 * real(log_snr))
