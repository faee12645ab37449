"""One process, one device: rows in chunks, smaller chunks when memory runs out, counted and timed at the call."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paradrift.denoisers import Denoiser
from paradrift.errors import ParadriftError, SpecError
from paradrift.solvers.base import Request


class Executor(Protocol):
    """Evaluates requests."""

    def evaluate(self, request: Request) -> Tensor:
        """Outputs of all rows of a request.

        Args:
            request: Rows to evaluate.

        Returns:
            Shape (R, *shape), in the order of the rows.
        """
        ...


@dataclass(kw_only=True)
class Local:
    """Evaluates rows with one denoiser in this process.

    Args:
        denoiser: The model.
        max_rows: Most rows in one call; None for no limit. Halved, for the rest of the solve, whenever a call runs out
            of memory.
        calls: Calls of the denoiser so far.
        rows: Rows evaluated so far.
        seconds: Wall time inside the denoiser so far.
    """

    denoiser: Denoiser
    max_rows: int | None = None
    calls: int = 0
    rows: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.max_rows is not None and self.max_rows < 1:
            raise SpecError(f"expected max_rows of at least 1, found {self.max_rows}")

    def evaluate(self, request: Request) -> Tensor:
        """Outputs of all rows of a request, in as many calls as the row limit asks for.

        Args:
            request: Rows to evaluate.

        Returns:
            Shape (R, *shape).

        Raises:
            ParadriftError: if one row alone does not fit into memory.
        """
        parts: list[Tensor] = []
        first, total = 0, len(request.t)
        while first < total:
            size = min(self.max_rows or total, total - first)
            try:
                parts.append(self._call(request, first, first + size))
            except RuntimeError as error:
                if not _out_of_memory(error):
                    raise
                if size == 1:
                    message = (
                        "expected memory for at least one row of the model, found none: use a smaller model or dtype"
                    )
                    raise ParadriftError(message) from error
                self.max_rows = max(1, size // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            first += size
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _call(self, request: Request, first: int, last: int) -> Tensor:
        x, t, sample = request.x[first:last], request.t[first:last], request.sample[first:last]
        begin = time.perf_counter()
        outputs = self.denoiser(x, t, sample)
        if not isinstance(outputs, Tensor):
            raise SpecError(f"expected the denoiser to return a tensor, found {type(outputs).__name__}")
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        self.seconds += time.perf_counter() - begin
        self.calls += 1
        self.rows += last - first
        if outputs.shape != x.shape:
            raise SpecError(
                f"expected outputs of shape {tuple(x.shape)} from the denoiser, found {tuple(outputs.shape)}: rows in, "
                "rows out, one output for each state"
            )
        if not outputs.dtype.is_floating_point:
            raise SpecError(f"expected floating-point outputs from the denoiser, found {outputs.dtype}")
        return outputs


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()
