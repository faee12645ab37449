"""The comparison in pictures, drawn from records alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paradrift.bench.compare_selection import floor
from paradrift.bench.equal_error import Place, curves, latest, needs, ours, place, profile
from paradrift.bench.methods import CATALOGUE
from paradrift.bench.records import Record

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN = ("#d55e00", "#000000", "#8c2d04")  # the library's own: strong, and drawn thick
RIVALS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")  # safe for colour blindness
DASHES = ("-", "--", ":")
MARKS = ("s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d")
PANELS = 6  # in one picture
LEAST = 1e-6  # where smaller errors are drawn
FACTORS = tuple(np.geomspace(1, 16, 200).tolist())

Style = dict[str, object]


def styles(names: Sequence[str], own: frozenset[str]) -> dict[str, Style]:
    """How each method is drawn, the same in all pictures: by its place in the catalogue.

    Args:
        names: Methods.
        own: Those of the library.

    Returns:
        Keywords of a line by method.
    """
    order = {entry.name: index for index, entry in enumerate(CATALOGUE)}
    found: dict[str, Style] = {}
    rivals = [name for name in order if name not in own]
    theirs = [*rivals, *sorted(set(names) - own - set(rivals))]
    for index, name in enumerate(sorted(own, key=lambda name: order.get(name, 99))):
        colour = OWN[index % len(OWN)]
        found[name] = dict(color=colour, marker="o", markersize=5, linewidth=2.6, zorder=5, linestyle=DASHES[index % 3])
    for index, name in enumerate(theirs):
        if name not in names:
            continue
        dash = DASHES[index // len(RIVALS) % len(DASHES)]
        look = dict(color=RIVALS[index % len(RIVALS)], marker=MARKS[index % len(MARKS)], linestyle=dash)
        found[name] = dict(**look, markersize=4, linewidth=1.2, zorder=3)
    return found


def draw(folder: Path, records: Sequence[Record]) -> list[Path]:
    """Draw whatever the records hold of a comparison.

    Args:
        folder: Where the pictures go.
        records: Measurements, of a comparison or not.

    Returns:
        The files that were written.
    """
    found = [record for record in latest(records, "compare") if record.error_median is not None]
    paths: list[Path] = []
    for kind in ("ode", "sde"):
        shown = pages(places([record for record in found if record.extra["kind"] == kind]))
        for number, page in shown.items():
            for name, points, value, label in (
                ("rounds", found, _rounds, "rounds of a sample, mean"),
                ("seconds", rungs(found), _seconds, "seconds of the call, for each sample"),
            ):
                path = folder / f"compare-{name}-{kind}{number}.png"
                _curves(path, points, page, value, label)
                paths.append(path)
    if found:
        _profiles(folder / "compare-profile.png", found)
        paths.append(folder / "compare-profile.png")
    return paths


def rungs(records: Sequence[Record]) -> list[Record]:
    """Measurements at knobs of a method's own ladder, not between them, where flips are looked for.

    Those were made at other times than the ladder, which rounds do not feel and seconds do.

    Args:
        records: Measurements of the comparison.

    Returns:
        Some of them; all of methods that are not in the catalogue.
    """
    ladders = {entry.name: entry.ladder for entry in CATALOGUE}
    return [record for record in records if record.extra["knob"] in ladders.get(record.method, (record.extra["knob"],))]


def pages(shown: Sequence[Place]) -> dict[str, Sequence[Place]]:
    """Places cut into pictures of a few panels.

    Args:
        shown: The places.

    Returns:
        Those of each picture by the end of its name: nothing, "-2", "-3" and so on.
    """
    first = range(0, len(shown), PANELS)
    return {f"-{i // PANELS + 1}" if i else "": shown[i : i + PANELS] for i in first}


def places(records: Sequence[Record]) -> list[Place]:
    """The places to show: for each model the one that most methods were measured in, of those the earliest.

    Args:
        records: Measurements of one kind of sampler.

    Returns:
        One place for each model.
    """
    methods: dict[Place, set[str]] = {}
    for record in records:
        methods.setdefault(place(record), set()).add(record.method)
    shown: dict[str, Place] = {}
    for where in methods:
        if where.model not in shown or len(methods[where]) > len(methods[shown[where.model]]) + 2:
            shown[where.model] = where
    return list(shown.values())


def _rounds(record: Record) -> float:
    return record.rounds_mean


def _seconds(record: Record) -> float:
    return record.seconds / record.samples


def title(where: Place) -> str:
    """A place in words.

    Args:
        where: The place.

    Returns:
        Model, kind, steps and rows.
    """
    rows = "the whole chain at once" if where.width == "whole" else f"{where.width} rows a round"
    return f"{where.model}, {where.kind.upper()}, {where.steps} steps, {rows}"


def _curves(
    path: Path, records: Sequence[Record], shown: Sequence[Place], value: Callable[[Record], float], label: str
) -> None:
    from matplotlib.figure import Figure as Picture

    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    figure = Picture(figsize=(0.8 + 4.1 * columns, 1.3 + 3.2 * lines), dpi=120, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    looks = styles(sorted({record.method for record in records}), ours(records))
    handles: dict[str, Artist] = {}
    for axes, where in zip(panels.flat, shown, strict=False):
        own = [record for record in records if place(record) == where]
        for name, look in looks.items():
            points = sorted(
                (max(float(record.error_median or 0), LEAST), value(record)) for record in own if record.method == name
            )
            if points:
                axes.plot(*zip(*points, strict=True), label=name, **look)
        _sequential(axes, own, value, where)
        axes.set_xscale("log")
        _plain(axes, "y")
        axes.set_xlim(LEAST / 2, 3)
        axes.set_title(title(where), fontsize=9)
        axes.set_xlabel("error of the answer, median", fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        found, names = axes.get_legend_handles_labels()
        handles.update(zip(names, found, strict=True))
    for axes in panels.flat[len(shown) :]:
        axes.axis("off")
    _legend(figure, handles)
    _save(figure, path)


def _sequential(axes: Axes, own: Sequence[Record], value: Callable[[Record], float], where: Place) -> None:
    """A line for the sequential sampler, which has no error."""
    level = float(where.nodes)
    if value is _seconds:
        level = min((record.sequential_seconds or np.inf) / record.samples for record in own)
    axes.axhline(level, color="0.3", linewidth=1.2, linestyle="-.", label="sequential", zorder=2)


def _plain(axes: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    scale, axis = (axes.set_yscale, axes.yaxis) if which == "y" else (axes.set_xscale, axes.xaxis)
    scale("log")
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 3, 5)))
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axis.set_minor_formatter(NullFormatter())


def _profiles(path: Path, records: Sequence[Record]) -> None:
    """Shares of (problem, width, error) within a factor of the best, ODE and SDE."""
    from matplotlib.figure import Figure as Picture

    figure = Picture(figsize=(10.4, 5.0), dpi=120, layout="constrained")
    own, found = ours(records), curves(records)
    looks = styles(sorted({record.method for record in records}), own)
    handles: dict[str, Artist] = {}
    for axes, kind in zip(figure.subplots(1, 2, sharey=True), ("ode", "sde"), strict=True):
        table: Mapping[tuple[Place, float], Mapping[str, float]] = {
            spot: row for spot, row in needs(found, floor=floor).items() if spot[0].kind == kind
        }
        for name, look in looks.items():
            fitting = [spot for spot, row in table.items() if name in row]
            if fitting:
                line = {k: v for k, v in look.items() if k not in ("marker", "markersize")}
                axes.plot(FACTORS, profile(table, name, FACTORS), label=name, **line)
        axes.plot(FACTORS, profile(table, "sequential", FACTORS), color="0.3", linestyle="-.", label="sequential")
        _plain(axes, "x")
        axes.set_xlim(1, FACTORS[-1])
        axes.set_ylim(-0.02, 1.02)
        axes.set_title(f"{kind.upper()}, {len(table)} in all", fontsize=10)
        axes.set_xlabel("at most so many times the rounds of the best method", fontsize=9)
        axes.grid(alpha=0.3)
        found_handles, names = axes.get_legend_handles_labels()
        handles.update(zip(names, found_handles, strict=True))
        if kind == "ode":
            axes.set_ylabel("share of problems, widths and errors", fontsize=9)
    _legend(figure, handles)
    _save(figure, path)


def _legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=6, fontsize=8, handlelength=3.5
    )


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
