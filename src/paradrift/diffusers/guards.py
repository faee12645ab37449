"""What must not happen to the networks of a replayed program: step caches, and anything set on them while it runs.

A replayed call may be evaluated later, and beside others. A hook, a patched submodule or a foreign attention processor
that the program sets for one call would then see a batch of many, or nothing at all. Such things are found by comparing
the networks with what they were before the program ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import nn

from paradrift.errors import Refused

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL = ("_global_forward_hooks", "_global_forward_pre_hooks")
_CACHES = (  # beginnings of the names under which diffusers registers hooks that carry outputs from step to step
    "faster_cache",
    "fbc_",
    "mag_cache",
    "pyramid_attention_broadcast",
    "sea_cache",
    "taylorseer",
    "text_kv_cache",
)
_PLACES = (  # of hooks that move or cast weights and inputs, call by call: they may come and go
    "cp_",
    "group_offloading",
    "layer_execution_tracker",
    "layerwise_casting",
    "lazy_prefetch",
    "peft_",
)
_TORCH = frozenset(vars(nn.Module())) - {"training"}  # attributes that every module has
_REMEDY = "what it sees or changes would be that of a batch; run the program plainly, or without what sets it"


@dataclass(frozen=True)
class Guards:
    """The networks as they were, for what would act on a batch if it were set on them now.

    Torch's hooks and diffusers' hooks, methods patched on submodules and attention processors are compared; weights,
    and hooks that only move or cast them, are not. The forward of a network itself is the replay's to patch.

    Args:
        names: Name of each part of the networks, themselves included.
        attributes: The ``__dict__`` of each.
        outermost: Whether a part is one of the networks.
        bare: All tables of torch's hooks that were empty.
        hooked: Those that were not, each with a copy.
        forwards: Each part's own patched forward, None for its class's; what was accepted since is written here.
        casts: Names of the hooks of diffusers on each part.
        owners: The parts with an attention processor, by their number.
        processors: These processors.
    """

    names: tuple[str, ...]
    attributes: tuple[dict[str, Any], ...]
    outermost: tuple[bool, ...]
    bare: tuple[dict[int, Any], ...]
    hooked: tuple[tuple[dict[int, Any], dict[int, Any]], ...]
    forwards: list[Any]
    casts: tuple[frozenset[str], ...]
    owners: tuple[tuple[int, nn.Module], ...]
    processors: list[Any]

    @staticmethod
    def take(modules: Mapping[str, nn.Module]) -> Guards:
        """The networks as they are.

        Args:
            modules: The networks, by name.

        Returns:
            What to compare them with while the program runs.
        """
        parts = list(_parts(modules))
        attributes = tuple(vars(part) for _, part in parts)
        tables = [kept[kind] for kept in attributes for kind in _HOOKS] + _global_tables()
        owners = tuple((number, part) for number, (_, part) in enumerate(parts) if _processor(part) is not None)
        roots = {id(module) for module in modules.values()}
        return Guards(
            names=tuple(name for name, _ in parts),
            attributes=attributes,
            outermost=tuple(id(part) in roots for _, part in parts),
            bare=tuple(table for table in tables if not table),
            hooked=tuple((table, dict(table)) for table in tables if table),
            forwards=[kept.get("forward") for kept in attributes],
            casts=tuple(frozenset(_registered(kept)) for kept in attributes),
            owners=owners,
            processors=[_processor(part) for _, part in owners],
        )

    def check(self) -> None:
        """Compare the networks with what they were: some tens of microseconds for a thousand parts.

        Raises:
            Refused: if something was set on them that would act on a batch.
        """
        if any(self.bare) or any(table.keys() != kept.keys() for table, kept in self.hooked):
            raise Refused(
                f"expected no hooks to be set on the networks while the program runs, found {self._hook()}: {_REMEDY}"
            )
        forwards = list(map(dict.get, self.attributes, repeat("forward")))
        if forwards != self.forwards:
            self._check_forwards(forwards)
        processors = [_processor(part) for _, part in self.owners]
        if processors != self.processors:
            self._check_processors(processors)

    def put_back(self) -> None:
        """Take off what was set since: a program that is cut short leaves it behind, and may not run again then."""
        for table in self.bare:
            table.clear()
        for table, kept in self.hooked:
            table.clear()
            table.update(kept)
        forwards = [kept.get("forward") for kept in self.attributes]
        for number, _, hooks, acts in self._changes(forwards):
            kept, then = self.attributes[number], self.forwards[number]
            for hook in hooks & set(_registered(kept)):
                kept["_diffusers_hook"].remove_hook(hook, recurse=False)
            if acts and not self.outermost[number]:
                kept.pop("forward", None)
                kept.update({} if then is None else {"forward": then})

    def _hook(self) -> str:
        """Where a hook of torch came or went."""
        changed = {id(table) for table in self.bare if table}
        changed |= {id(table) for table, kept in self.hooked if table.keys() != kept.keys()}
        for name, kept in zip(self.names, self.attributes, strict=True):
            for kind in _HOOKS:
                if id(kept[kind]) in changed:
                    return f"a change of {kind.lstrip('_').replace('_', ' ')} on {name}"
        return "a global one of torch.nn"

    def _changes(self, forwards: list[Any]) -> Iterator[tuple[int, Any, frozenset[str], bool]]:
        """Each part with another forward than before, the hooks that came or went there, and whether it acts."""
        for number, (now, then) in enumerate(zip(forwards, self.forwards, strict=True)):
            if now is then or now == then:
                continue
            kept = self.attributes[number]
            hooks = self.casts[number] ^ set(_registered(kept))
            # Hooks patch forward too: those that offload are taken off and put on again by pipelines.
            harmless = bool(hooks) or self.outermost[number] or "_hf_hook" in kept
            acting = frozenset(hook for hook in hooks if not hook.startswith(_PLACES))
            yield number, now, acting, bool(acting) or not harmless

    def _check_forwards(self, forwards: list[Any]) -> None:
        for number, now, hooks, acts in self._changes(forwards):
            if not acts:
                self.forwards[number] = now
            elif hooks:
                raise Refused(
                    f"expected no hooks to be set on the networks while the program runs, found a change of "
                    f"{min(hooks)!r} of diffusers on {self.names[number]}: {_REMEDY}"
                )
            else:
                raise Refused(
                    f"expected the parts of the networks to keep their forward while the program runs, found another "
                    f"on {self.names[number]}: {_REMEDY}"
                )

    def _check_processors(self, processors: list[Any]) -> None:
        usual = {id(processor) for processor in self.processors}
        for (number, _), processor in zip(self.owners, processors, strict=True):
            kind = type(processor)
            if id(processor) in usual or processor is None or kind.__module__.startswith("diffusers.models."):
                continue
            raise Refused(
                f"expected attention processors of diffusers.models while the program runs, found {kind.__name__} of "
                f"{kind.__module__} on {self.names[number]}: {_REMEDY}"
            )


def refuse_caches(modules: Mapping[str, nn.Module]) -> None:
    """Refuse networks whose output depends on the steps before, because parts of it are kept from one to the next.

    Args:
        modules: The networks, by name.

    Raises:
        Refused: if a step cache is active on one of them.
    """
    for name, module in modules.items():
        if getattr(module, "is_cache_enabled", False):
            kind = type(getattr(module, "_cache_config", None)).__name__
            which = f", which takes off {kind}" if kind.endswith("Config") else ""
            raise Refused(f"expected {name} without a step cache, found one: call disable_cache(){which}")
    for name, part in _parts(modules):
        for hook, kept in _registered(vars(part)).items():
            if hook.startswith(_CACHES) or getattr(kept, "_is_stateful", False):
                raise Refused(
                    f"expected {name} without a step cache, found one: call disable_cache(), or, if it was applied by "
                    f"hand, take off the hook {hook!r} of its HookRegistry"
                )


def settings(modules: Mapping[str, nn.Module]) -> list[Any]:
    """What the answers of networks depend on beside their arguments, as far as programs change it between calls.

    A user's callback may set the scale of an adapter, or weights: what was evaluated ahead of it is then worth nothing.

    Args:
        modules: The networks, by name.

    Returns:
        Numbers, words and containers of them on every part and attention processor, and the versions of all tensors;
        equal as long as nothing was changed.
    """
    found: list[Any] = []
    for _, part in _parts(modules):
        kept = vars(part)
        for tensor in (*kept["_parameters"].values(), *kept["_buffers"].values()):
            found.append(_plain(tensor))
        found += map(id, kept["_modules"].values())
        found += [_plain(value) for key, value in kept.items() if key not in _TORCH]
        processor = kept.get("processor")
        if hasattr(processor, "__dict__"):
            found += map(_plain, vars(processor).values())
    return found


def _plain(value: Any, depth: int = 2) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if depth and isinstance(value, dict):
        return [(key, _plain(item, depth - 1)) for key, item in value.items()]
    if depth and isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    return id(value)


def _parts(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    seen: set[nn.Module] = set()
    for name, module in modules.items():
        yield from module.named_modules(memo=seen, prefix=name)


def _processor(part: nn.Module) -> Any:  # noqa: ANN401
    """The attention processor of a part, which may be a module too; faster than asking for the attribute."""
    found = vars(part).get("processor")
    return vars(part)["_modules"].get("processor") if found is None else found


def _registered(kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """The hooks of diffusers on a part, by their names; an empty registry counts as none, pipelines make them."""
    return getattr(kept.get("_diffusers_hook"), "hooks", {})


def _global_tables() -> list[dict[int, Any]]:
    known = vars(torch.nn.modules.module)
    return [known[name] for name in _GLOBAL if name in known]
