"""Schedules whose states are data plus growing noise, or a straight blend of the two: VE, EDM, Flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paradrift.forms import Array
from paradrift.schedules.base import ordered, real


@dataclass(frozen=True)
class VE:
    r"""The variance-exploding diffusion with geometric noise levels.

    .. math:: \alpha = 1, \qquad \sigma(t) = \sigma_{\min} (\sigma_{\max}/\sigma_{\min})^t, \qquad t \in [0, 1].

    Source: Song et al. 2021, arXiv 2011.13456, equations 30 and 31. Sampling ends at sigma_min, not at zero.

    Args:
        sigma_min: Noise level at t = 0.
        sigma_max: Noise level at t = 1.

    Raises:
        SpecError: unless ``0 < sigma_min < sigma_max``.

    Example:
        >>> round(float(VE(sigma_min=0.01, sigma_max=100.0).sigma(0.5)), 12)
        1.0
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        ordered("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def first(self) -> float:
        """Time of the noise end, 1."""
        return 1.0

    @property
    def last(self) -> float:
        """Time of the data end, 0."""
        return 0.0

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape, 1."""
        return np.ones_like(real(t))

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape."""
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        return np.exp(low + (high - low) * real(t))

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        low, high = np.log(self.sigma_min), np.log(self.sigma_max)
        return (-real(log_snr) - low) / (high - low)


@dataclass(frozen=True)
class EDM:
    r"""Time is the noise level itself.

    .. math:: \alpha = 1, \qquad \sigma(t) = t.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1 (column "Ours"). Sampling starts at sigma_max and ends clean,
    at t = 0, after a last evaluation at sigma_min.

    Args:
        sigma_min: Smallest noise level at which the network is evaluated.
        sigma_max: Noise level at which sampling starts.

    Raises:
        SpecError: unless ``0 < sigma_min < sigma_max``.

    Example:
        >>> EDM().first, EDM().last
        (80.0, 0.0)
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        ordered("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def first(self) -> float:
        """Time of the noise end, sigma_max."""
        return self.sigma_max

    @property
    def last(self) -> float:
        """Time of the data end, 0."""
        return 0.0

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape, 1."""
        return np.ones_like(real(t))

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape, the time itself."""
        return real(t).copy()

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        return np.exp(-real(log_snr))


@dataclass(frozen=True)
class Flow:
    r"""The straight path of flow matching and rectified flow.

    .. math:: \alpha = 1 - t, \qquad \sigma = t, \qquad \dot x = \epsilon - x_0.

    Time runs from noise at 1 to data at 0, as in Stable Diffusion 3 and Flux. Sources: Lipman et al. 2023, arXiv
    2210.02747; Liu et al. 2023, arXiv 2209.03003 (both count time the other way).

    Example:
        >>> float(Flow().alpha(1.0)), float(Flow().sigma(1.0))
        (0.0, 1.0)
    """

    @property
    def first(self) -> float:
        """Time of the noise end, 1."""
        return 1.0

    @property
    def last(self) -> float:
        """Time of the data end, 0."""
        return 0.0

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape."""
        return 1 - real(t)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape, the time itself."""
        return real(t).copy()

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        return np.exp(-np.logaddexp(0.0, real(log_snr)))
