r"""What a sampler is, and the bricks of one-step and multistep tables.

On a step from time t down to s < t everything depends on the levels at its two ends and on the ratio

.. math:: r = e^{-h} = \frac{\alpha_t \sigma_s}{\alpha_s \sigma_t} \in [0, 1], \qquad
    h = \log\frac{\alpha_s}{\sigma_s} - \log\frac{\alpha_t}{\sigma_t},

which needs no division by :math:`\alpha_t`: a start without any signal gives r = 0, and so does a noiseless end.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from paradrift.errors import SpecError
from paradrift.forms import Array, Form
from paradrift.grids import check
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau


class Sampler(Protocol):
    """A sequential method: given a noise schedule and a time grid, it is a table."""

    def tableau(self, schedule: Schedule, times: Array) -> Tableau:
        """The table of this sampler on this grid.

        Args:
            schedule: The noise schedule of the model.
            times: Strictly decreasing model times, shape (N + 1,); the model is not evaluated at the last.

        Returns:
            A checked table; every step leads to the next listed time.
        """
        ...


@runtime_checkable
class Gridded(Protocol):
    """A sequential method that brings its own grid, such as a scheduler whose timesteps are set."""

    def table(self) -> Tableau:
        """The table on that grid.

        Returns:
            A checked table.
        """
        ...


class Levels(NamedTuple):
    """A grid with the levels of its times.

    Args:
        t: Model times, shape (N + 1,).
        alpha: Signal levels, shape (N + 1,).
        sigma: Noise levels, shape (N + 1,).
        ratio: The ratio r of each step, shape (N,).
        start: Standard deviation of the noise to start from: 1 where alpha^2 + sigma^2 = 1, else sigma at the start.
    """

    t: Array
    alpha: Array
    sigma: Array
    ratio: Array
    start: float

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return len(self.ratio)

    @property
    def decay(self) -> Array:
        """The ratio of noise levels of each step, shape (N,)."""
        return self.sigma[1:] / self.sigma[:-1]

    @property
    def log_steps(self) -> Array:
        """The step h in log-SNR, shape (N,); infinite from no signal and to no noise."""
        with np.errstate(divide="ignore"):
            return -np.log(self.ratio)


def levels(schedule: Schedule, times: Array) -> Levels:
    """The levels of a grid, after checking that a sampler can walk it.

    Args:
        schedule: The noise schedule.
        times: Model times, shape (N + 1,).

    Returns:
        The levels.

    Raises:
        SpecError: if the times do not decrease, or noise is missing at a node, or a step adds noise.
    """
    times = check(times)
    alpha, sigma = np.asarray(schedule.alpha(times)), np.asarray(schedule.sigma(times))
    if not (np.all(sigma[:-1] > 0) and np.all(alpha[1:] > 0) and np.all(np.isfinite(sigma) & np.isfinite(alpha))):
        raise SpecError(
            "expected noise at every time but the last and signal at every time but the first, found sigma from "
            f"{sigma.max()} to {sigma[:-1].min()} and alpha from {alpha[1:].min()}: keep the grid inside the schedule"
        )
    ratio = (alpha[:-1] * sigma[1:]) / (alpha[1:] * sigma[:-1])
    if np.any(ratio > 1 + 1e-12):
        at = int(np.argmax(ratio))
        raise SpecError(
            f"expected every step to raise the signal-to-noise ratio, found it falling from t={times[at]} to "
            f"t={times[at + 1]}: order the times from noise to data"
        )
    unit = abs(alpha[0] ** 2 + sigma[0] ** 2 - 1) < 1e-9
    return Levels(times, alpha, sigma, np.minimum(ratio, 1.0), 1.0 if unit else float(sigma[0]))


def one_step(
    grid: Levels, form: Form, a: Array, b: Array, c: Array | None = None, draws: bool | None = None
) -> Tableau:
    """The table of ``x_s = a x_t + b f_t + c xi``.

    Args:
        grid: The levels of the grid.
        form: What ``f`` means.
        a: Weight of the state per step, shape (N,).
        b: Weight of the model output per step, shape (N,).
        c: Weight of the noise per step, shape (N,); None for none.
        draws: Whether the sequential loop draws a noise at every step; None: where its weight is not zero.

    Returns:
        A table of N + 1 rows.
    """
    return multistep(grid, form, a, b[None], c, draws)


def multistep(
    grid: Levels, form: Form, a: Array, b: Array, c: Array | None = None, draws: bool | None = None
) -> Tableau:
    """The table of ``x_s = a x_t + b_0 f_t + b_1 f_{t-1} + ... + c xi``.

    Args:
        grid: The levels of the grid.
        form: What ``f`` means.
        a: Weight of the state per step, shape (N,).
        b: Weight of the model output now, one step ago, ..., shape (lags, N); an output before the start has weight 0.
        c: Weight of the noise per step, shape (N,); None for none.
        draws: Whether the sequential loop draws a noise at every step; None: where its weight is not zero.

    Returns:
        A table of N + 1 rows.
    """
    rows = grid.steps + 1
    step = np.arange(grid.steps)
    states, outputs, noises = np.zeros((rows, rows)), np.zeros((rows, rows)), np.zeros((rows, rows))
    states[step + 1, step] = a
    for lag, weights in enumerate(b):
        outputs[step[lag:] + 1, step[lag:] - lag] = weights[lag:]
    if c is not None:
        noises[step + 1, step + 1] = c
    drawn = np.diag(noises) != 0 if draws is None else np.full(rows, draws)
    drawn[0] = False
    return Tableau(
        t=grid.t,
        a=states,
        b=outputs,
        c=noises,
        form=form,
        evaluated=np.arange(rows) < grid.steps,
        alpha=grid.alpha,
        sigma=grid.sigma,
        scale=np.ones(rows),
        start=grid.start,
        draws=drawn,
    )


def fraction(name: str, value: float) -> None:
    """Refuse a value outside [0, 1]."""
    if not (0 <= value <= 1):
        raise SpecError(
            f"expected {name} in [0, 1], found {value}: 0 is deterministic, 1 is the full reverse diffusion"
        )
