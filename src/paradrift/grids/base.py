"""What every grid must be, and grids of your own times."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.schedules import Schedule


def check(times: ArrayLike) -> Array:
    """The times as float64, after checking them.

    Args:
        times: Model times, shape (N + 1,), from noise to data.

    Returns:
        The same times, shape (N + 1,), float64.

    Raises:
        SpecError: unless there are at least two finite, strictly decreasing times.

    Example:
        >>> check([1, 0]).tolist()
        [1.0, 0.0]
    """
    times = np.array(np.asarray(times), np.float64)
    if times.ndim != 1 or len(times) < 2:
        raise SpecError(
            f"expected a vector of at least 2 times, found shape {times.shape}: list noise end and data end"
        )
    if not np.all(np.isfinite(times)):
        raise SpecError(f"expected finite times, found {times[~np.isfinite(times)][0]}: remove it")
    bad = np.flatnonzero(np.diff(times) >= 0)
    if len(bad):
        at = int(bad[0])
        raise SpecError(
            f"expected strictly decreasing times, found {times[at]} then {times[at + 1]} at index {at + 1}: "
            "order them from noise to data, without repetition"
        )
    return times


def count(steps: int, least: int = 1, most: int | None = None) -> None:
    """Refuse a number of steps outside ``least`` to ``most``."""
    if steps < least or (most is not None and steps > most):
        bound = f"{least} or more" if most is None else f"{least} to {most}"
        raise SpecError(f"expected {bound} steps, found {steps}: change steps")


def custom(schedule: Schedule, times: ArrayLike) -> Array:
    """Your own times, followed by the end of the schedule where they do not reach it.

    Args:
        schedule: The noise schedule.
        times: Strictly decreasing times between ``schedule.first`` and ``schedule.last``.

    Returns:
        The times, ending in ``schedule.last``.

    Raises:
        SpecError: if a time is outside the schedule or the times do not decrease.

    Example:
        >>> from paradrift.schedules import Discrete
        >>> custom(Discrete.linear(1000), [999, 500, 0]).tolist()
        [999.0, 500.0, 0.0, -1.0]
    """
    times = np.atleast_1d(np.array(np.asarray(times), np.float64))
    outside = times[~((times <= schedule.first) & (times >= schedule.last))]
    if len(outside):
        raise SpecError(
            f"expected times between {schedule.first} and {schedule.last}, found {outside[0]}: "
            "use the time that the schedule was made for"
        )
    return check(times if times[-1] == schedule.last else np.append(times, schedule.last))
