"""Methods of single objects, replaced for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn


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

    def forward(self, module: nn.Module, answer: Callable[..., Any]) -> tuple[Callable[..., Any], bool]:
        """Let a network answer with something else than its forward.

        A network compiled in place (``module.compile()``) is called past its forward; that is switched off meanwhile.

        Args:
            module: The network.
            answer: Called with its arguments.

        Returns:
            What evaluates the network itself, and whether that is compiled code.
        """
        original, compiled = module.forward, getattr(module, "_compiled_call_impl", None)

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return answer(*args, **kwargs)

        self.put(module, "forward", forward)
        if compiled is None:
            return original, hasattr(module, "_orig_mod")
        self.put(module, "_compiled_call_impl", None)

        def evaluate(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            vars(module)["forward"] = original  # compiled code calls it
            try:
                return compiled(*args, **kwargs)
            finally:
                vars(module)["forward"] = forward

        return evaluate, True

    def put(self, owner: Any, method: str, replacement: Callable[..., Any] | None) -> None:  # noqa: ANN401
        """Replace one method.

        Args:
            owner: The object.
            method: Name of the method.
            replacement: What to call instead, without ``self``; None where that says that there is no such method.
        """
        before = vars(owner).get(method)

        def back() -> None:
            vars(owner).pop(method, None)
            if before is not None:
                vars(owner)[method] = before

        self.callback(back)
        vars(owner)[method] = replacement
