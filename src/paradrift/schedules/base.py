"""What a schedule is, its log signal-to-noise ratio, and the checks that all schedules share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from paradrift.errors import SpecError
from paradrift.forms import Array


class Schedule(Protocol):
    """Signal and noise levels as functions of the model's own time, which runs from ``first`` down to ``last``."""

    @property
    def first(self) -> float:
        """Time of the noise end, where sampling starts."""
        ...

    @property
    def last(self) -> float:
        """Time of the data end."""
        ...

    def alpha(self, t: ArrayLike) -> Array:
        """Signal level at times of any shape, float64."""
        ...

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times of any shape, float64."""
        ...

    def time(self, log_snr: ArrayLike) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        ...


def log_snr(schedule: Schedule, t: ArrayLike) -> Array:
    r"""The log signal-to-noise ratio :math:`\lambda(t) = \log(\alpha/\sigma)`.

    Args:
        schedule: A noise schedule.
        t: Times, any shape.

    Returns:
        Same shape, float64; infinite where a level is zero.

    Example:
        >>> from paradrift.schedules import Flow
        >>> float(log_snr(Flow(), 0.5))
        0.0
    """
    with np.errstate(divide="ignore"):
        return np.log(schedule.alpha(t)) - np.log(schedule.sigma(t))


def real(values: ArrayLike) -> Array:
    """The values as a float64 array of any shape."""
    return np.asarray(values, np.float64)


def ordered(low_name: str, low: float, high_name: str, high: float) -> None:
    """Refuse a range that is not ``0 < low < high < infinity``."""
    if not (0 < low < high < np.inf):
        raise SpecError(
            f"expected 0 < {low_name} < {high_name}, both finite, found {low_name}={low} and {high_name}={high}: "
            "swap or correct them"
        )


def inside(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value outside ``low <= value < high``."""
    if not (low <= value < high):
        raise SpecError(f"expected {low} <= {name} < {high}, found {name}={value}: give a value inside")
