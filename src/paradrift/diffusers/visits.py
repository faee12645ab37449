"""What must happen once, with settled values: text encoders, decoders, a user's callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from paradrift.diffusers.keeping import Kept, copied, version
from paradrift.diffusers.snapshot import Randomness


@dataclass
class Visits:
    """Results of what has happened, in the order of the program; later executions are answered from here.

    Args:
        position: Visits of this execution so far.
    """

    position: int = 0
    _results: list[_Result] = field(default_factory=list)

    @property
    def again(self) -> bool:
        """Whether the next visit has happened in an earlier execution."""
        return self.position < len(self._results)

    def recall(self, owner: Any, sees: Any) -> Any:  # noqa: ANN401
        """The result of the next visit, which has happened before.

        Args:
            owner: An object whose attributes it changed, or None.
            sees: What it was given.

        Returns:
            What it returned then; random states, attributes and tensors are as it left them.
        """
        then = self._results[self.position]
        self.position += 1
        then.random.put_back()
        if owner is not None:
            owner.__dict__.update(then.attributes)
        for tensor, value in zip(_tensors(sees), then.written, strict=False):
            if value is not None:
                tensor.copy_(value)
        return then.result.hand()

    def make(self, call: Callable[[], Any], owner: Any, sees: Any, randomness: Callable[[], Randomness]) -> Any:  # noqa: ANN401
        """Make the next visit.

        Args:
            call: What to do.
            owner: An object whose attributes it may change, or None.
            sees: What it is given; it may change tensors in place.
            randomness: Takes the random states.

        Returns:
            What it returned.
        """
        before = {} if owner is None else dict(vars(owner))
        tensors = _tensors(sees) if owner is not None else []
        versions = [version(tensor) for tensor in tensors]
        result = call()
        self._results.append(
            _Result(
                result=Kept(copied(result)),
                random=randomness(),
                attributes={}
                if owner is None
                else {k: v for k, v in vars(owner).items() if before.get(k, self) is not v},
                written=[
                    None if then is not None and version(tensor) == then else tensor.clone()
                    for tensor, then in zip(tensors, versions, strict=True)
                ],
            )
        )
        self.position += 1
        return result


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What a visit returned and left behind."""

    result: Kept
    random: Randomness
    attributes: dict[str, Any]
    written: list[Tensor | None]  # of the tensors that it was given: those that it changed in place


def _tensors(value: Any) -> list[Tensor]:  # noqa: ANN401
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
