"""Scheduler steps that need not be taken again: those over the settled calls of a replayed program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paradrift.diffusers.keeping import Kept, copied
from paradrift.diffusers.snapshot import Attributes, Randomness

_EXACT = 2  # the last steps whose state is put back whole: what the first unsettled call is made of


@dataclass
class StepMemory:
    """The results of one scheduler's settled steps.

    In later executions they are answered from here. The scheduler itself stands still meanwhile, but for its counters;
    where the memory ends, its state and the random states are put back as they were.

    Args:
        scheduler: The scheduler.
        results: What each step returned, with the scheduler's counters afterwards.
        states: Whole states after the last steps, by number.
        position: Steps taken in this execution.
    """

    scheduler: Any
    results: list[tuple[Kept, dict[str, Any]]] = field(default_factory=list)
    states: dict[int, tuple[Attributes, Randomness]] = field(default_factory=dict)
    position: int = 0

    def step(self, take: Callable[[], Any], settled: bool, randomness: Callable[[], Randomness]) -> Any:  # noqa: ANN401
        """One step of this execution.

        Args:
            take: Takes it.
            settled: Whether everything before it is settled.
            randomness: Takes the random states.

        Returns:
            Its result, owned by the caller.
        """
        number, self.position = self.position, self.position + 1
        if number < len(self.results):
            result, counters = self.results[number]
            if number in self.states:
                attributes, random = self.states[number]
                attributes.put_back()
                random.put_back()
            else:
                self.scheduler.__dict__.update(counters)
            return result.hand()
        result = take()
        if settled and number == len(self.results):
            counters = {
                name: value
                for name, value in vars(self.scheduler).items()
                if value is None or isinstance(value, int | float)
            }
            self.results.append((Kept(copied(result)), counters))
            self.states[number] = (Attributes.take([self.scheduler]), randomness())
            self.states.pop(number - _EXACT, None)
        return result

    def patched(self, settled: Callable[[], bool], randomness: Callable[[], Randomness]) -> Callable[..., Any]:
        """A method to stand in for the scheduler's step.

        Args:
            settled: Whether everything so far is settled.
            randomness: Takes the random states.

        Returns:
            The method.
        """
        original = self.scheduler.step

        @functools.wraps(original)
        def step(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return self.step(lambda: original(*args, **kwargs), settled(), randomness)

        return step
