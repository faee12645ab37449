"""``paradrift bench`` and ``paradrift plot``: measurements, and pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from paradrift import choices
from paradrift.errors import SpecError

PANEL = "Of compare alone; each may be given several times"


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run; all if none is named.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the JSON lines.")] = Path("benchmarks/results"),
    quick: Annotated[bool, typer.Option("--quick", help="Few samples: a check that all of it runs.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what the file holds (theory, compare, students).")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the benchmarks and stop.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much would be measured (compare only).")] = False,
    model: Annotated[list[str] | None, typer.Option(help="A model.", rich_help_panel=PANEL)] = None,
    method: Annotated[list[str] | None, typer.Option(help="A method.", rich_help_panel=PANEL)] = None,
    kind: Annotated[list[str] | None, typer.Option(help="ode or sde.", rich_help_panel=PANEL)] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Number of steps.", rich_help_panel=PANEL)] = None,
    width: Annotated[
        list[str] | None, typer.Option(help="Rows of a sample in a round, or whole.", rich_help_panel=PANEL)
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Samples of each point.", rich_help_panel=PANEL)] = None,
    part: Annotated[list[str] | None, typer.Option(help="curves or seconds.", rich_help_panel=PANEL)] = None,
) -> None:
    """Run benchmarks; each adds its JSON lines, with machine, versions and git hash, to a file of its own."""
    from paradrift.bench import compare_command, records, suites

    console = Console()
    if listing:
        for name, suite in suites.SUITES.items():
            console.print(f"[bold]{name}[/bold]  {(suite.__doc__ or '').splitlines()[0]}")
        return
    wanted = compare_command.wanted(model, method, kind, steps, width, samples, part)
    chosen = names or list(suites.SUITES)
    for name in chosen:
        if name not in suites.SUITES:
            raise SpecError(f"expected a benchmark of {', '.join(suites.SUITES)}, found {name!r}")
    if (dry_run or wanted != compare_command.ALL) and chosen != ["compare"]:
        raise SpecError("expected the benchmark compare alone with --dry-run and filters, found others: name it")
    choices.folder(out)
    for name in chosen:
        console.print(f"[bold]{name}[/bold]")
        path = out / f"{name}.jsonl"
        if name == "compare":
            for text in compare_command.lines(path, wanted, quick=quick, resume=resume, dry_run=dry_run):
                console.print(f"  {text}", highlight=False, soft_wrap=True)
            continue
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
    """Draw measurements: rounds against error, error against tolerance, the theory study, and the comparison."""
    from paradrift.bench import compare_plots, compare_words, records, theory_plots, theory_words
    from paradrift.bench import plots as pictures

    found = [record for file in files for record in records.load(file)]
    choices.folder(out)
    comparison = [record for record in found if record.extra.get("part") in ("compare", "seconds")]
    for path in compare_plots.draw(out, comparison):
        print(path)
    if comparison:
        print(compare_words.tables(comparison))
        found = [record for record in found if record.extra.get("part") not in ("compare", "seconds")]
    study = [record for record in found if "part" in record.extra]
    for path in theory_plots.draw(out, study):
        print(path)
    if study:
        print(theory_words.tables(study))
        found = [record for record in found if "part" not in record.extra]
    if (study or comparison) and not found:
        return
    pictures.rounds(out / "rounds.png", found)
    print(out / "rounds.png")
    if any(record.tol and record.error_worst is not None for record in found):
        pictures.calibration(out / "calibration.png", found)
        print(out / "calibration.png")
