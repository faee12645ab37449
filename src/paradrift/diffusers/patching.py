"""Methods of single objects, replaced for a while."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any


class Patches(ExitStack):
    """Replaces methods of objects (not of their classes), and takes the replacements back at its end.

    Example:
        >>> class Bell:
        ...     def ring(self):
        ...         return "ding"
        >>> bell = Bell()
        >>> with Patches() as patches:
        ...     patches.put(bell, "ring", lambda: "dong")
        ...     bell.ring()
        'dong'
        >>> bell.ring()
        'ding'
    """

    def put(self, owner: Any, method: str, replacement: Callable[..., Any]) -> None:  # noqa: ANN401
        """Replace one method.

        Args:
            owner: The object.
            method: Name of the method.
            replacement: What to call instead; no ``self`` is passed.
        """
        before = vars(owner).get(method)

        def back() -> None:
            vars(owner).pop(method, None)
            if before is not None:
                vars(owner)[method] = before

        self.callback(back)
        vars(owner)[method] = replacement
