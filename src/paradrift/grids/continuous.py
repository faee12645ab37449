"""Grids of any schedule, by a law of time or of noise level: uniform, log_snr, karras, shrinking."""

from __future__ import annotations

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.grids.base import check, count
from paradrift.schedules import EDM, Discrete, Schedule
from paradrift.schedules import log_snr as snr


def uniform(schedule: Schedule, steps: int, first: float | None = None, last: float | None = None) -> Array:
    """Equal steps of model time.

    Args:
        schedule: The noise schedule, which gives the default ends.
        steps: Number of steps, >= 1.
        first: Time of the start; None: ``schedule.first``.
        last: Time of the end; None: ``schedule.last``.

    Returns:
        Shape (steps + 1,).

    Raises:
        SpecError: if ``steps < 1`` or ``first <= last``.

    Example:
        >>> from paradrift.schedules import Flow
        >>> uniform(Flow(), 4).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    count(steps)
    first = schedule.first if first is None else first
    last = schedule.last if last is None else last
    return check(np.linspace(first, last, steps + 1))


def log_snr(schedule: Schedule, steps: int, first: float | None = None, last: float | None = None) -> Array:
    r"""Equal steps of :math:`\lambda = \log(\alpha/\sigma)`.

    Where the end of the schedule is noiseless (its log-SNR infinite), the last step goes there from ``last``.

    Args:
        schedule: The noise schedule.
        steps: Number of steps, >= 1 (>= 2 with a step to a noiseless end).
        first: Time of the start; None: ``schedule.first``.
        last: Time of the last equal step; None: sigma_min for EDM, 0 for Discrete, ``schedule.last`` otherwise.

    Returns:
        Shape (steps + 1,).

    Raises:
        SpecError: if the log-SNR at ``first`` or ``last`` is infinite, or too few steps are left.

    Example:
        >>> from paradrift.schedules import VE
        >>> log_snr(VE(), 4).round(12).tolist()
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    match schedule:
        case EDM():
            floor = schedule.sigma_min
        case Discrete():
            floor = 0.0
        case _:
            floor = schedule.last
    first = schedule.first if first is None else first
    last = floor if last is None else last
    ends = snr(schedule, np.array([first, last]))
    if not np.all(np.isfinite(ends)):
        raise SpecError(
            f"expected a finite log-SNR at both ends, found {ends[0]} at first={first} and {ends[1]} at last={last}: "
            "give first= and last= inside the schedule"
        )
    jump = last > schedule.last and not np.isfinite(snr(schedule, schedule.last))
    count(steps, least=1 + int(jump))
    times = schedule.time(np.linspace(ends[0], ends[1], steps + 1 - int(jump)))
    times[[0, -1]] = first, last
    return check(np.append(times, schedule.last) if jump else times)


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Array:
    r"""Equal steps of :math:`\varrho^{1/7}`, :math:`\varrho = \sigma/\alpha`, then a step to the noiseless end.

    .. math:: \varrho_i = \Big(\varrho_{\max}^{1/r} + \tfrac{i}{N-1}
        (\varrho_{\min}^{1/r} - \varrho_{\max}^{1/r})\Big)^{r}, \qquad i = 0 \dots N-1, \qquad \varrho_N = 0.

    Source: Karras et al. 2022, arXiv 2206.00364, equation 5. A schedule that ends at a positive noise level (VP, OU,
    VE) has N + 1 levels and no last step to zero.

    Args:
        schedule: The noise schedule.
        steps: Number of steps N, >= 2.
        rho: The exponent r; 7 puts most steps at low noise.

    Returns:
        Shape (steps + 1,).

    Raises:
        SpecError: if ``steps < 2``, ``rho <= 0``, or the log-SNR at the noise end is infinite (Flow).

    Example:
        >>> karras(EDM(), 3).round(4).tolist()
        [80.0, 2.5152, 0.002, 0.0]
    """
    if not rho > 0:
        raise SpecError(f"expected rho > 0, found {rho}: 7 is the usual value")
    count(steps, least=2)
    ladder = log_snr(schedule, steps)
    jump = not np.isfinite(snr(schedule, ladder[-1]))
    levels = np.exp(-snr(schedule, ladder[:-1] if jump else ladder))
    top, bottom = levels[0] ** (1 / rho), levels[-1] ** (1 / rho)
    times = schedule.time(-rho * np.log(np.linspace(top, bottom, len(levels))))
    times[[0, -1]] = ladder[0], ladder[len(levels) - 1]
    return check(np.append(times, ladder[-1]) if jump else times)


def shrinking(schedule: Schedule, steps: int) -> Array:
    r"""The early-stopped grid of PIADM: equal steps while the remaining time is long, then geometric ones.

    With :math:`r` the remaining forward time (of the Ornstein-Uhlenbeck process with the same noise levels,
    :math:`r = \log(1 + \sigma^2/\alpha^2)`), the steps are as long as the condition of the theory allows,

    .. math:: r_m - r_{m+1} \le \kappa \min(1, r_{m+1}),

    that is ``r - kappa`` while that is at least 1, and ``r / (1 + kappa)`` afterwards. The step size kappa is the one
    for which N such steps lead exactly from ``schedule.first`` to ``schedule.last``.

    Sources: Chen et al. 2024, arXiv 2405.15986; Benton et al. 2024, arXiv 2308.03686 (the condition).

    Args:
        schedule: The noise schedule, with signal left at ``first`` and noise left at ``last``.
        steps: Number of steps, >= 1.

    Returns:
        Shape (steps + 1,).

    Raises:
        SpecError: if ``steps < 1``, or one end of the schedule has no signal or no noise.

    Example:
        >>> from paradrift.schedules import OU
        >>> shrinking(OU(horizon=4.0, last=0.05), 5).round(3).tolist()
        [4.0, 2.375, 0.905, 0.345, 0.131, 0.05]
    """
    count(steps)
    ends = snr(schedule, np.array([schedule.first, schedule.last]))
    if not np.all(np.isfinite(ends)):
        raise SpecError(
            f"expected signal at first={schedule.first} and noise at last={schedule.last}, found log-SNR {ends[0]} and "
            f"{ends[1]}: stop early, for example with OU(last=1e-3)"
        )
    start, stop = np.logaddexp(0.0, -2 * ends)
    low, high = 0.0, max(float(start), float(start / stop))
    for _ in range(200):  # r_N falls continuously with kappa: bisection to the last bit
        kappa = (low + high) / 2
        if kappa in (low, high):
            break
        low, high = (kappa, high) if _remaining(float(start), kappa, steps)[-1] > stop else (low, kappa)
    remaining = np.array(_remaining(float(start), high, steps))
    times = schedule.time(-0.5 * np.log(np.expm1(remaining)))
    times[[0, -1]] = schedule.first, schedule.last
    return check(times)


def _remaining(start: float, kappa: float, steps: int) -> list[float]:
    path = [start]
    for _ in range(steps):
        path.append(path[-1] - kappa if path[-1] - kappa >= 1 else path[-1] / (1 + kappa))
    return path
