"""Langevin chains in parallel against plain loops: effective draws a second, rounds and evaluations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench.records import Record
from paradrift.samplers.kinetic import kinetic_step

DIMENSION = 50


@dataclass(frozen=True, kw_only=True)
class Target:
    """A density to draw from.

    Args:
        name: What it is.
        score: Its score.
        scale: Its standard deviation per element, roughly.
        steepest: Its largest curvature, roughly: step sizes are 0.1 over it.
    """

    name: str
    score: Callable[[Tensor], Tensor]
    scale: float
    steepest: float


def regression(rows: int) -> Target:
    """Bayesian logistic regression on made-up data: 50 coefficients under a standard normal prior.

    Args:
        rows: Number of observations: the cost of a score grows with it.

    Returns:
        The target.
    """
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(rows, DIMENSION, generator=generator) / math.sqrt(DIMENSION)
    truth = torch.randn(DIMENSION, generator=generator)
    labels = (torch.rand(rows, generator=generator) < torch.sigmoid(data @ truth)).float()
    steepest = 1 + 0.25 * float(torch.linalg.eigvalsh(data.T @ data).max())
    return Target(
        name=f"logistic regression, 50 coefficients, {rows} observations",
        score=lambda x: (labels - torch.sigmoid(x @ data.T)) @ data - x,
        scale=1 / math.sqrt(steepest / 1.5),
        steepest=steepest,
    )


def network(width: int) -> Target:
    """A force with a network in it: minus the state, and a small push from two layers of random weights.

    Args:
        width: Of the hidden layers: one row has to read all weights, and so do many.

    Returns:
        The target; it is no gradient, as a learned score is none.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = ((DIMENSION, width), (width, width), (width, DIMENSION))
    first, second, third = (torch.randn(m, n, generator=generator) / math.sqrt(m) for m, n in sizes)

    def score(x: Tensor) -> Tensor:
        return torch.tanh(torch.tanh(x @ first) @ second) @ third - x

    return Target(name=f"network of width {width}", score=score, scale=1.0, steepest=2.0)


def langevin(quick: bool) -> Iterator[Record]:
    """Cheap, costly and network scores, one chain and eight, both dynamics, two windows: seconds against a plain loop.

    Args:
        quick: 60 steps instead of 1000, and the cheap score only.

    Yields:
        One record per case; effective draws a second stand in ``extra``.
    """
    steps = 60 if quick else 1000
    for target in (regression(200),) if quick else (regression(200), regression(20_000), network(4096)):
        for chains in (1, 8):
            for friction in (None, 2 * math.sqrt(target.steepest)):
                step = 0.1 / target.steepest if friction is None else 0.2 / math.sqrt(target.steepest)
                start = torch.zeros(chains, DIMENSION)
                begin = time.perf_counter()
                states = plain(target.score, start, steps, step, friction)
                sequential = time.perf_counter() - begin
                for width in (16, 64):
                    yield _record(target, start, steps, step, friction, width, states, sequential)


def plain(score: Callable[[Tensor], Tensor], x: Tensor, steps: int, step: float, friction: float | None) -> Tensor:
    """The shortest loop that can be written, all noise drawn beforehand.

    Args:
        score: The score.
        x: Starts, shape (S, D).
        steps: Number of steps.
        step: Step size.
        friction: Friction, or None.

    Returns:
        All states, shape (S, steps, D).
    """
    states = x.new_empty(steps, *x.shape)
    with torch.inference_mode():
        if friction is None:
            noise = torch.randn(states.shape) * math.sqrt(2 * step)
            for m in range(steps):
                x = x + step * score(x) + noise[m]
                states[m] = x
            return states.transpose(0, 1)
        one = kinetic_step(step, friction)
        first, second = torch.randn(2, *states.shape)
        pushes, kicks = one.u_shared * first + one.u_noise * second, one.v_noise * first
        v = torch.randn(x.shape)
        for m in range(steps):
            force = score(x)
            x, v = x + one.u_v * v + one.u_s * force + pushes[m], one.v_v * v + one.v_s * force + kicks[m]
            states[m] = x
        return states.transpose(0, 1)


def _record(
    target: Target,
    start: Tensor,
    steps: int,
    step: float,
    friction: float | None,
    width: int,
    states: Tensor,
    sequential: float,
) -> Record:
    chain = pd.langevin(
        target.score, start, steps, step, friction, window=pd.Sliding(width), tol=1e-2, scale=target.scale
    )
    half = steps // 2
    sizes = [float(pd.effective_size(found[:, -half:]).median()) for found in (states, chain.states)]
    dynamics = "overdamped" if friction is None else "underdamped"
    return Record(
        problem=target.name,
        method=f"{dynamics}, window {width}",
        sampler=dynamics,
        steps=steps,
        window=f"Sliding(width={width})",
        tol=1e-2,
        samples=len(start),
        rounds_mean=sum(chain.stats.sample_rounds) / len(start),
        rounds_max=chain.stats.rounds,
        evaluations=chain.stats.evaluations,
        seconds=chain.stats.seconds,
        sequential_seconds=sequential,
        engine_share=1 - chain.stats.model_seconds / chain.stats.seconds,
        extra={
            "step_size": step,
            "effective_per_second": sizes[1] / (chain.stats.seconds / 2),
            "effective_per_second_plain": sizes[0] / (sequential / 2),
            "estimated_error_worst": float(chain.error.max()),
        },
    )
