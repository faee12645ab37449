"""``paradrift bench compare``: what was asked for on the command line, and a line for everything that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from paradrift.bench import compare_run, records
from paradrift.bench.compare_selection import Filter, chosen, points, quick_cells, usual_cells
from paradrift.errors import SpecError


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was asked for.

    Args:
        cells: Which cells.
        parts: "curves", "seconds" or both.
    """

    cells: Filter
    parts: tuple[str, ...] = compare_run.PARTS


ALL = Wanted(cells=Filter())


def wanted(
    models: Sequence[str] | None,
    methods: Sequence[str] | None,
    kinds: Sequence[str] | None,
    steps: Sequence[int] | None,
    widths: Sequence[str] | None,
    samples: int | None,
    parts: Sequence[str] | None,
) -> Wanted:
    """Read the options.

    Args:
        models: Names of models, or nothing.
        methods: Names of methods, or nothing.
        kinds: "ode", "sde", or nothing.
        steps: Numbers of steps, or nothing.
        widths: Numbers of rows and "whole", or nothing.
        samples: Number of samples.
        parts: "curves", "seconds", or nothing.

    Returns:
        What was asked for.

    Raises:
        SpecError: if a width is no number, a number is below 1, or a part is unknown.
    """
    rows: list[int | None] = []
    for text in widths or ():
        if text != "whole" and not (text.isdigit() and int(text)):
            raise SpecError(f'expected a width of at least 1 or "whole", found {text!r}')
        rows.append(None if text == "whole" else int(text))
    if min([samples or 1, *(steps or ())], default=1) < 1 or samples == 0:
        raise SpecError(f"expected samples and steps of at least 1, found {samples} and {steps}")
    unknown = set(parts or ()) - set(compare_run.PARTS)
    if unknown:
        raise SpecError(f"expected parts among {', '.join(compare_run.PARTS)}, found {sorted(unknown)[0]!r}")
    found = Filter(
        models=tuple(models) if models else None,
        methods=tuple(methods) if methods else None,
        kinds=tuple(kinds) if kinds else None,
        steps=tuple(steps) if steps else None,
        widths=tuple(rows) if rows else None,
        samples=samples,
    )
    return Wanted(cells=found, parts=tuple(parts) if parts else compare_run.PARTS)


def lines(path: Path, asked: Wanted, *, quick: bool, resume: bool, dry_run: bool) -> Iterator[str]:
    """Measure, write each measurement to the file, and say so.

    Args:
        path: File of JSON lines.
        asked: What was asked for.
        quick: The small selection.
        resume: Leave out what the file holds.
        dry_run: Say how much it would be, and stop.

    Yields:
        One line for each measurement, with what is left.
    """
    models = compare_run.everything()
    names = tuple(models)
    cells = chosen(quick_cells(names) if quick else usual_cells(names), asked.cells, names)
    if dry_run:
        for cell in cells:
            about = compare_run.weight(cell, models)
            yield f"{cell.words()}: about {points(cell)} points, {about:.0f} s"
        total = sum(compare_run.weight(cell, models) for cell in cells)
        yield f"{len(cells)} cells, about {sum(map(points, cells))} points, {total / 60:.0f} minutes on this machine"
        return
    done = records.load(path) if resume and path.is_file() else []
    for step in compare_run.run(cells, models, done, asked.parts):
        records.append(path, step.record)
        left = "" if step.left is None else f", about {step.left / 60:.0f} min left after it"
        yield f"[{step.done} of {step.total}{left}] {step.record.window}: {records.line(step.record)}"
