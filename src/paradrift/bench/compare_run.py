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
from paradrift.bench.compare_narrow import Asked, close_call, last_flip
from paradrift.bench.compare_selection import Cell, evaluations, points, quick_cells, usual_cells
from paradrift.bench.equal_error import WORST
from paradrift.bench.methods import Entry
from paradrift.bench.model_set import model_set
from paradrift.bench.models import Model
from paradrift.bench.records import Record

ENGINE = 2e-7  # seconds that solvers spend on an element of a row, about: for the estimate alone
PARTS = ("curves", "seconds")

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
        climbs = (climb(cases[address], entry, cell, known) for entry in cell.entries())
        for record in itertools.chain(*climbs, settle(cases[address], cell, known)):
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

    for knob in entry.ladder[:: cell.stride]:
        yield from _point(case, entry, cell.width, knob, known)
        record = known[key(case, entry, cell.width, knob)]
        error, largest, flipped = record.error_median, record.error_worst, record.extra["flips"]
        if error is None or largest is None or flipped:
            continue
        if error <= cell.floor and largest <= WORST[-1]:
            break
    while entry.knob == "tolerance" and (between := last_flip(_asked(case, entry, cell.width, known))) is not None:
        yield from _point(case, entry, cell.width, between, known)


def settle(case: Case, cell: Cell, known: dict[str, Record]) -> Iterator[Record]:
    """After all methods of a cell: where ours and the best rival are about as good, both are looked at more finely.

    Args:
        case: The problem.
        cell: The cell.
        known: Measurements by name; new ones are added.

    Yields:
        The new measurements.
    """
    fitting = [entry for entry in cell.entries() if entry.knob == "tolerance" and entry.fits(case.problem, cell.width)]
    entries, own = {entry.name: entry for entry in fitting}, [entry.name for entry in fitting if entry.ours]
    while True:
        found = {name: _asked(case, entry, cell.width, known) for name, entry in entries.items()}
        wanted = close_call({name: asked for name, asked in found.items() if asked}, own)
        if wanted is None:
            return
        name, knob = wanted
        yield from _point(case, entries[name], cell.width, knob, known)


def _asked(case: Case, entry: Entry, width: int | None, known: Mapping[str, Record]) -> Asked:
    """What is known of a method: rungs of a finer ladder, climbed before, are among them."""
    stem = key(case, entry, width, 0).removesuffix("0")
    return {float(name.removeprefix(stem)): known[name] for name in known if name.startswith(stem)}


def _point(case: Case, entry: Entry, width: int | None, knob: float, known: dict[str, Record]) -> Iterator[Record]:
    """One measurement, unless it is known."""
    name = key(case, entry, width, knob)
    if name not in known:
        known[name] = measure(case, entry, width, knob)
        yield known[name]


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
