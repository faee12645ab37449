"""The right side of an equation as a model: rows in, rows out, whatever shape its states have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import Schedule

State = Tensor | tuple[Tensor, ...]


@dataclass
class Function:
    """``f(t, y)`` for many times and states at once, each state flattened to N elements.

    Args:
        function: The user's function of a scalar time and one state (or, ``batched``, of many).
        shapes: Shape of the state, or of each tensor of a tuple.
        tuples: Whether states are tuples.
        batched: Whether the function takes times of shape (R,) and states of shape (R, *shape).
        vectorised: Whether a function of one state may be called through ``torch.vmap``; switched off at the first
            failure.
    """

    function: Callable[[Tensor, Any], Any]
    shapes: tuple[torch.Size, ...]
    tuples: bool
    batched: bool
    vectorised: bool = True

    @property
    def form(self) -> Form:
        """A bare function value."""
        return Form.VALUE

    @property
    def schedule(self) -> Schedule | None:
        """None: there is no noise."""
        return None

    @property
    def variance(self) -> float | None:
        """None: the unit of tolerances is the state's own rms."""
        return None

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Evaluate without a graph.

        Args:
            x: States, shape (R, N).
            t: Times, shape (R,).
            sample: Index of the sample of each row, shape (R,); there is but one.

        Returns:
            Shape (R, N).
        """
        # Functions that differentiate inside themselves (Hamiltonians, traces of Jacobians) need ordinary tensors.
        with torch.inference_mode(False), torch.no_grad():
            return self.evaluate(t.clone(), x.clone()).detach()

    def evaluate(self, times: Tensor, states: Tensor) -> Tensor:
        """Evaluate in the mode that torch is in.

        Args:
            times: Shape (R,).
            states: Shape (R, N).

        Returns:
            Shape (R, N).
        """
        many = (len(times),)
        if self.batched:
            return self._join(self.function(times, self.split(states, *many)), many)
        if self.vectorised and len(times) > 1:
            try:
                return self._join(torch.vmap(self.function)(times, self.split(states, *many)), many)
            except torch.OutOfMemoryError:
                raise  # fewer rows may fit
            except Exception:  # not every function can be mapped; its own mistakes show up again below
                self.vectorised = False
        return torch.cat([self._join(self.function(t, self.split(y)), ()) for t, y in zip(times, states, strict=True)])

    def split(self, states: Tensor, *lead: int) -> State:
        """Flattened states in the user's own shapes.

        Args:
            states: Shape (*lead, N).
            *lead: Leading sizes.

        Returns:
            A tensor of shape (*lead, *shape), or a tuple of such.
        """
        parts = states.split([math.prod(shape) for shape in self.shapes], -1)
        shaped = tuple(part.reshape((*lead, *shape)) for part, shape in zip(parts, self.shapes, strict=True))
        return shaped if self.tuples else shaped[0]

    def _join(self, values: Any, lead: tuple[int, ...]) -> Tensor:  # noqa: ANN401
        """Values of the function, flattened: shape (R, N)."""
        parts = tuple(values) if self.tuples and isinstance(values, tuple | list) else (values,)
        expected = [(*lead, *shape) for shape in self.shapes]
        found = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in parts]
        if found != expected:
            raise SpecError(f"expected f to return what it was given, of shape {expected}, found {found}")
        return torch.cat([part.reshape((math.prod(lead), -1)) for part in parts], 1)
