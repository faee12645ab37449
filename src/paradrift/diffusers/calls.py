r"""One call of a module, as it happened: what went in, what came out, and a surrogate for what would come out now.

The surrogate of a call is :math:`g(x) = f + s\,(x - x_{known})`, f the output at the arguments where the call was last
evaluated and x the argument of the output's shape; s is the secant of the last two evaluations, one for each entry of
the first dimension (samples, guidance halves).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers.keeping import Kept

Leaves = list[Any]


@dataclass(frozen=True)
class Signature:
    """What two calls must share to stand in for each other or in one batch.

    Args:
        module: Name of the module.
        structure: Structure of its arguments.
        shapes: Shape and dtype of each tensor, the type of every other argument.
    """

    module: str
    structure: Any
    shapes: tuple[Any, ...]

    def alike(self, other: Signature) -> bool:
        """Whether a call of another network has the same arguments.

        Args:
            other: The other call's.

        Returns:
            Whether the two differ in the network alone.
        """
        return self.structure == other.structure and self.shapes == other.shapes


def signature(module: str, leaves: Leaves, structure: Any) -> Signature:  # noqa: ANN401
    """The signature of a call.

    Args:
        module: Name of the module.
        leaves: Its flattened arguments.
        structure: Their structure.

    Returns:
        The signature.
    """
    shapes = tuple((tuple(v.shape), v.dtype, v.device) if isinstance(v, Tensor) else type(v) for v in leaves)
    return Signature(module, structure, shapes)


@dataclass(kw_only=True)
class Cell:
    """One call of the program, over all its executions.

    Args:
        signature: What kind of call it is.
        leaves: Arguments in the current execution.
        known: Arguments at the last evaluation, None before the first.
        outputs: Flattened outputs there.
        structure: Structure of the outputs.
        slopes: Secant of each output, shape (rows, 1, ...), or None.
        kept: The outputs to hand out, once the call is settled.
    """

    signature: Signature
    leaves: Leaves
    known: Leaves | None = None
    outputs: Leaves = field(default_factory=list)
    structure: Any = None
    slopes: list[Tensor | None] = field(default_factory=list)
    kept: Kept | None = None

    def moved(self) -> float:
        """How far the arguments are from where the call was evaluated.

        Returns:
            Largest rms of a change over rms of the argument; 0 for equal bits, infinite before the first evaluation.
        """
        if self.known is None:
            return float("inf")
        return max((_change(now, then) for now, then in zip(self.leaves, self.known, strict=True)), default=0.0)

    def take(self, outputs: Leaves, structure: Any, secant: bool) -> None:  # noqa: ANN401
        """Take in an evaluation at the current arguments.

        Args:
            outputs: Flattened outputs.
            structure: Their structure.
            secant: Whether to learn slopes.
        """
        before, then = self.outputs, self.known
        if secant and then is not None and len(before) == len(outputs):
            self.slopes = [
                _slope(now, old, self.leaves, then, kept)
                for now, old, kept in zip(outputs, before, self.slopes or [None] * len(outputs), strict=True)
            ]
        elif len(self.slopes) != len(outputs):
            self.slopes = [None] * len(outputs)
        self.known, self.outputs, self.structure = self.leaves, outputs, structure

    def forget(self) -> None:
        """Keep the outputs alone."""
        self.leaves, self.known, self.slopes = [], None, [None] * len(self.outputs)

    def settled(self) -> Kept:
        """The outputs where the call was last evaluated, to be handed out from now on.

        Returns:
            The outputs in their structure.
        """
        if self.kept is None:
            self.kept = Kept(pytree.tree_unflatten(self.outputs, self.structure))
        return self.kept

    def answer(self, leaves: Leaves) -> Any:  # noqa: ANN401
        """The surrogate at some arguments.

        Args:
            leaves: Flattened arguments of the same signature.

        Returns:
            Outputs in their structure, owned by the caller.
        """
        found: Leaves = []
        for output, slope in zip(self.outputs, self.slopes, strict=True):
            value = output.clone() if isinstance(output, Tensor) else output
            at = None if slope is None or self.known is None else state_of(output, leaves)
            if at is not None and slope is not None and self.known is not None and leaves[at] is not self.known[at]:
                away = leaves[at] - self.known[at]
                value = value + (slope * away).to(value.dtype) if bool(away.any()) else value
            found.append(value)
        return pytree.tree_unflatten(found, self.structure)


def state_of(output: Any, leaves: Leaves) -> int | None:  # noqa: ANN401
    """Which argument is the state that an output moves with: the first of its shape.

    Args:
        output: One output.
        leaves: Flattened arguments.

    Returns:
        Its index, or None.
    """
    if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
        return None
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.shape == output.shape:
            return index
    return None


def _slope(now: Any, old: Any, leaves: Leaves, then: Leaves, kept: Tensor | None) -> Tensor | None:  # noqa: ANN401
    at = state_of(now, leaves)
    if at is None or not isinstance(old, Tensor) or old.shape != now.shape:
        return None
    dims = tuple(range(1, now.ndim))
    dx, df = (leaves[at] - then[at]).double(), (now - old).double()
    secant = (dx * df).sum(dims, keepdim=True) / (dx * dx).sum(dims, keepdim=True)
    otherwise = torch.zeros_like(secant) if kept is None else kept.double()
    return torch.where(torch.isfinite(secant), secant, otherwise).to(torch.float32)


def _change(now: Any, then: Any) -> float:  # noqa: ANN401
    if now is then:
        return 0.0
    if not isinstance(now, Tensor):
        try:
            return 0.0 if bool(now == then) else float("inf")
        except (RuntimeError, TypeError, ValueError):
            return float("inf")
    if torch.equal(now, then):
        return 0.0
    if not now.is_floating_point() or now.ndim < 2:
        return float("inf")  # a time, a label, a mask: never nearly the same
    lost = now.isnan()
    if bool(lost.any()) and torch.equal(lost, then.isnan()) and torch.equal(now.nan_to_num(), then.nan_to_num()):
        return 0.0
    dims = tuple(range(1, now.ndim))
    gap = (now.double() - then.double()).square().mean(dims).sqrt()
    size = then.double().square().mean(dims).sqrt()
    worst = float((gap / size.clamp(min=1e-12)).max())
    return worst if worst == worst else float("inf")
