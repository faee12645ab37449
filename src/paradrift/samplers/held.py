"""The step of an exponential integrator between any two levels, one output held fixed over it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from paradrift.forms import Array, Form
from paradrift.schedules import Schedule


class Levels(NamedTuple):
    """Signal and noise levels of any shape.

    Args:
        alpha: Signal levels.
        sigma: Noise levels.
    """

    alpha: Array
    sigma: Array


class Step(NamedTuple):
    """The map ``x_s = a x_t + b f + c xi`` with f held fixed.

    Args:
        a: Weight of the state.
        b: Weight of the held output, in the sampler's form.
        c: Weight of the noise.
    """

    a: Array
    b: Array
    c: Array


def step(form: Form, stochasticity: float, schedule: Schedule, start: Levels, end: Levels) -> Step:
    """The map of an exponential integrator between any levels; arrays broadcast against each other.

    Args:
        form: What is frozen: SCORE, NOISE, DATA or RESIDUAL.
        stochasticity: lambda.
        schedule: The noise schedule, for the quadrature of the score form.
        start: Levels at the start; signal may be zero in DATA form only.
        end: Levels at the end, of more signal to noise.

    Returns:
        The map; its formulas stand in :class:`paradrift.Exponential`.
    """
    square = stochasticity**2
    with np.errstate(divide="ignore"):
        fallen = np.log(start.alpha) + np.log(end.sigma) - np.log(end.alpha) - np.log(start.sigma)  # log r, <= 0
    damped = square * fallen if square > 0 else np.zeros_like(fallen)  # log r may be infinite
    if form is Form.DATA:
        a = end.sigma / start.sigma * np.exp(damped)
        return Step(a, end.alpha * -np.expm1((1 + square) * fallen), end.sigma * np.sqrt(-np.expm1(2 * damped)))
    growth = end.alpha / start.alpha
    if form is Form.RESIDUAL:
        elapsed = 2 * np.log(growth)
        lost = -np.expm1(-square * elapsed / 2)
        b = (1 + square) / square * lost if square > 0 else elapsed / 2
        return Step(1 - lost, b, np.sqrt(-np.expm1(-square * elapsed)))
    before, after = start.sigma / start.alpha, end.sigma / end.alpha
    c = stochasticity * end.alpha * before * np.sqrt(-np.expm1(2 * fallen))
    if form is Form.NOISE:
        return Step(growth, -(1 + square) * end.alpha * (before - after), c)
    return Step(growth, (1 + square) / 2 * end.alpha * _score_weight(schedule, start, end), c)


def preserving(levels: Levels) -> bool:
    """Whether all levels have alpha^2 + sigma^2 = 1.

    Args:
        levels: The levels.

    Returns:
        Whether they do.
    """
    return bool(np.all(np.abs(levels.alpha**2 + levels.sigma**2 - 1) < 1e-9))


def _score_weight(schedule: Schedule, start: Levels, end: Levels) -> Array:
    """The integral of alpha over d(rho^2), in closed form where it has one."""
    if preserving(start) and preserving(end):
        return 2 * (1 / start.alpha - 1 / end.alpha)
    if np.all(start.alpha == 1) and np.all(end.alpha == 1):
        return start.sigma**2 - end.sigma**2
    # Gauss-Legendre in log(1 + rho); smooth at rho = 0 and for rho -> infinity, and 32 points reach 1e-14
    high, low = np.log1p(start.sigma / start.alpha), np.log1p(end.sigma / end.alpha)
    points, weights = np.polynomial.legendre.leggauss(32)
    half, middle = (high - low) / 2, (high + low) / 2
    total = np.zeros_like(half)
    for point, weight in zip(points, weights, strict=True):
        relative = np.expm1(middle + half * point)
        total += weight * schedule.alpha(schedule.time(-np.log(relative))) * 2 * relative * (1 + relative)
    return half * total
