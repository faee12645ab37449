"""What a comparison runs on: a model with the samplers, step counts and precision that it is asked about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import paradrift as pd
from paradrift import grids
from paradrift.bench.problems import Problem
from paradrift.forms import Array


def usual(model: pd.Denoiser, steps: int) -> Array:
    """The usual grid of a model's schedule.

    Args:
        model: A model with a schedule.
        steps: Number of steps.

    Returns:
        Shape (steps + 1,).
    """
    assert model.schedule is not None
    return grids.default(model.schedule, steps)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the problem set; networks are trained, or read, when :attr:`denoiser` is first called.

    Args:
        name: Word for records and legends.
        denoiser: Makes the model for a number of samples.
        shape: Shape of one sample.
        ode: The deterministic sampler of its comparisons.
        sde: The one with noise.
        classes: Class or mode of each sample, shape (S, *shape) to (S,) int64, so that samples that end elsewhere than
            the sequential sampler's can be counted; None where there is none.
        grid: The grid of a number of steps.
        dtype: Precision of the states.
    """

    name: str
    denoiser: Callable[[int], pd.Denoiser]
    shape: tuple[int, ...]
    ode: pd.Sampler
    sde: pd.Sampler
    classes: Callable[[Tensor], Tensor] | None = None
    grid: Callable[[pd.Denoiser, int], Array] = usual
    dtype: torch.dtype = torch.float32

    def problem(self, sampler: pd.Sampler, steps: int) -> Problem:
        """One problem of the set.

        Args:
            sampler: The sequential method.
            steps: Number of steps.

        Returns:
            The problem, named after model, sampler and steps.
        """
        return Problem(
            name=f"{self.name} {type(sampler).__name__} {steps}",
            denoiser=self.denoiser,
            shape=self.shape,
            sampler=sampler,
            times=self.grid(self.denoiser(1), steps),
            dtype=self.dtype,
        )
