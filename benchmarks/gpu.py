"""What a GPU gains, in ten minutes: trained networks raced, large ones measured, their speed-ups predicted.

    python benchmarks/gpu.py --resume

Writes JSON lines, one for each measurement, to benchmarks/results/gpu.jsonl; docs/comparison.md says what they hold.
Parts come in the order of what matters; what the time does not reach is skipped with a sentence, and ``--resume`` goes
on there. ``--tiny`` checks on any machine, in seconds, that all of it runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from paradrift.bench import gpu_predict, gpu_race, gpu_rounds, gpu_sized, jobs, model_set, records
from paradrift.bench.gpu_sized import Bench, Sized
from paradrift.bench.gpu_trained import Trained
from paradrift.bench.jobs import Clock, Job
from paradrift.bench.models import Model
from paradrift.bench.networks.kept import Recipe
from paradrift.bench.records import Record
from paradrift.bench.ways import Way

NAMES = ("digits", "digits-guided", "graph", "policy")
COMPILING = 40.0  # seconds that compiling a trained network may take


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Args:
        models: The trained networks.
        chains: Steps of each kind of sampler; a second number for the policy.
        widths: Windows whose rounds are counted, by kind.
        seeds: Seeds of each race.
        unet: The U-Net.
        dit: The transformer.
        rows: Rows of their calls.
    """

    models: tuple[Model, ...]
    chains: dict[str, tuple[int, int]]
    widths: dict[str, tuple[int, ...]]
    seeds: int
    unet: Sized
    dit: Sized
    rows: tuple[int, ...]


def full() -> Size:
    """What is measured on a GPU."""
    known = {model.name: model for model in model_set.model_set()}
    return Size(
        models=tuple(known[name] for name in NAMES),
        chains={"ode": (50, 50), "sde": (1000, 100)},
        widths={"ode": (4, 8, 12, 16, 24, 32, 50), "sde": (4, 8, 16, 32, 64, 128)},
        seeds=3,
        unet=gpu_sized.UNET,
        dit=gpu_sized.DIT,
        rows=gpu_sized.ROWS,
    )


def tiny() -> Size:
    """A check that all of it runs: few steps, networks that have hardly been trained or are small."""
    brief = Recipe(steps=2, batch=4, rate=1e-3)
    return Size(
        models=(model_set.digits(), model_set.digits(2.0), model_set.graph(brief), model_set.policy(brief)),
        chains={"ode": (4, 4), "sde": (6, 5)},
        widths={"ode": (4,), "sde": (3,)},
        seeds=1,
        unet=gpu_sized.TINY_UNET,
        dit=gpu_sized.TINY_DIT,
        rows=(1, 2, 4),
    )


def plan(size: Size, device: torch.device) -> Iterator[Job]:
    """All measurements, those that matter most first.

    Args:
        size: How much.
        device: Where.

    Yields:
        Jobs.
    """
    gpu = device.type == "cuda"
    nets, bench = [Trained(model=model, device=device) for model in size.models], Bench(device)
    large, half = (size.unet, size.dit), torch.bfloat16
    yield from races(size, nets, (Way.EAGER, Way.GRAPHS) if gpu else (Way.EAGER,))
    yield from rounds(size, nets, Way.GRAPHS if gpu else Way.EAGER)
    for sized in large:
        for way in (Way.EAGER, Way.GRAPHS) if gpu else (Way.EAGER,):
            yield from gpu_sized.curve(bench, sized, half, way, size.rows)
    if gpu:
        yield from races(size, nets, (Way.GRAPHS, Way.BOTH), COMPILING)
        for sized in reversed(large):  # the one that compiles faster first
            for way in (Way.COMPILED, Way.BOTH):
                yield from gpu_sized.curve(bench, sized, half, way, size.rows)
    for dtype in (torch.float16, torch.float32):
        for sized in large:
            yield from gpu_sized.curve(bench, sized, dtype, Way.EAGER, size.rows)


def races(size: Size, nets: list[Trained], ways: tuple[Way, ...], needs: float = 5.0) -> Iterator[Job]:
    """The trained networks against the plain loop.

    Args:
        size: How much.
        nets: The networks.
        ways: Ways to run them.
        needs: Seconds that one may take.

    Yields:
        Jobs.
    """
    words = " and ".join(way.value for way in ways)
    for net in nets:
        for kind, steps in chains(size, net):
            yield Job(
                key=f"race/{net.model.name}/{kind}/{steps}/{words}",
                part="race",
                problem=net.model.name,
                method=f"{kind} {steps}, {words}",
                steps=steps,
                samples=1,
                run=functools.partial(gpu_race.race, net, kind, steps, ways, size.seeds),
                needs=needs,
            )


def rounds(size: Size, nets: list[Trained], way: Way) -> Iterator[Job]:
    """The rounds of the trained networks in windows of many widths.

    Args:
        size: How much.
        nets: The networks.
        way: The way to run them.

    Yields:
        Jobs.
    """
    for net in nets:
        for kind, steps in chains(size, net):
            for width in size.widths[kind]:
                yield Job(
                    key=f"rounds/{net.model.name}/{kind}/{steps}/{width}",
                    part="rounds",
                    problem=net.model.name,
                    method=f"{kind} {steps}, window {width}",
                    steps=steps,
                    samples=1,
                    run=functools.partial(gpu_rounds.rounds, net, kind, steps, width, way, min(2, size.seeds)),
                    needs=2.0,
                )


def chains(size: Size, net: Trained) -> Iterator[tuple[str, int]]:
    """The samplers and steps of a network.

    Args:
        size: How much.
        net: The network.

    Yields:
        Kind and number of steps.
    """
    for kind, steps in size.chains.items():
        yield kind, steps[net.model.name == "policy"]


def told(record: Record) -> str:
    """A record in one line.

    Args:
        record: What was measured.

    Returns:
        The words.
    """
    extra = record.extra
    if "failed" in extra:
        return f"{record.problem}, {record.method}: {extra['failed']}"
    if extra["part"] == "cost":
        memory = f", {float(extra['memory']) / 2**30:.1f} GiB" if extra["memory"] else ""
        return f"{record.problem}, {record.method}, {record.samples} rows: {1e3 * record.seconds:.2f} ms{memory}"
    if extra["part"] == "predicted":
        return (
            f"{record.problem}, {record.method}, rounds of {extra['rounds_of']} {extra['kind']} {record.steps}: window "
            f"{record.window}, ceiling {extra['ceiling']:.2f}, speed-up {extra['speedup']:.2f}"
        )
    gain = f", {extra['speedup']:.2f} times as fast as {extra['sequential_way']}" if "speedup" in extra else ""
    return f"{records.line(record)}{gain}"


def main(
    minutes: Annotated[float, typer.Option(help="When to begin nothing new.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="File of JSON lines; out/gpu.jsonl with --tiny.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out what the file holds from this machine.")] = False,
    is_tiny: Annotated[bool, typer.Option("--tiny", help="A check that all of it runs, on a CPU too.")] = False,
) -> None:
    """Measure on a GPU."""
    clock, device = Clock(60 * minutes), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        if not is_tiny:
            raise typer.BadParameter("expected a GPU, found none: check that all of it runs with --tiny")
        typer.echo("CUDA graphs and compiled networks are left out: they need a GPU")
    torch.backends.cudnn.benchmark = True  # the fastest convolutions for each shape
    path = out or Path("out/gpu.jsonl" if is_tiny else "benchmarks/results/gpu.jsonl")
    size, found = tiny() if is_tiny else full(), jobs.here(path) if resume else []
    for event in jobs.work(plan(size, device), found, clock):
        if isinstance(event, str):
            typer.echo(event)
            continue
        records.append(path, event)
        found.append(event)
        typer.echo(told(event))
    for record in gpu_predict.predictions(found):
        records.append(path, record)
        found.append(record)
    for record in gpu_predict.best(found):
        typer.echo(told(record))
    for sentence in gpu_predict.aims(found, size.unet.name):
        typer.echo(sentence)


if __name__ == "__main__":
    typer.run(main)
