"""A comparison in progress: cells one after the other, each method up its ladder, what is done already left out."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from paradrift.bench import compare_seconds
from paradrift.bench.compare import Case, cost, key, measure
from paradrift.bench.compare_selection import Cell, evaluations, points, quick_cells, usual_cells
from paradrift.bench.equal_error import STRICT, WORST
from paradrift.bench.methods import Entry
from paradrift.bench.model_set import model_set
from paradrift.bench.models import Model
from paradrift.bench.records import Record

ENGINE = 2e-7  # seconds that solvers spend on an element of a row, about: for the estimate alone
PARTS = ("curves", "seconds")
NEAR = 3.0  # tolerances up to so many times the loosest without flips are looked at, since flips come and go
NARROW = 4 / 3  # and neighbours among them are within this factor of each other when a ladder is left

Models = Mapping[str, Model]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One measurement, and how far the run is.

    Args:
        record: The measurement.
        done: Cells done so far or begun, this one included.
        total: Cells in all.
        left: Estimated seconds left; None where nothing is known yet.
    """

    record: Record
    done: int
    total: int
    left: float | None


@functools.cache
def everything() -> Models:
    """The whole problem set.

    Returns:
        Models by name.
    """
    return {model.name: model for model in model_set()}


def compare(quick: bool) -> Iterator[Record]:
    """Every method on every model: rounds, seconds and memory against the error, then single samples for time.

    Args:
        quick: The exact models at a few steps: a check that all of it runs.

    Yields:
        One record for each point.
    """
    models = everything()
    cells = quick_cells(tuple(models)) if quick else usual_cells(tuple(models))
    for step in run(cells, models):
        yield step.record


def run(
    cells: Sequence[Cell], models: Models, done: Iterable[Record] = (), parts: Sequence[str] = PARTS
) -> Iterator[Step]:
    """Measure cells: their curves, and then single samples of their problems for time.

    Args:
        cells: What to measure.
        models: The models by name.
        done: Measurements of an earlier run: they are not made again, and count where a ladder ends.
        parts: "curves", "seconds" or both.

    Yields:
        One step for each new measurement.
    """
    known = {str(record.extra.get("key")): record for record in done}
    if "curves" in parts:
        yield from _curves(cells, models, known)
    if "seconds" in parts:
        problems: dict[tuple[str, str, int], set[str]] = {}  # and the methods that any of their cells asks for
        for cell in cells:
            named = problems.setdefault((cell.model, cell.kind, cell.steps), set())
            named.update(entry.name for entry in cell.entries())
        for index, ((name, kind, steps), methods) in enumerate(problems.items()):
            case = Case(model=models[name], kind=kind, steps=steps, samples=1)
            for record in compare_seconds.race(case, list(known.values()), methods=methods):
                yield Step(record=record, done=index + 1, total=len(problems), left=None)


def _curves(cells: Sequence[Cell], models: Models, known: dict[str, Record]) -> Iterator[Step]:
    weights = [weight(cell, models) for cell in cells]
    cases: dict[tuple[str, str, int, int], Case] = {}
    spent = weighed = 0.0
    for index, cell in enumerate(cells):
        begin, fresh = time.perf_counter(), False
        address = (cell.model, cell.kind, cell.steps, cell.samples)
        if address not in cases:
            cases[address] = Case(model=models[cell.model], kind=cell.kind, steps=cell.steps, samples=cell.samples)
        for entry in cell.entries():
            for record in climb(cases[address], entry, cell, known):
                fresh = True
                left = sum(weights[index + 1 :]) * (spent / weighed if weighed else 1.0)
                yield Step(record=record, done=index + 1, total=len(cells), left=left)
        if fresh:
            spent, weighed = spent + time.perf_counter() - begin, weighed + weights[index]


def climb(case: Case, entry: Entry, cell: Cell, known: dict[str, Record]) -> Iterator[Record]:
    """One method up its ladder, until its answers are accurate enough; then between its rungs, where flips end.

    From an error of 1e-2 on only points without flips count, so the rounds there are those of the loosest such knob,
    which a coarse ladder overstates by whatever its rungs are apart.

    Args:
        case: The problem.
        entry: The method.
        cell: Width, stride and floor; the worst sample is to reach the smallest error that it is asked for.
        known: Measurements by name; new ones are added.

    Yields:
        The new measurements.
    """
    if not entry.fits(case.problem, cell.width):
        return

    def point(knob: float) -> Iterator[Record]:
        name = key(case, entry, cell.width, knob)
        if name not in known:
            known[name] = measure(case, entry, cell.width, knob)
            yield known[name]

    for knob in entry.ladder[:: cell.stride]:
        yield from point(knob)
        record = known[key(case, entry, cell.width, knob)]
        error, largest, flipped = record.error_median, record.error_worst, record.extra["flips"]
        if error is None or largest is None or flipped:
            continue
        if error <= cell.floor and largest <= WORST[-1]:
            break
    stem = key(case, entry, cell.width, 0).removesuffix("0")

    def asked() -> dict[float, Record]:  # rungs of a finer ladder, climbed before, are among them
        return {float(name.removeprefix(stem)): known[name] for name in known if name.startswith(stem)}

    while entry.knob == "tolerance" and (between := last_flip(asked())) is not None:
        yield from point(between)


def last_flip(asked: Mapping[float, Record]) -> float | None:
    """The tolerance to ask next, to find the loosest without flips.

    Which samples at a border change class is not monotonic in the tolerance: a looser one than the next with flips may
    be free of them. So all neighbours up to :data:`NEAR` times the loosest known are narrowed, the nearest first.

    Args:
        asked: Measurements by tolerance.

    Returns:
        The geometric mean of two neighbours to two digits; None where all are within :data:`NARROW` of each other,
        where nothing flips, and where points without flips are not within 1e-2.
    """
    unflipped = [knob for knob, record in asked.items() if not record.extra["flips"]]
    good = max(unflipped, default=None)
    if good is None:
        return None
    error = asked[good].error_median
    if error is None or error > STRICT:  # above, flips do not disqualify: another point would change nothing
        return None
    for low, high in itertools.pairwise(sorted(knob for knob in asked if knob >= good)):
        if low >= NEAR * good:
            break
        between = float(f"{math.sqrt(low * high):.2g}")
        if high > NARROW * low and low < between < high:
            return between
    return None


def weight(cell: Cell, models: Models) -> float:
    """About what a cell costs on this machine, model and solver together.

    Args:
        cell: The cell.
        models: The models by name.

    Returns:
        Seconds.
    """
    model = models[cell.model]
    row = _row_seconds(model) + ENGINE * math.prod(model.shape)
    return points(cell) * evaluations(cell) * row


_rows: dict[str, float] = {}


def _row_seconds(model: Model) -> float:
    if model.name not in _rows:
        case = Case(model=model, kind="ode", steps=10, samples=64)
        _rows[model.name] = cost(case, 64, 3) / 64
    return _rows[model.name]
