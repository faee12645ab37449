"""Methods of single objects, replaced for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn


def own_forward(module: nn.Module) -> tuple[Callable[..., Any], bool]:
    """What evaluates a network itself, whatever stands in for its forward meanwhile.

    Args:
        module: The network, not patched.

    Returns:
        The function, and whether it is compiled code.
    """
    original, compiled = module.forward, getattr(module, "_compiled_call_impl", None)
    if compiled is None:
        return original, hasattr(module, "_orig_mod")

    def evaluate(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with Patches() as patches:
            patches.put(module, "forward", original)  # compiled code calls it
            return compiled(*args, **kwargs)

    return evaluate, True


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

    def forward(self, module: nn.Module, answer: Callable[..., Any]) -> None:
        """Let a network answer with something else than its forward.

        Args:
            module: The network.
            answer: Called with its arguments.
        """

        @functools.wraps(module.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return answer(*args, **kwargs)

        self.put(module, "forward", forward)
        if getattr(module, "_compiled_call_impl", None) is not None:  # compiled in place, it is called past its forward
            self.put(module, "_compiled_call_impl", None)

    def put(self, owner: Any, method: str, replacement: Callable[..., Any] | None) -> None:  # noqa: ANN401
        """Replace one method.

        Args:
            owner: The object.
            method: Name of the method.
            replacement: What to call instead, without ``self``; None where that says that there is no such method.
        """
        before = vars(owner).get(method)

        def back() -> None:
            if vars(owner).get(method) is not replacement:  # somebody has put another in its place
                return
            vars(owner).pop(method, None)
            if before is not None:
                vars(owner)[method] = before

        self.callback(back)
        vars(owner)[method] = replacement
