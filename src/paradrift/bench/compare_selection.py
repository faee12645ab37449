"""What is compared: cells of the product (model, sampler, steps, width, method), the most telling first.

The whole product would take days on two cores. The default selection asks every model at 10 to 1000 steps of its ODE
and at 50 to 1000 of its SDE, models whose calls are cheap at 10 and 25, too. Methods that were never near the best are
asked in the earlier cells only; models whose calls are expensive are asked fewer knobs, and errors down to 1e-3, in
their longest chains the nearest rivals alone, and errors down to 1e-2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from paradrift.bench.compare import KINDS, named
from paradrift.bench.equal_error import Place
from paradrift.bench.methods import CATALOGUE, Entry
from paradrift.errors import SpecError

SAMPLES = 64
FLOOR, HEAVY_FLOOR, LONG_FLOOR = 1e-4, 1e-3, 1e-2  # the smallest errors compared: cheap models, others, in long chains
HEAVY = frozenset({"mixture-1024", "digits", "digits-guided", "policy"})  # a row costs a millisecond or more
WEAK = frozenset({"Anderson", "quasi-DEER", "PIADM", "wavefront", "autospeculation"})  # not asked in later cells
HEAVY_CELLS = frozenset(  # where those are asked
    {
        ("ode", 50, 16),
        ("sde", 100, 16),
        ("ode", 25, 16),
        ("ode", 10, None),
        ("ode", 100, 16),
        ("sde", 50, 16),
        ("ode", 250, 64),
    }
)
# and, the nearest rivals alone, at an error of 1e-2
LONG_CELLS = frozenset({("sde", 250, 64), ("ode", 1000, 64), ("sde", 1000, 64)})
NEAREST = ("default", "calibrated", "ParaSolver", "ParaDiGMS", "Picard")
PLAN: tuple[tuple[str, int, int | None, int, bool], ...] = (  # kind, steps, width, stride, all methods
    ("ode", 50, 16, 2, True),
    ("sde", 100, 16, 2, True),
    ("sde", 250, 64, 2, True),
    ("ode", 50, None, 2, True),
    ("ode", 25, 16, 2, True),
    ("sde", 50, 16, 2, True),
    ("ode", 10, None, 2, True),
    ("sde", 25, None, 2, False),
    ("ode", 50, 8, 2, False),
    ("ode", 100, 16, 1, False),
    ("ode", 100, None, 2, False),
    ("ode", 250, 64, 2, False),
    ("sde", 10, None, 2, False),
    ("ode", 1000, 64, 3, False),
    ("sde", 1000, 64, 3, False),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All knobs of some methods on one problem at one width.

    Args:
        model: Name of the model.
        kind: "ode" or "sde".
        steps: Number of steps.
        width: Rows of a sample in a round; None for the whole chain.
        methods: Names of methods; None for all that fit.
        samples: Number of samples.
        stride: 1 for every knob of a ladder, 2 for every second.
        floor: The ladder is climbed until the median error is at most this.
    """

    model: str
    kind: str
    steps: int
    width: int | None
    methods: tuple[str, ...] | None = None
    samples: int = SAMPLES
    stride: int = 1
    floor: float = FLOOR

    def entries(self) -> list[Entry]:
        """The methods.

        Returns:
            Entries of the catalogue, in its order.
        """
        return [entry for entry in CATALOGUE if self.methods is None or entry.name in self.methods]

    def words(self) -> str:
        """Itself in words.

        Returns:
            Model, sampler, steps and width.
        """
        return f"{self.model} {self.kind} {self.steps}, width {named(self.width)}"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What was asked for on the command line; what is None is not filtered.

    Args:
        models: Names of models.
        methods: Names of methods.
        kinds: "ode", "sde".
        steps: Numbers of steps.
        widths: Rows of a sample in a round; None among them for the whole chain.
        samples: Number of samples.
    """

    models: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    steps: tuple[int, ...] | None = None
    widths: tuple[int | None, ...] | None = None
    samples: int | None = None


def quick_cells(models: Sequence[str]) -> list[Cell]:
    """A check that all of it runs, in about a minute: the exact models at a few steps.

    Args:
        models: Names of all models.

    Returns:
        The cells.
    """
    light = [name for name in models if name.startswith(("gaussian", "mixture-64"))]
    plan = (("ode", 10, None), ("ode", 25, 16), ("sde", 25, 16))
    return [
        Cell(model=name, kind=kind, steps=steps, width=width, samples=16, stride=2)
        for kind, steps, width in plan
        for name in light
    ]


def usual_cells(models: Sequence[str]) -> list[Cell]:
    """The default selection.

    Args:
        models: Names of all models.

    Returns:
        The cells, the most telling first.
    """
    cells: list[Cell] = []
    for kind, steps, width, stride, every in PLAN:
        for name in models:
            cell = Cell(model=name, kind=kind, steps=steps, width=width, stride=stride)
            if name not in HEAVY:
                cells.append(cell if every else dataclasses.replace(cell, methods=strong()))
            elif (kind, steps, width) in HEAVY_CELLS:
                cells.append(dataclasses.replace(cell, methods=strong(), stride=2, floor=HEAVY_FLOOR))
            elif (kind, steps, width) in LONG_CELLS:
                cells.append(dataclasses.replace(cell, methods=NEAREST, stride=2, floor=LONG_FLOOR))
    few = ("default", "ParaDiGMS")
    race = Cell(model="digits", kind="sde", steps=1000, width=32, methods=few, stride=5, floor=LONG_FLOOR)
    return [*cells, race] if race.model in models else cells


def floor(where: Place) -> float:
    """The smallest error that methods are asked for.

    Args:
        where: A place.

    Returns:
        The error.
    """
    if where.model not in HEAVY:
        return FLOOR
    long = any((where.kind, where.steps) == (kind, steps) for kind, steps, _ in LONG_CELLS)
    return LONG_FLOOR if long else HEAVY_FLOOR


def strong() -> tuple[str, ...]:
    """The methods that are asked everywhere.

    Returns:
        Names of all but those that were never near the best.
    """
    return tuple(entry.name for entry in CATALOGUE if entry.name not in WEAK)


def chosen(cells: Iterable[Cell], wanted: Filter, models: Sequence[str]) -> list[Cell]:
    """The cells that were asked for; where the selection has none of a model, those of the filter's own product.

    Args:
        cells: A selection.
        wanted: The filter.
        models: Names of all models.

    Returns:
        The cells.

    Raises:
        SpecError: if a name is unknown.
    """
    names = [entry.name for entry in CATALOGUE]
    for found, known, word in (
        (wanted.models, models, "model"),
        (wanted.methods, names, "method"),
        (wanted.kinds, KINDS, "kind of sampler"),
    ):
        unknown = set(found or ()) - set(known)
        if unknown:
            raise SpecError(f"expected a {word} among {', '.join(known)}, found {sorted(unknown)[0]!r}")
    if wanted.steps is not None and wanted.widths is not None:
        cells = _product(wanted, models)
    return list(_filtered(cells, wanted))


def _product(wanted: Filter, models: Sequence[str]) -> Iterator[Cell]:
    """All cells of a filter that names steps and widths: it may ask for what no selection holds."""
    for steps in wanted.steps or ():
        for kind in wanted.kinds or KINDS:
            for width in wanted.widths or ():
                for name in wanted.models or models:
                    yield Cell(model=name, kind=kind, steps=steps, width=width)


def _filtered(cells: Iterable[Cell], wanted: Filter) -> Iterator[Cell]:
    for cell in cells:
        if wanted.models is not None and cell.model not in wanted.models:
            continue
        if wanted.kinds is not None and cell.kind not in wanted.kinds:
            continue
        if wanted.steps is not None and cell.steps not in wanted.steps:
            continue
        if wanted.widths is not None and cell.width not in wanted.widths:
            continue
        methods = cell.methods
        if wanted.methods is not None:
            methods = tuple(name for name in wanted.methods if methods is None or name in methods)
            if not methods:
                continue
        samples = cell.samples if wanted.samples is None else wanted.samples
        yield dataclasses.replace(cell, methods=methods, samples=samples)


def evaluations(cell: Cell) -> float:
    """About how many rows a point of a cell evaluates: a guess that is right within a factor of two.

    Args:
        cell: The cell.

    Returns:
        Rows, over all samples.
    """
    width = cell.steps if cell.width is None else min(cell.width, cell.steps)
    rounds = min(cell.steps, 8 + 1.6 * cell.steps / width)
    return cell.samples * width * rounds


def points(cell: Cell) -> int:
    """About how many points a cell has: a ladder is left at its end or when the error is small enough.

    Args:
        cell: The cell.

    Returns:
        Their number.
    """
    most = 6 if cell.floor < 1e-3 else 5
    return sum(math.ceil(min(len(entry.ladder), most) / cell.stride) for entry in cell.entries())
