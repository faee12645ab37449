"""Rounds: calls evaluated together, and the checks that come with them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paradrift.diffusers.batching import Batcher
from paradrift.diffusers.calls import Cell, Leaves
from paradrift.diffusers.pace import Pace
from paradrift.diffusers.patching import own_forward
from paradrift.diffusers.settings import Settings
from paradrift.diffusers.stats import ReplayStats
from paradrift.errors import Refused
from paradrift.pump import synchronize

FILL = 16  # calls in a batch of one size, where neither max_rows nor the window says
Sources = Callable[[int], dict[int, tuple[int, int]]]


@dataclass(kw_only=True)
class Evaluator:
    """Evaluates calls of several networks.

    Args:
        batchers: One for each network, by name.
        pace: Learns what rounds cost.
        stats: Counts.
        secant: Whether calls learn slopes.
    """

    batchers: Mapping[str, Batcher]
    pace: Pace
    stats: ReplayStats
    secant: bool

    @property
    def noise(self) -> dict[str, float]:
        """For each network: the rounding of its batches, rms over rms."""
        return {name: batcher.noise for name, batcher in self.batchers.items()}

    def round(self, cells: Sequence[Cell], numbers: Sequence[int], sources: Sources) -> None:
        """Evaluate some calls, in one round.

        Networks are evaluated in the order in which the program calls them. Where one is given outputs of another as
        they are (a ControlNet's residuals), it is given those of this round.

        Args:
            cells: All calls of the program.
            numbers: Numbers of those to evaluate.
            sources: Which arguments of a call are outputs of an earlier one.
        """
        self.stats.rounds += 1
        self.stats.window = max(self.stats.window, numbers[-1] - numbers[0] + 1)
        self.stats.evaluations += len(numbers)
        begin = time.perf_counter()
        groups: dict[Any, list[int]] = {}
        for number in numbers:
            groups.setdefault(cells[number].signature, []).append(number)
        fresh: set[int] = set()
        for group in groups.values():
            for number in group if fresh else ():
                for index, (call, place) in sources(number).items():
                    if call in fresh:
                        cells[number].leaves = [*cells[number].leaves]
                        cells[number].leaves[index] = cells[call].outputs[place]
            self._group([cells[number] for number in group])
            fresh.update(group)
        self.stats.model_seconds += time.perf_counter() - begin

    def _group(self, cells: list[Cell]) -> None:
        batcher = self.batchers[cells[0].signature.module]
        found: list[tuple[Leaves, Any]] = []
        if cells[0].signature not in batcher.known:
            found.append(self._first(batcher, cells[0]))
        rest = cells[len(found) :]
        if rest:
            begin, tried, size = _now(cells[0]), cells[0].signature in batcher.ways, batcher.size(len(rest))
            found += batcher.together(rest)
            if tried or size == 1:
                self.pace.measured(cells[0].signature, size, (_now(cells[0]) - begin) / math.ceil(len(rest) / size))
        for cell, (outputs, structure) in zip(cells, found, strict=True):
            cell.take(outputs, structure, self.secant)

    def _first(self, batcher: Batcher, cell: Cell) -> tuple[Leaves, Any]:
        """The first call of a kind, alone; and once more, to see whether the network is a function."""
        begin = _now(cell)
        found = batcher.alone(cell)
        if batcher.single:
            return found
        between = _now(cell)
        again, _ = batcher.alone(cell)
        self.pace.measured(cell.signature, 1, min(_now(cell) - between, between - begin))
        for one, other in zip(found[0], again, strict=True):
            if isinstance(one, torch.Tensor) and not torch.equal(one.nan_to_num(), other.nan_to_num()):
                raise Refused(
                    f"expected {cell.signature.module} to be a function of its arguments, found two answers to one "
                    "call: it keeps a state or draws noise; put it in eval mode, or turn its cache off"
                )
        return found


def evaluator(modules: Mapping[str, nn.Module], settings: Settings, pace: Pace, stats: ReplayStats) -> Evaluator:
    """An evaluator of networks as they are.

    Args:
        modules: The networks, by name; not patched yet.
        settings: How they are replayed.
        pace: Learns what rounds cost; told how large batches are.
        stats: Counts.

    Returns:
        The evaluator.
    """
    batchers: dict[str, Batcher] = {}
    for name, module in modules.items():
        own, compiled = own_forward(module)
        batchers[name] = Batcher(own, single=settings.single, max_rows=settings.max_rows)
        if (settings.pad or compiled) and not settings.single:
            fill = settings.max_rows or settings.window or FILL
            batchers[name].fill, pace.narrowest, pace.largest = fill, fill, fill
    return Evaluator(batchers=batchers, pace=pace, stats=stats, secant=settings.secant)


def _now(cell: Cell) -> float:
    """The time when the device of a call has done what it was told: it may run behind the program."""
    for device in {leaf.device for leaf in cell.leaves if isinstance(leaf, torch.Tensor)}:
        synchronize(device)
    return time.perf_counter()
