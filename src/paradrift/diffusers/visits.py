"""What must happen once, with settled values: text encoders, decoders, a user's callbacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paradrift.diffusers.keeping import Kept, copied
from paradrift.diffusers.snapshot import Randomness


@dataclass
class Visits:
    """Results of what has happened, in the order of the program; later executions are answered from here.

    Args:
        position: Visits of this execution so far.
    """

    position: int = 0
    _results: list[tuple[Kept, Randomness, dict[str, Any]]] = field(default_factory=list)

    @property
    def again(self) -> bool:
        """Whether the next visit has happened in an earlier execution."""
        return self.position < len(self._results)

    def recall(self, owner: Any) -> Any:  # noqa: ANN401
        """The result of the next visit, which has happened before.

        Args:
            owner: An object whose attributes it changed, or None.

        Returns:
            What it returned then; random states and attributes are as it left them.
        """
        result, random, changed = self._results[self.position]
        self.position += 1
        random.put_back()
        if owner is not None:
            owner.__dict__.update(changed)
        return result.hand()

    def make(self, call: Callable[[], Any], owner: Any, randomness: Callable[[], Randomness]) -> Any:  # noqa: ANN401
        """Make the next visit.

        Args:
            call: What to do.
            owner: An object whose attributes it may change, or None.
            randomness: Takes the random states.

        Returns:
            What it returned.
        """
        before = {} if owner is None else dict(vars(owner))
        result = call()
        changed = {} if owner is None else {k: v for k, v in vars(owner).items() if before.get(k, self) is not v}
        self._results.append((Kept(copied(result)), randomness(), changed))
        self.position += 1
        return result
