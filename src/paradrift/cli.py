"""The command line: ``paradrift sample``, ``bench``, ``plot``, ``cite``."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

import paradrift as pd
from paradrift import choices, citations, plots, report
from paradrift.choices import Precision, SamplerName, SolverName
from paradrift.errors import ParadriftError, SpecError
from paradrift.solution import Solution, Status

WHAT, HOW, WHERE, OUTPUT = "What to draw", "How to draw it", "Where it runs", "What is written"


def _list(names: type[enum.StrEnum]) -> str:
    return ", ".join(names)


app = typer.Typer(
    help="Parallel-in-time sampling from diffusion and flow models: the sequential answer, in fewer rounds.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; bad input gives one sentence and exit code 2.

    Args:
        arguments: Words after the program's name; None: those of the process.

    Returns:
        Exit code: 0 done, 1 a sample did not converge, 2 bad input, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(args=words, prog_name="paradrift", standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        return _complain(message)
    except ParadriftError as error:
        return _complain(str(error))
    return code if isinstance(code, int) else 0


def _complain(message: str) -> int:
    sentence = " ".join(message.split()).replace("Value error, ", "")
    if sentence:  # empty when the words were none at all and the help is on the screen
        print(f"paradrift: {sentence}", file=sys.stderr)
    return 2


def _version(wanted: bool) -> None:
    if wanted:
        print(f"paradrift {metadata.version('paradrift')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Parallel-in-time sampling from diffusion and flow models: the sequential answer, in fewer rounds."""


@app.command()
def sample(
    model: Annotated[str, typer.Option(help="Embedded model.", rich_help_panel=WHAT)] = "digits",
    labels: Annotated[
        str | None, typer.Option(help="Classes, such as 3,1,4,1 (the default).", rich_help_panel=WHAT)
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", help="How many samples; 4 if no class is named.", rich_help_panel=WHAT),
    ] = None,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1: none.", rich_help_panel=WHAT)] = 2.0,
    seed: Annotated[int, typer.Option(help="Seed of the noise.", rich_help_panel=WHAT)] = 0,
    sampler: Annotated[
        SamplerName,
        typer.Option(
            help=f"Sequential method, whose answer is found: {_list(SamplerName)}.", metavar="NAME", rich_help_panel=HOW
        ),
    ] = SamplerName.DDPM,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.", rich_help_panel=HOW)] = 1000,
    solver: Annotated[
        SolverName, typer.Option(help=f"Parallel method: {_list(SolverName)}.", metavar="NAME", rich_help_panel=HOW)
    ] = SolverName.DEFAULT,
    window: Annotated[
        str | None,
        typer.Option(
            help="Rows in flight: auto (the default), whole, a width such as 16, or blocks:4.", rich_help_panel=HOW
        ),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Largest error of the samples, in units of the data's standard deviation; 0.01 if not given.",
            rich_help_panel=HOW,
        ),
    ] = None,
    blocks: Annotated[int, typer.Option(help="Blocks of the PIADM solvers.", rich_help_panel=HOW)] = 8,
    sweeps: Annotated[int, typer.Option(help="Sweeps per block of the PIADM solvers.", rich_help_panel=HOW)] = 12,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=WHERE)] = "cpu",
    dtype: Annotated[
        Precision,
        typer.Option(help=f"Number format of the model: {_list(Precision)}.", metavar="NAME", rich_help_panel=WHERE),
    ] = Precision.FLOAT32,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of torch; its own choice if not given.", rich_help_panel=WHERE)
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(help="Most rows in one model call: a cap on memory.", rich_help_panel=WHERE)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.", rich_help_panel=OUTPUT)] = Path("out"),
    sequential: Annotated[
        bool, typer.Option(help="Run the sequential sampler too, and compare.", rich_help_panel=OUTPUT)
    ] = True,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Write the solution as samples.safetensors too.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Draw samples sequentially and in parallel, and show both side by side.

    Without options: four digits from the embedded model, DDPM, 1000 steps.
    Writes samples.png (sequential above parallel) and convergence.png (how the first sample converged).
    """
    classes = choices.labels(labels, number)
    place = choices.device(device)
    if threads is not None:
        if threads < 1:
            raise SpecError(f"expected at least 1 thread, found --threads {threads}")
        torch.set_num_threads(threads)
    method = choices.solver(solver, span=window, tol=tol, blocks=blocks, sweeps=sweeps)
    _folder(out)
    denoiser = pd.pretrained(
        model, labels=classes, guidance=None if guidance == 1 else guidance, device=place, dtype=dtype.dtype
    )
    rule = choices.sampler(sampler)
    shape = (len(classes), 1, 28, 28)
    live, silent = Console(stderr=True), Console(quiet=True)

    def run(name: str, solver: pd.Solver, steps: int, screen: Console, *callbacks: report.Callback) -> Solution:
        with report.progress(screen, name, *callbacks) as callback:
            return pd.sample(
                denoiser,
                shape=shape,
                sampler=rule,
                steps=steps,
                seed=seed,
                solver=solver,
                max_rows=max_rows,
                dtype=dtype.states,
                device=place,
                callback=callback,
            )

    runs: list[report.Run] = []
    run("warm-up", pd.sequential(), min(steps, 3), silent)  # the first call of a process pays for torch's own set-up
    if sequential:
        reference = run("sequential", pd.sequential(), steps, live)
        if Status.INTERRUPTED in reference.status:
            raise typer.Abort
        runs.append(report.Run(name="sequential", solution=reference))
    trace = report.Trace()
    answer = run("parallel", method, steps, live, trace)
    gap = report.distance(answer.samples, runs[0].solution.samples, denoiser.variance) if runs else None
    runs.append(report.Run(name="parallel", solution=answer, distance=gap))

    plots.samples(out / "samples.png", runs, classes)
    plots.convergence(out / "convergence.png", trace, f"{sampler.value}, {steps} steps, {solver.value} solver")
    if tensors:
        answer.save(out / "samples.safetensors")
    if as_json:
        print(
            json.dumps(
                report.plain(runs, {"sampler": sampler.value, "steps": steps, "seed": seed, "solver": repr(method)})
            )
        )
    else:
        screen = Console()
        screen.print(report.table(runs))
        screen.print(report.verdict(runs[0].solution if sequential else None, answer))
        screen.print(f"Pictures: {out / 'samples.png'}, {out / 'convergence.png'}", soft_wrap=True)
    if not answer.converged:
        interrupted = Status.INTERRUPTED in answer.status
        raise typer.Exit(130 if interrupted else 1)


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run; all if none is named.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the JSON lines.")] = Path("benchmarks/results"),
    quick: Annotated[bool, typer.Option("--quick", help="Few samples: a check that all of it runs.")] = False,
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
    _folder(out)
    for name in chosen:
        console.print(f"[bold]{name}[/bold]")
        for record in suites.SUITES[name](quick):
            records.append(out / f"{name}.jsonl", record)
            console.print(f"  {records.line(record)}", highlight=False, soft_wrap=True)


@app.command()
def plot(
    files: Annotated[list[Path], typer.Argument(help="Files of JSON lines that `bench` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out"),
) -> None:
    """Draw measurements: rounds against error, and the error against the tolerance asked for."""
    from paradrift.bench import plots as pictures
    from paradrift.bench import records

    found = [record for file in files for record in records.load(file)]
    _folder(out)
    pictures.rounds(out / "rounds.png", found)
    print(out / "rounds.png")
    if any(record.tol and record.error_worst is not None for record in found):
        pictures.calibration(out / "calibration.png", found)
        print(out / "calibration.png")


@app.command()
def cite() -> None:
    """Print the sources of the methods as BibTeX."""
    print(citations.SOURCES)


def _folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"expected a folder that can be written at {path}, found: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
