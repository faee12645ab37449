"""``paradrift bench`` and ``paradrift plot``: measurements, and pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from paradrift import choices
from paradrift.errors import SpecError


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run; all if none is named.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the JSON lines.")] = Path("benchmarks/results"),
    quick: Annotated[bool, typer.Option("--quick", help="Few samples: a check that all of it runs.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what the file holds (theory only).")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the benchmarks and stop.")] = False,
) -> None:
    """Run benchmarks; each adds its JSON lines, with machine, versions and git hash, to a file of its own."""
    from paradrift.bench import records, suites

    console = Console()
    if listing:
        for name, suite in suites.SUITES.items():
            console.print(f"[bold]{name}[/bold]  {(suite.__doc__ or '').splitlines()[0]}")
        return
    chosen = names or list(suites.SUITES)
    for name in chosen:
        if name not in suites.SUITES:
            raise SpecError(f"expected a benchmark of {', '.join(suites.SUITES)}, found {name!r}")
    choices.folder(out)
    for name in chosen:
        console.print(f"[bold]{name}[/bold]")
        path = out / f"{name}.jsonl"
        if resume and name in suites.POINTS and path.is_file():
            done = {record.extra.get("key") for record in records.load(path)}
            measured = (records.measured(point) for point in suites.POINTS[name](quick) if point[0] not in done)
        else:
            measured = suites.SUITES[name](quick)
        for record in measured:
            records.append(path, record)
            console.print(f"  {records.line(record)}", highlight=False, soft_wrap=True)


def plot(
    files: Annotated[list[Path], typer.Argument(help="Files of JSON lines that `bench` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out"),
) -> None:
    """Draw measurements: rounds against error, the error against the tolerance asked for, and the theory study."""
    from paradrift.bench import plots as pictures
    from paradrift.bench import records, theory_plots, theory_words

    found = [record for file in files for record in records.load(file)]
    choices.folder(out)
    study = [record for record in found if "part" in record.extra]
    for path in theory_plots.draw(out, study):
        print(path)
    if study:
        print(theory_words.tables(study))
        found = [record for record in found if "part" not in record.extra]
        if not found:
            return
    pictures.rounds(out / "rounds.png", found)
    print(out / "rounds.png")
    if any(record.tol and record.error_worst is not None for record in found):
        pictures.calibration(out / "calibration.png", found)
        print(out / "calibration.png")
