"""Several models in one solve: each request goes to the model that it names."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.executors.local import Local
from paradrift.solvers.base import Request


@dataclass(kw_only=True)
class Several:
    """The solve's own model, and others beside it, whose rows are counted and timed together.

    What others answer with is a matter between them and the guess that asks: it may have several outputs for each row.

    Args:
        first: Where rows of model 0 are evaluated.
        others: Models 1, 2, ..., called with rows, times and samples.
        max_rows: Most rows in one call of another model; None for no limit.
        asked: Rows that others have evaluated so far.
        waited: Wall time inside them so far.
    """

    first: Local
    others: Sequence[Callable[[Tensor, Tensor, Tensor], Tensor]] = ()
    max_rows: int | None = None
    asked: int = 0
    waited: float = 0.0

    @property
    def rows(self) -> int:
        """Rows evaluated so far, by all of them."""
        return self.first.rows + self.asked

    @property
    def seconds(self) -> float:
        """Wall time inside the models so far."""
        return self.first.seconds + self.waited

    def evaluate(self, request: Request) -> Tensor:
        """Outputs of all rows of a request.

        Args:
            request: Rows to evaluate.

        Returns:
            What the model that it names says: shape (..., R, *shape).
        """
        if request.model == 0:
            return self.first.evaluate(request)
        begin = time.perf_counter()
        size = self.max_rows or len(request.t)
        parts = [
            self.others[request.model - 1](x, t, sample)
            for x, t, sample in zip(
                request.x.split(size), request.t.split(size), request.sample.split(size), strict=True
            )
        ]
        if request.x.device.type == "cuda":
            torch.cuda.synchronize(request.x.device)
        self.waited += time.perf_counter() - begin
        self.asked += len(request.t)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -request.x.ndim)
