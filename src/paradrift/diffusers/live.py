"""Live schedulers: replicas in the same state, and the loop that a pipeline runs around them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from paradrift.errors import SpecError

_TREE = "BrownianTreeNoiseSampler"
_GIVEN = frozenset(("model_output", "timestep", "sample", "old_pred_original_sample", "timestep_back", "return_dict"))


def replica(scheduler: Any) -> Any:  # noqa: ANN401 - any scheduler of diffusers
    """A scheduler of the same class and in the same state that shares nothing it may change.

    Never rebuilt from its config: pipelines patch the live object (``steps_offset``, custom sigmas), and a rebuilt one
    forgets that silently. Tensors and containers are copied, everything else is shared.

    Args:
        scheduler: The live one; not changed.

    Returns:
        The replica.
    """
    twin = object.__new__(type(scheduler))
    twin.__dict__ = {name: own(value) for name, value in vars(scheduler).items()}
    return twin


def own(value: Any) -> Any:  # noqa: ANN401
    """A copy of tensors and containers, the thing itself otherwise.

    Args:
        value: Anything.

    Returns:
        The copy.
    """
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) is list:
        return [own(item) for item in value]
    if type(value) is dict:
        return {key: own(item) for key, item in value.items()}
    return value


class Draws(TorchFunctionMode):
    """Answers every Gaussian draw with what a function says, and counts.

    Args:
        answer: Given the number of the draw, from 0, and its shape: the tensor to hand out.
    """

    def __init__(self, answer: Callable[[int, tuple[int, ...]], Tensor]) -> None:
        super().__init__()
        self._answer, self.count = answer, 0

    def next(self, shape: tuple[int, ...]) -> Tensor:
        """One draw.

        Args:
            shape: Its shape.

        Returns:
            The answer.
        """
        self.count += 1
        return self._answer(self.count - 1, shape)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Torch's own hook: every function called inside ``with``."""
        if func is torch.randn:
            size = args[0] if args and not isinstance(args[0], int) else args or (kwargs or {})["size"]
            return self.next(tuple(size))
        if func is torch.randn_like:
            return self.next(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The loop of a pipeline around a replica: one call of ``step`` for each timestep.

    Args:
        scheduler: The live scheduler; a replica of it is driven.
        timesteps: Timesteps of the calls, shape (N,).
        arguments: Further arguments of every ``step``, such as ``eta``.
        vector: Whether ``step`` wants one timestep for each sample.

    Raises:
        SpecError: if ``step`` wants arguments that nobody gives, or has none of the names given.
    """

    scheduler: Any
    timesteps: Tensor
    arguments: Mapping[str, Any] = field(default_factory=dict)
    vector: bool = False

    def __post_init__(self) -> None:
        names = self._parameters
        strange = sorted(set(self.arguments) - set(names))
        if strange:
            raise SpecError(f"expected arguments of {self._name}.step, found {strange}: it takes {sorted(names)}")
        missing = [
            name
            for name, parameter in names.items()
            if parameter.default is parameter.empty and name not in _GIVEN and name not in self.arguments
        ]
        if missing or not {"model_output", "timestep", "sample"} <= set(names):
            raise SpecError(
                f"expected {self._name}.step to want model_output, timestep and sample, found that it also wants "
                f"{missing or 'others'}: give them as arguments={{...}}, or run its own loop"
            )

    @property
    def _name(self) -> str:
        return type(self.scheduler).__name__

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        step = getattr(self.scheduler, "step", None)
        if step is None:
            raise SpecError(f"expected a scheduler with a method step, found {self._name}: run its own loop")
        found = inspect.signature(step).parameters
        return {name: p for name, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}

    @property
    def takes_vectors(self) -> bool:
        """Whether ``step`` indexes into its timestep, as if there were one for each sample."""
        nothing = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        draws = Draws(lambda number, shape: torch.zeros(shape, dtype=torch.float64))
        try:
            next(self.run(lambda index, last: nothing, lambda index, scaled: nothing, draws))
        except IndexError:
            return True
        return False

    def run(
        self, states: Callable[[int, Tensor | None], Tensor], outputs: Callable[[int, Tensor], Tensor], draws: Draws
    ) -> Iterator[Tensor]:
        """Drive a replica.

        Args:
            states: Given the number of the call and the last result: the sample that is stepped.
            outputs: Given the number of the call and the scaled sample: the model's output.
            draws: Answers the draws, those of Brownian trees included.

        Yields:
            The result of each call.
        """
        twin, carried, before, last = replica(self.scheduler), None, None, None
        names = self._parameters
        optional = {"return_dict": False} if "return_dict" in names else {}
        for index, timestep in enumerate(self.timesteps):
            sample = states(index, last)
            with draws, brownian(twin, draws):
                scale = getattr(twin, "scale_model_input", None)
                scaled = sample if scale is None else scale(sample, timestep)
                if "old_pred_original_sample" in names:  # CogVideoX hands the last data prediction around
                    optional |= {"old_pred_original_sample": carried, "timestep_back": before}
                output = outputs(index, scaled)
                # Some loops pass one timestep for each sample.
                when = timestep.expand(len(sample)) if self.vector else timestep
                found = twin.step(model_output=output, timestep=when, sample=sample, **optional, **self.arguments)
            parts = found if isinstance(found, tuple) else (found.prev_sample,)
            last, before = parts[0], timestep
            carried = parts[1] if len(parts) > 1 else None
            yield last

    def noises(self, start: Tensor) -> Iterator[Tensor]:
        """What a replica draws in its own loop, from its own sources, draw by draw.

        Args:
            start: Any sample of the right shape.

        Yields:
            The draws.
        """
        twin, seen = replica(self.scheduler), []
        names = self._parameters
        optional = {"return_dict": False} if "return_dict" in names else {}
        zero = torch.zeros_like(start)
        for timestep in self.timesteps:
            if hasattr(twin, "scale_model_input"):
                twin.scale_model_input(zero, timestep)
            with _recorded(twin, seen):
                twin.step(model_output=zero, timestep=timestep, sample=zero, **optional, **self.arguments)
            yield from seen
            seen.clear()


@contextmanager
def brownian(scheduler: Any, draws: Draws) -> Iterator[None]:  # noqa: ANN401
    """Let increments of a Brownian tree be draws.

    Args:
        scheduler: The scheduler.
        draws: Answers them.

    Yields:
        Nothing.
    """
    module = sys.modules[type(scheduler).__module__]
    if not hasattr(module, _TREE):
        yield
        return

    class Increments:
        def __init__(self, x: Tensor, *_: object, **__: object) -> None:
            self.shape = tuple(x.shape)

        def __call__(self, *_: object) -> Tensor:
            return draws.next(self.shape)

    original = getattr(module, _TREE)
    setattr(module, _TREE, Increments)
    try:
        yield
    finally:
        setattr(module, _TREE, original)


@contextmanager
def _recorded(scheduler: Any, seen: list[Tensor]) -> Iterator[None]:  # noqa: ANN401
    """Remember the increments that a Brownian tree hands out."""
    module = sys.modules[type(scheduler).__module__]
    original = getattr(module, _TREE, None)
    if original is None:
        raise SpecError(f"expected a scheduler with a Brownian tree, found {type(scheduler).__name__}: use generator=")
    tree = original.__call__

    def increment(self: object, *args: object) -> Tensor:
        seen.append(tree(self, *args))
        return seen[-1]

    original.__call__ = increment
    try:
        yield
    finally:
        original.__call__ = tree
