"""The contract of a denoiser, and what its wrappers share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from paradrift.forms import Array, Form
from paradrift.schedules import Schedule


@runtime_checkable
class Denoiser(Protocol):
    """A model with its form and its noise schedule."""

    @property
    def form(self) -> Form:
        """What the outputs mean."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule that the model was trained with, None for a bare function of (x, t)."""
        ...

    @property
    def variance(self) -> float | None:
        """Data variance per element, v0, the unit of tolerances; None when unknown."""
        ...

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate the model.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,), floating point; float64 where the schedule is to be exact.
            sample: Index of the sample that each row belongs to, shape (R,), int64: selects the conditioning.

        Returns:
            Outputs, shape (R, *shape), in the form that the denoiser declares.
        """
        ...


def modules(denoiser: Denoiser) -> tuple[nn.Module, ...]:
    """The torch modules behind a denoiser, whose mode and gradients the caller may switch.

    Args:
        denoiser: Any denoiser.

    Returns:
        Its ``modules``, or nothing for one that names none.
    """
    return tuple(getattr(denoiser, "modules", ()))


def levels(schedule: Schedule, t: Tensor) -> tuple[Array, Array]:
    """Signal and noise level of each row, on the host.

    Args:
        schedule: The noise schedule.
        t: Times, shape (R,); on a device, this waits for it.

    Returns:
        alpha and sigma, shape (R,), float64.
    """
    times = t.detach().to("cpu", torch.float64).numpy()
    return np.asarray(schedule.alpha(times), np.float64), np.asarray(schedule.sigma(times), np.float64)


def column(values: Array, like: Tensor) -> Tensor:
    """One number per row, cast and shaped to multiply a batch of states.

    Args:
        values: Shape (R,), float64, on the host.
        like: States, shape (R, *shape).

    Returns:
        Shape (R, 1, ..., 1), in the dtype and on the device of the states.
    """
    cast = torch.from_numpy(np.array(values, np.float64)).to(like.device, like.dtype)
    return cast.reshape(-1, *(1,) * (like.ndim - 1))


class Wrapper:
    """What every wrapper passes on unchanged."""

    denoiser: Denoiser

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    @property
    def variance(self) -> float | None:
        """The variance of the denoiser."""
        return self.denoiser.variance

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules of the denoiser."""
        return modules(self.denoiser)
