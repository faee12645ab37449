"""Which tolerance to ask next: ladders are coarse, and what counts lies between their rungs.

From an error of 1e-2 on a point counts only if no answer has changed class, so a method's rounds there are those of
its loosest such tolerance. Which of 64 samples at a border change class is not monotonic in the tolerance: a looser one
than the next with flips may be free of them. So neighbours are narrowed upwards from the loosest good one, the nearest
first: for every method where flips end, and more finely, for ours and the best rival, where one is about as good as the
other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping

from paradrift.bench.equal_error import STRICT, Spot, rounds_at
from paradrift.bench.records import Record

NEAR = 3.0  # tolerances up to so many times the loosest good one are looked at, since flips come and go
NARROW = 4 / 3  # and neighbours among them are within this factor of each other when a ladder is left
CLOSE = 1.25  # rounds within this factor of each other are a close call
FINE = 1.15  # after which neighbours are within this factor

Asked = Mapping[float, Record]  # measurements by tolerance


def last_flip(asked: Asked) -> float | None:
    """The tolerance to ask next, to find the loosest without flips.

    Args:
        asked: Measurements by tolerance.

    Returns:
        The geometric mean of two neighbours to two digits; None where all are within :data:`NARROW` of each other,
        where nothing flips, and where points without flips are not within 1e-2.
    """
    good = max((knob for knob, record in asked.items() if not record.extra["flips"]), default=None)
    if good is None or not _within(asked[good]):  # flips above that error disqualify nothing
        return None
    return _between((knob for knob in asked if knob >= good), NARROW)


def crossing(asked: Asked) -> float | None:
    """The tolerance to ask next, to find the loosest that counts at an error of 1e-2.

    Args:
        asked: Measurements by tolerance.

    Returns:
        The geometric mean of two neighbours to two digits; None where all are within :data:`FINE` of each other.
    """
    good = max((knob for knob, record in asked.items() if _counts(record)), default=None)
    if good is None:
        return None
    above = sorted(knob for knob in asked if knob > good)
    ends = (index for index, knob in enumerate(above) if not asked[knob].extra["flips"])  # too inaccurate from there on
    return _between([good, *above[: next(ends, len(above)) + 1]], FINE)


def close_call(found: Mapping[str, Asked], own: Collection[str]) -> tuple[str, float] | None:
    """The method and tolerance to ask next, where ours and the best rival are about as good at an error of 1e-2.

    Args:
        found: Measurements of methods with tolerances, by method and tolerance, in one place.
        own: Names of our methods.

    Returns:
        Name and tolerance; None where nothing is close, or both sides are known finely.
    """
    rounds = {name: _rounds(asked) for name, asked in found.items()}
    rivals = {name: needed for name, needed in rounds.items() if name not in own}
    best = min(rivals, key=lambda name: rivals[name], default=None)
    if best is None:
        return None
    close = [name for name in own if name in rounds and 1 / CLOSE <= rounds[name] / rivals[best] <= CLOSE]
    for name in [best, *close] if close else ():
        knob = crossing(found[name])
        if knob is not None:
            return name, knob
    return None


def _rounds(asked: Asked) -> float:
    spots = [
        Spot(record.rounds_mean, record.error_median, int(record.extra["flips"] or 0))
        for record in asked.values()
        if record.error_median is not None and not record.extra["unconverged"]
    ]
    needed = rounds_at(spots, STRICT, unflipped=True)
    return math.inf if needed is None else needed


def _within(record: Record) -> bool:
    return record.error_median is not None and record.error_median <= STRICT


def _counts(record: Record) -> bool:
    return not record.extra["flips"] and _within(record)


def _between(knobs: Iterable[float], narrow: float) -> float | None:
    """The first gap that is too wide, from the first knob up to :data:`NEAR` times it."""
    ascending = sorted(knobs)
    for low, high in itertools.pairwise(ascending):
        if low >= NEAR * ascending[0]:
            break
        between = float(f"{math.sqrt(low * high):.2g}")
        if high > narrow * low and low < between < high:
            return between
    return None
