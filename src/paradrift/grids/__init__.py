r"""Time grids: strictly decreasing model times, ``steps + 1`` of them, the last one being the end of sampling.

A sampler evaluates the model at every time but the last. Which times matters more than which sampler: steps should be
small where the data prediction changes quickly. The integrators of this library are exact in the linear part, so what
counts is the step in log signal-to-noise ratio.

The grids of diffusers (``leading``, ``trailing``, ``linspace``) keep its rounding to integer times exactly; its steps
then always lead to the *next listed* time, see :mod:`paradrift.samplers`.
"""

from __future__ import annotations

from paradrift.forms import Array
from paradrift.grids.base import check, custom
from paradrift.grids.continuous import karras, log_snr, shrinking, uniform
from paradrift.grids.discrete import leading, linspace, trailing
from paradrift.schedules import EDM, OU, Discrete, Schedule

__all__ = [
    "check",
    "custom",
    "default",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "shrinking",
    "trailing",
    "uniform",
]


def default(schedule: Schedule, steps: int) -> Array:
    """The grid meant by ``steps=`` alone.

    Discrete: ``leading``, so that as many steps as training times use all of them. EDM: ``karras`` and 0. OU:
    ``shrinking``, the grid of the theory. Every other schedule: ``uniform`` from first to last, the density of times
    that its network was trained with (for VE that is uniform in log-SNR too).

    Args:
        schedule: The noise schedule.
        steps: Number of steps.

    Returns:
        Shape (steps + 1,).

    Raises:
        SpecError: if the number of steps does not fit the schedule.

    Example:
        >>> default(Discrete.linear(4), 4).tolist()
        [3.0, 2.0, 1.0, 0.0, -1.0]
    """
    match schedule:
        case Discrete():
            return leading(schedule, steps)
        case EDM() if steps > 1:
            return karras(schedule, steps)
        case OU():
            return shrinking(schedule, steps)
        case _:
            return uniform(schedule, steps)
