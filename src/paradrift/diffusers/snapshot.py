"""What must be put back before a program runs again: random states, and the attributes of some objects."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from paradrift.diffusers.live import own


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """States of every generator in reach: torch's own, numpy's, Python's, and those that the program was given.

    Args:
        torch_state: torch's generator on the host.
        cuda_states: torch's generators on the devices.
        numpy_state: numpy's global generator.
        python_state: Python's.
        given: The program's generators with their states.
    """

    torch_state: torch.Tensor
    cuda_states: tuple[torch.Tensor, ...]
    numpy_state: Any
    python_state: Any
    given: tuple[tuple[torch.Generator, torch.Tensor], ...]

    @staticmethod
    def take(generators: Iterable[torch.Generator]) -> Randomness:
        """The states now.

        Args:
            generators: The program's own generators.

        Returns:
            The states.
        """
        return Randomness(
            torch_state=torch.get_rng_state(),
            cuda_states=tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else (),
            numpy_state=np.random.get_state(),  # noqa: NPY002 - the global generator is what programs use
            python_state=random.getstate(),
            given=tuple((generator, generator.get_state()) for generator in generators),
        )

    def put_back(self) -> None:
        """Return every generator to its state."""
        torch.set_rng_state(self.torch_state)
        if self.cuda_states:
            torch.cuda.set_rng_state_all(list(self.cuda_states))
        np.random.set_state(self.numpy_state)  # noqa: NPY002
        random.setstate(self.python_state)
        for generator, state in self.given:
            generator.set_state(state)


@dataclass(frozen=True)
class Attributes:
    """The attributes of some objects: tensors and containers by value, everything else by reference.

    Never a deep copy: the caches of Brownian trees, say, are keyed by identity.

    Args:
        kept: Each object with a copy of its ``__dict__``.
    """

    kept: tuple[tuple[Any, dict[str, Any]], ...]

    @staticmethod
    def take(objects: Iterable[Any]) -> Attributes:
        """The attributes now.

        Args:
            objects: The objects.

        Returns:
            The attributes.
        """
        return Attributes(tuple((each, {name: own(value) for name, value in vars(each).items()}) for each in objects))

    def put_back(self) -> None:
        """Give every object its attributes again."""
        for each, kept in self.kept:
            each.__dict__.clear()
            each.__dict__.update({name: own(value) for name, value in kept.items()})


@dataclass(frozen=True)
class Processors:
    """The attention processors of networks, which some pipelines swap for their own while they run.

    Args:
        kept: Each part of a network that has one, with it.
    """

    kept: tuple[tuple[nn.Module, Any], ...]

    @staticmethod
    def take(modules: Iterable[nn.Module]) -> Processors:
        """The processors now.

        Args:
            modules: The networks.

        Returns:
            The processors.
        """
        parts = [part for module in modules for part in module.modules()]
        return Processors(
            tuple((part, part.processor) for part in parts if getattr(part, "processor", None) is not None)
        )

    def put_back(self) -> None:
        """Give every part its processor again."""
        for part, processor in self.kept:
            if part.processor is not processor:
                part.processor = processor


def generators_in(value: Any, depth: int = 3) -> list[torch.Generator]:  # noqa: ANN401
    """Generators among the arguments of a call, in lists and dictionaries too.

    Args:
        value: Anything.
        depth: How deep to look.

    Returns:
        The generators.
    """
    if isinstance(value, torch.Generator):
        return [value]
    if depth and isinstance(value, list | tuple):
        return [found for item in value for found in generators_in(item, depth - 1)]
    if depth and isinstance(value, dict):
        return [found for item in value.values() for found in generators_in(item, depth - 1)]
    return []
