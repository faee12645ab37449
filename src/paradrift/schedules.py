"""Noise schedules: x_t = alpha(t) x_0 + sigma(t) eps. (Being written.)"""

from __future__ import annotations

from typing import Protocol

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

    def alpha(self, t: Array) -> Array:
        """Signal level at times of any shape, float64."""
        ...

    def sigma(self, t: Array) -> Array:
        """Noise level at times of any shape, float64."""
        ...

    def time(self, log_snr: Array) -> Array:
        """The time at which log(alpha / sigma) takes the given values."""
        ...
