"""What is compared: cells of the product (model, sampler, steps, width, method), the most telling first.

The whole product would take days on two cores. The default selection asks every model at 50 steps of its ODE and 250 of
its SDE, then the others between 10 and 1000 steps; models whose calls are expensive are asked fewer methods, every
second knob, and errors down to 1e-3 only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from paradrift.bench.compare import KINDS, named
from paradrift.bench.methods import CATALOGUE, Entry
from paradrift.errors import SpecError

SAMPLES = 64
FLOOR = 1e-4  # the smallest error that is compared
HEAVY = frozenset({"mixture-1024", "digits", "digits-guided"})  # a row costs a millisecond or so
STRONGEST = ("ParaDiGMS", "ParaTAA", "Picard", "SRDS", "CHORDS")


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
    plan: list[tuple[str, int, int | None]] = [("ode", 50, 16), ("sde", 250, 64), ("ode", 50, None)]
    plan += [("ode", 50, 8), ("sde", 50, 16), ("ode", 25, 16), ("sde", 100, 16), ("ode", 100, None), ("ode", 10, None)]
    plan += [("sde", 25, None), ("ode", 250, 64), ("sde", 10, None), ("ode", 1000, 64), ("sde", 1000, 64)]
    cells: list[Cell] = []
    for rank, (kind, steps, width) in enumerate(plan):
        for name in models:
            if name not in HEAVY:
                cells.append(Cell(model=name, kind=kind, steps=steps, width=width, stride=1 if steps <= 100 else 2))
            elif rank < 2:
                small = min(width or 16, 16)
                methods = ("default", *STRONGEST) if kind == "ode" else ("default", *STRONGEST[:2], "SRDS")
                cells.append(
                    Cell(model=name, kind=kind, steps=steps, width=small, methods=methods, stride=2, floor=1e-3)
                )
    few = ("default", "ParaDiGMS")
    cells.append(Cell(model="digits", kind="sde", steps=1000, width=32, methods=few, stride=2, floor=1e-2))
    return [cell for cell in cells if cell.model in models]


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
