r"""One call of a module, as it happened: what went in, what came out, and a surrogate for what would come out now.

The surrogate of a call is :math:`g(x) = f + s\,(x - x_{known})`, f the output at the arguments where the call was last
evaluated and x the argument of the output's shape; s is the secant of the last two evaluations, one for each entry of
the first dimension (samples, guidance halves).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers.keeping import Kept, copied

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

    def __hash__(self) -> int:
        """Hashed once: structures are long, and signatures are looked up at every call."""
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.module, self.structure, self.shapes))

    @property
    def epsilon(self) -> float:
        """Rounding of the coarsest number format among the states."""
        kinds = [shape[1] for shape in self.shapes if isinstance(shape, tuple) and len(shape[0]) >= 2]
        return max((torch.finfo(kind).eps for kind in kinds if kind.is_floating_point), default=0.0)

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
        rough: For each output, rms of what its slope did not explain between the last two evaluations, over how far
            the arguments had moved; shape (rows,), or None where that is not known.
        strayed: How far the arguments at which the call was settled are from where it was evaluated, in all.
        borrowed: Whether outputs are those of another call, because this one has not been evaluated.
        lost: How often in a row outputs were not finite at these arguments; once may be an accident of a batch.
        kept: The outputs to hand out, once the call is settled.
    """

    signature: Signature
    leaves: Leaves
    known: Leaves | None = None
    outputs: Leaves = field(default_factory=list)
    structure: Any = None
    slopes: list[Tensor | None] = field(default_factory=list)
    rough: list[Tensor | None] = field(default_factory=list)
    strayed: float = 0.0
    borrowed: bool = False
    lost: int = 0
    kept: Kept | None = None
    _measured: tuple[Leaves | None, Leaves | None, float] = (None, None, 0.0)

    def moved(self) -> float:
        """How far the arguments are from where the call was evaluated.

        Returns:
            Largest rms of a change over rms of the argument; 0 for equal bits, infinite before the first evaluation,
            and where that gave something that is not finite and nobody has looked again.
        """
        if self.known is None or self.lost == 1:
            return math.inf
        if self._measured[0] is not self.leaves or self._measured[1] is not self.known:
            changes = (_change(now, then) for now, then in zip(self.leaves, self.known, strict=True))
            self._measured = (self.leaves, self.known, max(changes, default=0.0))
        return self._measured[2]

    def take(self, outputs: Leaves, structure: Any, secant: bool) -> None:  # noqa: ANN401
        """Take in an evaluation at the current arguments.

        Args:
            outputs: Flattened outputs.
            structure: Their structure.
            secant: Whether to learn slopes.
        """
        before, then, moved = self.outputs, self.known, self.moved()
        fine = all(bool(v.isfinite().all()) for v in outputs if isinstance(v, Tensor))
        again = self.lost and then is not None and not any(map(_change, self.leaves, then))
        self.lost = 0 if fine else self.lost + 1 if again else 1
        if len(self.slopes) != len(outputs):
            self.slopes = [None] * len(outputs)
        if not self.strayed and then is not None and len(before) == len(outputs) and 0 < moved < math.inf:
            learned = [
                _learned(now, old, self.leaves, then, slope, secant)
                for now, old, slope in zip(outputs, before, self.slopes, strict=True)
            ]
            self.slopes = [slope for slope, _ in learned]
            self.rough = [None if left is None else left / moved for _, left in learned]
        self.known, self.outputs, self.structure = self.leaves, outputs, structure
        self.strayed, self.borrowed = 0.0, False

    def settle(self) -> Any:  # noqa: ANN401
        """Accept the surrogate at the current arguments as the answer, and remember what it may be off by.

        Returns:
            The answer, owned by the caller.
        """
        moved, answer = self.moved(), self.answer(self.leaves)
        if moved > 0:
            self.outputs, self.known = copied(pytree.tree_leaves(answer)), self.leaves
            self.strayed += moved
        return answer

    def debts(self, moved: float = 0.0) -> list[Tensor | None]:
        """What each output is off by.

        Args:
            moved: How far the arguments are from where the call was settled.

        Returns:
            Rms of each row, shape (rows,); infinite where nothing is known; None: nothing.
        """
        away = self.strayed + moved
        if away == 0:
            return [None] * len(self.outputs)
        rough = self.rough or [None] * len(self.outputs)
        return [_debt(output, each, away) for output, each in zip(self.outputs, rough, strict=True)]

    def forget(self) -> None:
        """Keep the outputs alone."""
        self.leaves, self.known = [], None

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
                value = value + (slope * (leaves[at] - self.known[at])).to(value.dtype)
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


def _learned(
    now: Any,  # noqa: ANN401
    old: Any,  # noqa: ANN401
    leaves: Leaves,
    then: Leaves,
    kept: Tensor | None,
    secant: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The secant of an output between two evaluations, and the rms of what it leaves unexplained in each row."""
    if not isinstance(now, Tensor) or not isinstance(old, Tensor) or old.shape != now.shape or now.ndim < 1:
        return None, None
    if not now.is_floating_point():
        return None, None
    dims = tuple(range(1, now.ndim))
    left, at = now.double() - old.double(), state_of(now, leaves) if secant else None
    if at is None:
        return None, left.square().mean(dims).sqrt() if dims else left.abs()
    dx = leaves[at].double() - then[at].double()
    slope = (dx * left).sum(dims, keepdim=True) / (dx * dx).sum(dims, keepdim=True)
    otherwise = torch.zeros_like(slope) if kept is None else kept.double()
    slope = torch.where(torch.isfinite(slope), slope, otherwise)
    return slope.to(torch.float32), (left - slope * dx).square().mean(dims).sqrt()


def _debt(output: Any, rough: Tensor | None, away: float) -> Tensor | None:  # noqa: ANN401
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if rough is None:
        return output.new_full(output.shape[:1] if output.ndim else (1,), math.inf, dtype=torch.float64)
    return rough * away


def _change(now: Any, then: Any) -> float:  # noqa: ANN401
    if now is then:
        return 0.0
    if not isinstance(now, Tensor):
        try:
            return 0.0 if bool(now == then) else float("inf")
        except (RuntimeError, TypeError, ValueError):
            return float("inf")
    if not now.is_floating_point() or now.ndim < 2:
        return 0.0 if torch.equal(now, then) else math.inf  # a time, a label, a mask: never nearly the same
    gap, size = _norms(now - then), _norms(then)
    worst = float((gap / size.clamp(min=1e-12)).max())
    if worst == worst:
        return worst
    lost = now.isnan()
    same = torch.equal(lost, then.isnan()) and torch.equal(now.nan_to_num(), then.nan_to_num())
    return 0.0 if same else math.inf


def _norms(value: Tensor) -> Tensor:
    """Of each entry of the first dimension."""
    wide = value if value.dtype == torch.float64 else value.float()
    return torch.linalg.vector_norm(wide.flatten(1), dim=1)
