"""A plain function of rows as a model: right sides, forces, scores of one fixed density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.forms import Form
from paradrift.schedules import Schedule


@dataclass(frozen=True, kw_only=True, eq=False)
class Value:
    """A model without a noise schedule, for tables in value form.

    Args:
        function: Rows (R, *shape), times (R,) and samples (R,) in, values (R, *shape) out; called without a graph.
        variance: Square of the unit of tolerances, per element; None for the state's own mean square.
    """

    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    variance: float | None = None

    @property
    def form(self) -> Form:
        """A bare function value."""
        return Form.VALUE

    @property
    def schedule(self) -> Schedule | None:
        """None: there is no noise."""
        return None

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate; see :meth:`paradrift.denoisers.Denoiser.__call__`.

        Args:
            x: States, shape (R, *shape).
            t: Times, shape (R,).
            sample: Index of the sample of each row, shape (R,).

        Returns:
            Shape (R, *shape).
        """
        # Functions that differentiate inside themselves (scores, Hamiltonians) need ordinary tensors.
        with torch.inference_mode(False), torch.no_grad():
            values = self.function(x.clone(), t.clone(), sample.clone())
            return values.detach() if values.requires_grad else values  # to detach also cuts forward derivatives
