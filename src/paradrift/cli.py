"""The command line: ``paradrift sample``, ``audit``, ``bench``, ``plot``, ``plan``, ``cite``."""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import paradrift as pd
from paradrift import choices, citations, cli_audit, cli_bench, cli_pipeline, cli_plan, pipelines, plots, report
from paradrift.choices import Precision, SamplerName, SolverName
from paradrift.diffusers.settings import Settings
from paradrift.errors import ParadriftError
from paradrift.pipelines import Wish
from paradrift.pretrained import MODELS
from paradrift.solution import Solution, Status
from paradrift.solvers.method import Method

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
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            help="digits, the embedded model; or a diffusers pipeline: its folder or hub id.", rich_help_panel=WHAT
        ),
    ] = "digits",
    prompt: Annotated[str | None, typer.Option(help="What a pipeline draws, in words.", rich_help_panel=WHAT)] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What a pipeline avoids.", rich_help_panel=WHAT)] = None,
    labels: Annotated[
        str | None, typer.Option(help="Classes, such as 3,1,4,1 (the default of digits).", rich_help_panel=WHAT)
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", "-n", help="How many samples; 4 digits if no class is named.", rich_help_panel=WHAT),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance; 1: none. If not given: 2 for digits, or the pipeline's own.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Of a pipeline's pictures, in pixels.", rich_help_panel=WHAT)
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Of a pipeline's pictures, in pixels.", rich_help_panel=WHAT)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the noise.", rich_help_panel=WHAT)] = 0,
    sampler: Annotated[
        SamplerName,
        typer.Option(
            help=f"Sequential method of digits, whose answer is found: {_list(SamplerName)}.",
            metavar="NAME",
            rich_help_panel=HOW,
        ),
    ] = SamplerName.DDPM,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps of the sampler. If not given: 1000 for digits, or the pipeline's own.", rich_help_panel=HOW
        ),
    ] = None,
    solver: Annotated[
        SolverName,
        typer.Option(help=f"Parallel method of digits: {_list(SolverName)}.", metavar="NAME", rich_help_panel=HOW),
    ] = SolverName.DEFAULT,
    window: Annotated[
        str | None,
        typer.Option(
            help="Rows in flight: auto (the default), a width such as 16; of digits also whole or blocks:4.",
            rich_help_panel=HOW,
        ),
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Largest error of the samples, in units of the data's standard deviation (of a pipeline: its size, "
            "not a bound); 0.01 if not given.",
            rich_help_panel=HOW,
        ),
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(
            "--kl", help="Instead of a tolerance: a budget in nats for the law of digits.", rich_help_panel=HOW
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Digits from the sequential sampler's very law.", rich_help_panel=HOW),
    ] = False,
    certify: Annotated[
        bool,
        typer.Option("--certify", help="Say how far the law of digits is off, in nats.", rich_help_panel=HOW),
    ] = False,
    blocks: Annotated[int, typer.Option(help="Blocks of the PIADM and wavefront solvers.", rich_help_panel=HOW)] = 8,
    sweeps: Annotated[int, typer.Option(help="Sweeps per block of these.", rich_help_panel=HOW)] = 12,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=WHERE)] = "cpu",
    dtype: Annotated[
        Precision,
        typer.Option(help=f"Number format of the model: {_list(Precision)}.", metavar="NAME", rich_help_panel=WHERE),
    ] = Precision.FLOAT32,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of torch; its own choice if not given.", rich_help_panel=WHERE)
    ] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(help="Most rows (of a pipeline: calls) in one batch: a cap on memory.", rich_help_panel=WHERE),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.", rich_help_panel=OUTPUT)] = Path("out"),
    sequential: Annotated[
        bool, typer.Option(help="Run the sequential sampler too, and compare.", rich_help_panel=OUTPUT)
    ] = True,
    tensors: Annotated[
        bool,
        typer.Option(
            "--tensors", help="Write digits and their paths as samples.safetensors, for audits.", rich_help_panel=OUTPUT
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Draw samples sequentially and in parallel, and show both side by side.

    Without options: four digits from the embedded model, DDPM, 1000 steps; writes samples.png (sequential above
    parallel) and convergence.png (how the first sample converged).
    With --model and --prompt: any pipeline of diffusers, its own sampler; writes samples.png and each picture.
    """
    choices.fitting(context, model, embedded=model in MODELS)
    if model not in MODELS:
        wish = Wish(
            prompt=prompt,
            negative_prompt=negative_prompt,
            labels=None if labels is None else choices.labels(labels, number),
            number=number,
            guidance=guidance,
            steps=steps,
            height=height,
            width=width,
            seed=seed,
        )
        settings = Settings(tol=1e-2 if tol is None else tol, window=choices.calls(window), max_rows=max_rows)
        place = choices.device(device)
        choices.threads(threads)
        choices.folder(out)
        pipe = pipelines.load(model, dtype=dtype.dtype, device=place)
        code = cli_pipeline.sample(pipe, wish, settings, out=out, sequential=sequential, as_json=as_json)
        raise typer.Exit(code)
    guidance, steps = 2.0 if guidance is None else guidance, 1000 if steps is None else steps
    classes = choices.labels(labels, number)
    place = choices.device(device)
    choices.threads(threads)
    rule = choices.sampler(sampler, solver, blocks)
    asked = kl is not None or exact or tol is not None
    settle = choices.stop(tol=tol, nats=kl, exact=exact, seed=seed) if asked else None
    method = choices.solver(solver, rule, settle, span=window, blocks=blocks, sweeps=sweeps)
    choices.folder(out)
    denoiser = pd.pretrained(
        model, labels=classes, guidance=None if guidance == 1 else guidance, device=place, dtype=dtype.dtype
    )
    shape = (len(classes), 1, 28, 28)
    live, silent = Console(stderr=True), Console(quiet=True)

    def run(
        name: str,
        solver: pd.Solver | Method,
        screen: Console,
        *callbacks: report.Callback,
        keep: bool = False,
        law: bool = False,
    ) -> Solution:
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
                trajectory=keep,
                certify=law,
            )

    runs: list[report.Run] = []
    few = dataclasses.replace(pd.sequential(), max_rounds=3)
    run("warm-up", few, silent)  # the first call of a process pays for torch's own set-up
    if sequential:
        reference = run("sequential", pd.sequential(), live)
        if Status.INTERRUPTED in reference.status:
            raise typer.Abort
        runs.append(report.Run(name="sequential", solution=reference))
    trace = report.Trace()
    answer = run("parallel", method, live, trace, keep=tensors, law=certify)
    gap = report.distance(answer.samples, runs[0].solution.samples, denoiser.variance) if runs else None
    runs.append(report.Run(name="parallel", solution=answer, distance=gap))

    plots.samples(out / "samples.png", runs, classes)
    plots.convergence(out / "convergence.png", trace, f"{sampler.value}, {steps} steps, {solver.value} solver")
    if tensors:
        drawn = dict(name=model, labels=classes, guidance=None if guidance == 1 else guidance, dtype=dtype.value)
        report.written(answer, drawn, out / "samples.safetensors")
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


app.command()(cli_audit.audit)
app.command()(cli_bench.bench)
app.command()(cli_bench.plot)
app.command()(cli_plan.plan)


@app.command()
def cite() -> None:
    """Print the sources of the methods as BibTeX."""
    print(citations.SOURCES)


if __name__ == "__main__":
    sys.exit(main())
