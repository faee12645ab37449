"""The pump between a solver and an executor: the only loop that knows about both."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paradrift.executors import Executor
from paradrift.noise import Noise
from paradrift.solvers.base import Interrupted, Outcome, Solving


def pump(solving: Solving, executor: Executor) -> Generator[None, None, Outcome]:  # noqa: DOC405
    """Drive a solver to its end, pausing after each round.

    An interrupt (Ctrl-C) during a round makes the solver return its best answer so far.

    Args:
        solving: A solver that has not been started.
        executor: Where rows are evaluated.

    Yields:
        Nothing, once after each round.

    Returns:
        The solver's outcome.
    """
    try:
        request = next(solving)
        while True:
            try:
                outputs = executor.evaluate(request)
            except KeyboardInterrupt:
                solving.throw(Interrupted())
                raise RuntimeError("expected an interrupted solver to return") from None
            request = solving.send(outputs)
            yield
    except StopIteration as end:
        return end.value


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluation mode for some modules, each submodule put back as it was afterwards, also after a failure.

    Args:
        modules: The modules.

    Yields:
        Nothing.
    """
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        if any(training for _, training in before):  # to set the mode of a hundred parts takes as long as a small call
            for module in modules:
                module.eval()
        yield
    finally:
        for part, training in before:
            if part.training is not training:
                part.training = training


@dataclass(kw_only=True)
class Timed:
    """A noise source with a clock.

    Args:
        noise: The source.
        seconds: Wall time spent in it so far.
    """

    noise: Noise
    seconds: float = 0.0

    def start(self, samples: Tensor) -> Tensor:
        """The start of each sample; see :class:`paradrift.noise.Noise`.

        Args:
            samples: Sample indices, shape (S,).

        Returns:
            Shape (S, *shape).
        """
        begin = time.perf_counter()
        drawn = self.noise.start(samples)
        self.seconds += time.perf_counter() - begin
        return drawn

    def draw(self, samples: Tensor, columns: Tensor) -> Tensor:
        """The noises of a window.

        Args:
            samples: Sample indices, shape (S,).
            columns: Noise columns, shape (S, K).

        Returns:
            Shape (S, K, *shape).
        """
        begin = time.perf_counter()
        drawn = self.noise.draw(samples, columns)
        self.seconds += time.perf_counter() - begin
        return drawn

    def release(self, column: int) -> None:
        """Pass the promise on.

        Args:
            column: The first column that may still be asked for.
        """
        self.noise.release(column)

    def finish(self) -> None:
        """Pass the end on."""
        self.noise.finish()


def synchronize(device: torch.device) -> None:
    """Wait for a device, so that a clock read afterwards is honest.

    Args:
        device: The device.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
