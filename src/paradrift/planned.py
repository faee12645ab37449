"""What a plan is to the front door."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypedDict

from paradrift.denoisers import Denoiser
from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.samplers import Sampler
from paradrift.schedules import Schedule
from paradrift.solvers.solver import Solver


class Arguments(TypedDict):
    """What a plan stands for.

    Args:
        sampler: The sequential method.
        times: The grid.
        solver: The parallel method.
    """

    sampler: Sampler
    times: Array
    solver: Solver


class Planned(Protocol):
    """A plan of a run, such as :class:`paradrift.Plan`."""

    @property
    def dim(self) -> int:
        """Elements of one sample."""
        ...

    def arguments(self, schedule: Schedule | None = None) -> Arguments:
        """The run for a model.

        Args:
            schedule: The model's noise schedule.

        Returns:
            Sampler, times and solver.
        """
        ...


def planned(plan: Planned, denoiser: Denoiser, shape: tuple[int, ...], others: Sequence[object | None]) -> Arguments:
    """What a plan stands for, with this model.

    Args:
        plan: The plan.
        denoiser: The model.
        shape: Shape of the batch.
        others: What else was said of sampler, steps, times and solver.

    Returns:
        Sampler, times and solver.

    Raises:
        SpecError: if something was said twice, or the plan is for samples of another size.
    """
    if any(other is not None for other in others):
        raise SpecError("expected no sampler=, steps=, times= or solver= beside plan=, which has its own: leave out")
    if math.prod(shape[1:]) != plan.dim:
        raise SpecError(f"expected samples of {plan.dim} elements for this plan, found {math.prod(shape[1:])}")
    return plan.arguments(denoiser.schedule)
