"""How many calls to work on at once: the window of a replayed program, from what its rounds have cost so far."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from paradrift.diffusers.calls import Cell, Signature
from paradrift.experience import cost_of, rounds_of
from paradrift.planner import MARGIN

TRIAL = 4  # calls in the first round, where nothing is known of what a batch costs
_RARE = 0.05  # share of a kind of calls below which its cost does not matter
_NEWS = 0.3  # weight of the latest of several timings
_RETRY = 200  # choices of one call after which a batch is timed again; a call asks twice
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64)

Costs = dict[Signature, dict[int, float]]  # seconds of a round by its calls
_remembered: weakref.WeakKeyDictionary[nn.Module, dict[int, Costs]] = weakref.WeakKeyDictionary()


@dataclass(kw_only=True)
class Pace:
    """Chooses the window, round by round.

    Costs are remembered with the network (by its object, shapes and number of threads), so that only the first run of
    a pipeline has to try.

    Args:
        modules: The networks, by name.
        window: A fixed window; None to choose.
        narrowest: Smallest window that is worth a thought: batches are filled up to it.
        largest: Most calls in one batch: rounds of more take several; None for no limit.
        plan: The last choice, in one sentence.
    """

    modules: Mapping[str, nn.Module]
    window: int | None = None
    narrowest: int = 1
    largest: int | None = None
    plan: str = ""
    _stopped: str | None = None
    _planned: int = 0  # calls that the plan is about
    _alone: int = 0  # choices of one call since the last of more
    _playing: float = 0.0  # seconds for one call on the tape

    def measured(self, kind: Signature, calls: int, seconds: float) -> None:
        """A round has been timed.

        Args:
            kind: The calls' signature.
            calls: How many there were.
            seconds: How long it took.
        """
        known = self._costs(kind)
        known[calls] = known.get(calls, seconds) + _NEWS * (seconds - known.get(calls, seconds))

    def played(self, calls: int, seconds: float) -> None:
        """A window has been played on the tape.

        Args:
            calls: Calls in it.
            seconds: How long it took.
        """
        self._playing = min(self._playing or math.inf, seconds / max(1, calls))

    def stop(self, reason: str) -> None:
        """Work on one call after the other from now on.

        Args:
            reason: Why, as the rest of a sentence.
        """
        self.window, self._stopped = 1, f"one call after the other: {reason}"

    def sequential(self, cells: Sequence[Cell]) -> float | None:
        """Predicted time of the networks in the plain run.

        Args:
            cells: The program's calls.

        Returns:
            Seconds; None where a single call has not been timed.
        """
        total = 0.0
        for kind, count in Counter(cell.signature for cell in cells).items():
            known = self._costs(kind)
            if 1 not in known:
                return None
            total += count * known[1]
        return total

    def width(self, shares: Mapping[Signature, float], remaining: int) -> int:
        """The window to work on now.

        Args:
            shares: Share of each kind among the program's calls; rare kinds do not count.
            remaining: Calls that are not settled.

        Returns:
            Calls; 1: none promises to be faster than one call after the other.
        """
        if self.window is not None:
            self.plan = f"window {self.window} as asked" if self._stopped is None else self._stopped
            return self.window
        costs = [(share, self._costs(kind)) for kind, share in shares.items() if share > _RARE]
        if any(1 not in known or len(known) == 1 for _, known in costs):
            self.plan = f"window {max(TRIAL, self.narrowest)}, to try"
            return max(TRIAL, self.narrowest)
        if remaining < TRIAL:
            return max(1, remaining)
        plain = remaining * sum(share * known[1] for share, known in costs)
        seconds: dict[int, float] = {}
        for width in WIDTHS:
            if self.narrowest <= width <= remaining:
                busy = _busy(width, remaining)
                batches = sum(self._round(max(1.0, share * busy), known) for share, known in costs)
                seconds[width] = rounds_of(width, remaining) * (batches + width * self._playing)
        best = min(seconds, key=seconds.__getitem__, default=1)
        if best != 1 and seconds[best] > MARGIN * plain:
            best = 1
        self._alone = self._alone + 1 if best == 1 else 0
        if self._alone == _RETRY:  # perhaps the machine was busy when a batch was timed
            self._alone = 0
            return max(TRIAL, self.narrowest)
        if 2 * remaining >= self._planned:  # the last calls need narrower windows: that is not news
            self._planned = max(self._planned, remaining)
            self.plan = "one call after the other: no window promised to be faster"
            if best > 1:
                self.plan = f"window {best}: predicted {plain / seconds[best]:.1f} times faster than plainly"
        return best

    def _round(self, calls: float, costs: dict[int, float]) -> float:
        if self.largest is None:
            return _predicted(calls, costs)
        batches, rest = divmod(calls, self.largest)
        return batches * _predicted(self.largest, costs) + (_predicted(rest, costs) if rest else 0.0)

    def _costs(self, kind: Signature) -> dict[int, float]:
        by_threads = _remembered.setdefault(self.modules[kind.module], {})
        return by_threads.setdefault(torch.get_num_threads(), {}).setdefault(kind, {})


def _busy(width: int, calls: int) -> float:
    """Calls of a window that are evaluated in a round, on average: at the end there are fewer. Fitted on the digits."""
    return width * max(1 / 3, 1 - width / (1.5 * calls))


def _predicted(calls: float, costs: dict[int, float]) -> float:
    """Interpolated; beyond what was measured, on the line through the first and the last."""
    largest = max(costs)
    if calls <= largest:
        return cost_of(calls, costs)
    slope = max(0.0, (costs[largest] - costs[1]) / (largest - 1))
    return costs[largest] + slope * (calls - largest)
