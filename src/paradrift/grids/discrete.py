"""Grids of integer training times, with exactly the rounding of diffusers: leading, trailing, linspace."""

from __future__ import annotations

import numpy as np

from paradrift.forms import Array
from paradrift.grids.base import count, custom
from paradrift.schedules import Discrete


def leading(schedule: Discrete, steps: int, offset: int = 0) -> Array:
    """Multiples of ``n // steps``, plus the offset: diffusers' "leading" spacing.

    Args:
        schedule: A discrete schedule with n training times.
        steps: Number of steps, 1 to n.
        offset: What diffusers calls ``steps_offset``; 1 for Stable Diffusion 1 and 2.

    Returns:
        Shape (steps + 1,), ending in -1.

    Raises:
        SpecError: if ``steps`` or the offset leads outside the n training times.

    Example:
        >>> leading(Discrete.linear(1000), 4, offset=1).tolist()
        [751.0, 501.0, 251.0, 1.0, -1.0]
    """
    count(steps, most=schedule.steps)
    return custom(schedule, (np.arange(steps) * (schedule.steps // steps))[::-1] + offset)


def trailing(schedule: Discrete, steps: int) -> Array:
    """Multiples of ``n / steps`` counted down from n, less 1, rounded to even: diffusers' "trailing" spacing.

    Args:
        schedule: A discrete schedule with n training times.
        steps: Number of steps, 1 to n.

    Returns:
        Shape (steps + 1,), ending in -1.

    Raises:
        SpecError: if ``steps`` is not in 1 to n.

    Example:
        >>> trailing(Discrete.linear(1000), 4).tolist()
        [999.0, 749.0, 499.0, 249.0, -1.0]
    """
    count(steps, most=schedule.steps)
    # arange may step once too often when its rounding falls short of 0; the extra entry is not a time
    return custom(schedule, np.round(np.arange(schedule.steps, 0, -schedule.steps / steps))[:steps] - 1)


def linspace(schedule: Discrete, steps: int) -> Array:
    """From n - 1 to 0 in equal parts, rounded to even: diffusers' "linspace" spacing.

    Args:
        schedule: A discrete schedule with n training times.
        steps: Number of steps, 1 to n; a single step starts at time 0, as in diffusers.

    Returns:
        Shape (steps + 1,), ending in -1.

    Raises:
        SpecError: if ``steps`` is not in 1 to n.

    Example:
        >>> linspace(Discrete.linear(1000), 4).tolist()
        [999.0, 666.0, 333.0, 0.0, -1.0]
    """
    count(steps, most=schedule.steps)
    return custom(schedule, np.linspace(0, schedule.steps - 1, steps).round()[::-1])
