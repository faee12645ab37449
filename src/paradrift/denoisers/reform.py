"""One model in another form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from paradrift.denoisers.base import Denoiser, Wrapper, column, levels
from paradrift.errors import SpecError
from paradrift.forms import Form, convert


@dataclass(frozen=True)
class Reform(Wrapper):
    """The same model in another form: f' = p x + q f, with (p, q) from :func:`paradrift.forms.convert`.

    The pair is computed per row in float64 on the host, from the schedule at the times of the call, and cast once.

    Args:
        denoiser: A denoiser with a schedule.
        form: The form wanted.

    Raises:
        SpecError: if the denoiser has no schedule and another form; when called, if a conversion divides by zero.

    Cost: some tens of microseconds and two passes over the states.
    """

    denoiser: Denoiser
    form: Form

    def __post_init__(self) -> None:
        if self.denoiser.schedule is None and self.form is not self.denoiser.form:
            raise SpecError(
                f"expected a denoiser with a schedule to turn {self.denoiser.form.value} into {self.form.value}, "
                "found none: give the denoiser its schedule"
            )

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate and convert; see :meth:`Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Model times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            Outputs in the form wanted, shape (R, *shape).
        """
        output = self.denoiser(x, t, sample)
        if self.form is self.denoiser.form or self.schedule is None:
            return output
        p, q = convert(self.denoiser.form, self.form, *levels(self.schedule, t))
        scaled = output * column(q, x)
        return scaled + column(p, x) * x if np.any(p) else scaled
