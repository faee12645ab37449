"""One process, one device: rows in chunks, smaller chunks when memory runs out, counted and timed at the call."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from paradrift.denoisers import Denoiser
from paradrift.errors import ParadriftError, SpecError
from paradrift.solvers.base import Request


class Executor(Protocol):
    """Evaluates requests."""

    def evaluate(self, request: Request) -> Tensor:
        """Outputs of all rows of a request, and the products of its tangents.

        Args:
            request: Rows to evaluate.

        Returns:
            Shape (R, *shape), in the order of the rows; (1 + K, R, *shape) with K tangents, outputs first.
        """
        ...


@dataclass(kw_only=True)
class Local:
    """Evaluates rows with one denoiser in this process.

    Products with tangents are forward-mode derivatives: the model must be written in torch operations of x. A row with
    a tangent carries two numbers for each of its own, so it counts as two rows, in the limit and in the books.

    Args:
        denoiser: The model.
        max_rows: Most rows in one call; None for no limit. Halved, for the rest of the solve, whenever a call runs out
            of memory. A single row with its tangent is always let through.
        calls: Calls of the denoiser so far.
        rows: Rows evaluated so far, a row with a tangent as two.
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
            Shape (R, *shape), or (1 + K, R, *shape) with K tangents.

        Raises:
            ParadriftError: if one row alone does not fit into memory.
        """
        tangent, weight = request.tangent, 1 if request.tangent is None else 2
        if tangent is not None and (tangent.shape[1:] != request.x.shape or not len(tangent)):
            raise SpecError(
                f"expected tangents of shape (K, {', '.join(map(str, request.x.shape))}) for these rows, K at least 1, "
                f"found {tuple(tangent.shape)}"
            )
        parts: list[Tensor] = []
        first, total = 0, request.t.shape[0] * (1 if tangent is None else len(tangent))
        while first < total:
            size = min(max(1, (self.max_rows or weight * total) // weight), total - first)
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
                self.max_rows = weight * max(1, size // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            first += size
        whole = parts[0] if len(parts) == 1 else torch.cat(parts, -request.x.ndim)
        if tangent is None:
            return whole
        outputs, products = whole.unflatten(1, tangent.shape[:2])
        return torch.cat([outputs[:1], products])

    def _call(self, request: Request, first: int, last: int) -> Tensor:
        """Some rows; with tangents, of the pairs counted through all rows for one tangent after the other."""
        x, t, sample = request.x, request.t, request.sample
        if request.tangent is not None:
            which = torch.arange(first, last, device=t.device) % len(t)
            x, t, sample = x[which], t[which], sample[which]
        elif last - first < t.shape[0]:
            x, t, sample = x[first:last], t[first:last], sample[first:last]
        begin = time.perf_counter()
        if request.tangent is None:
            outputs = _output(self.denoiser, x, t, sample)
        else:
            outputs = pushed(self.denoiser, x, t, sample, request.tangent.flatten(0, 1)[first:last])
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        self.seconds += time.perf_counter() - begin
        self.calls += 1
        self.rows += (last - first) * (1 if request.tangent is None else 2)
        return outputs


def pushed(denoiser: Denoiser, x: Tensor, t: Tensor, sample: Tensor, tangent: Tensor) -> Tensor:
    """Outputs and their derivatives in one direction each, by forward-mode differentiation.

    Args:
        denoiser: The model.
        x: States, shape (N, *shape).
        t: Model times, shape (N,).
        sample: Sample indices, shape (N,).
        tangent: A direction for each row, shape (N, *shape).

    Returns:
        Shape (2, N, *shape): outputs, and products of the derivative by x with the directions.

    Raises:
        SpecError: if the model has no forward-mode derivatives.
    """
    # Samplers run without a graph, in a mode that knows no derivatives: leave it, on ordinary tensors.
    with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no rule
        x, t, sample, tangent = x.clone(), t.clone(), sample.clone(), tangent.to(x, copy=True)
        try:
            # not torch.func: inside its transforms times could not be read on the host, where levels are looked up
            with forward_ad.dual_level():
                with warnings.catch_warnings():  # of torch about torch, the first time
                    warnings.simplefilter("ignore", DeprecationWarning)
                    dual = forward_ad.make_dual(x, tangent)
                outputs = _output(denoiser, dual, t, sample)
                output, product = forward_ad.unpack_dual(outputs)
        except (NotImplementedError, RuntimeError) as error:
            if _out_of_memory(error) or not _no_rule(error):
                raise
            reason = str(error).splitlines()[0]
            raise SpecError(
                f"expected a model with forward-mode derivatives, found none: {reason}: write it in torch operations "
                "of x, uncompiled, or choose a method without Jacobians"
            ) from error
        if product is None:  # zeros would be a wrong derivative, in silence
            raise SpecError(
                "expected a model with forward-mode derivatives, found an output cut off from its state: leave out "
                "detach, inference mode and numpy on the way, or choose a method without Jacobians"
            )
        return torch.stack([output, product])


def _output(denoiser: Denoiser, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
    """What the denoiser says, if it is what a denoiser says."""
    outputs = denoiser(x, t, sample)
    if not isinstance(outputs, Tensor):
        raise SpecError(f"expected the denoiser to return a tensor, found {type(outputs).__name__}")
    if outputs.shape != x.shape:
        raise SpecError(
            f"expected outputs of shape {tuple(x.shape)} from the denoiser, found {tuple(outputs.shape)}: rows in, "
            "rows out, one output for each state"
        )
    if not outputs.dtype.is_floating_point:
        raise SpecError(f"expected floating-point outputs from the denoiser, found {outputs.dtype}")
    return outputs


def _no_rule(error: RuntimeError) -> bool:
    words = str(error)
    return isinstance(error, NotImplementedError) or "forward AD" in words or "forward-mode" in words


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()
