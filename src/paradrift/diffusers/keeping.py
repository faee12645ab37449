"""Values that a program gets again and again, and may change in place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass
class Kept:
    """A value handed out again and again, as good as new each time.

    The copy handed out is kept as long as nobody changed it in place (torch counts that), and made anew otherwise.

    Args:
        value: The value, never handed out itself.
        copy: What is handed out.
        versions: How often each of its tensors had been changed when it was made; None where torch does not count.
    """

    value: Any
    copy: Any = None
    versions: list[tuple[Tensor, int | None]] | None = None

    def hand(self) -> Any:  # noqa: ANN401
        """The value.

        Returns:
            Tensors that nobody has changed, in containers that nobody has changed.
        """
        if self.versions is None or any(then is None or version(tensor) != then for tensor, then in self.versions):
            leaves, structure = pytree.tree_flatten(self.value)
            leaves = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            self.copy = pytree.tree_unflatten(leaves, structure)
            self.versions = [(leaf, version(leaf)) for leaf in leaves if isinstance(leaf, Tensor)]
        elif not isinstance(self.copy, Tensor) and not dataclasses.is_dataclass(self.copy):
            # Programs pop from dictionaries and append to lists; torch counts changes of tensors only.
            self.copy = self._again()
        return self.copy

    def _again(self) -> Any:  # noqa: ANN401
        """The tensors handed out last time, in new containers."""
        leaves, structure = pytree.tree_flatten(self.value)
        tensors = iter(tensor for tensor, _ in self.versions or ())
        return pytree.tree_unflatten([next(tensors) if isinstance(v, Tensor) else v for v in leaves], structure)


def copied(value: Any) -> Any:  # noqa: ANN401
    """A copy of every tensor in a structure.

    Args:
        value: Any structure of tensors.

    Returns:
        The same with copies.
    """
    return pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


def version(tensor: Tensor) -> int | None:
    """How often a tensor was changed in place.

    Args:
        tensor: The tensor.

    Returns:
        torch's count; None for tensors made in inference mode, which have none.
    """
    return None if tensor.is_inference() else tensor._version
