"""Pictures of measurements, drawn from records alone: nothing is run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paradrift.bench.records import Record
from paradrift.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # safe for colour blindness
MARKS = ("o", "s", "^", "D", "v", "P", "X")

EXACT = 1e-8  # where an error of zero is drawn on a logarithmic axis


def rounds(path: Path, records: Sequence[Record]) -> None:
    """Draw rounds against the final error, one panel per problem, one line per method: lower left is better.

    Args:
        path: PNG file to write.
        records: Measurements; those without a measured error are left out.

    Raises:
        SpecError: if no record has a measured error.
    """

    def draw(axes: Axes, group: Sequence[Record], colour: str, mark: str, name: str) -> None:
        points = sorted((max(record.error_median or 0.0, EXACT), record.rounds_mean) for record in group)
        axes.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=5, linewidth=1.4, label=name)

    usable = [record for record in records if record.error_median is not None]
    _panels(path, usable, draw, "error of the final sample, median", "rounds a sample, mean")


def calibration(path: Path, records: Sequence[Record]) -> None:
    """Draw the error found against the tolerance asked for: median solid, worst dashed, the promise shaded.

    Args:
        path: PNG file to write.
        records: Measurements; those without tolerance or measured error are left out.

    Raises:
        SpecError: if no record has both a tolerance and a measured error.
    """

    def draw(axes: Axes, group: Sequence[Record], colour: str, mark: str, name: str) -> None:
        ordered = sorted(group, key=lambda record: record.tol or 0.0)
        tols, median, worst = np.array([[r.tol, r.error_median, r.error_worst] for r in ordered], np.float64).T
        median, worst = np.maximum(median, EXACT), np.maximum(worst, EXACT)
        style = {"color": colour, "marker": mark, "markersize": 5, "linewidth": 1.4}
        axes.plot(tols, median, label=f"{name}, median", **style)
        axes.plot(tols, worst, label=f"{name}, worst", linestyle="--", markerfacecolor="white", **style)

    usable = [
        record
        for record in records
        if record.tol and record.error_median is not None and record.error_worst is not None
    ]

    def promise(axes: Axes) -> None:
        ends = np.array(sorted({record.tol for record in usable if record.tol}))
        ends = ends if len(ends) > 1 else np.array([ends[0] / 2, ends[0] * 2])
        axes.plot(ends, ends, color="0.35", linewidth=1, label="error = tol")
        axes.fill_between(ends, ends, 3 * ends, color="0.85", label="up to 3 tol", zorder=0)

    _panels(path, usable, draw, "tolerance asked for, tol", "error of the final sample", promise, log_y=True)


def _panels(
    path: Path,
    records: Sequence[Record],
    draw: Callable[[Axes, Sequence[Record], str, str, str], None],
    across: str,
    up: str,
    under: Callable[[Axes], None] | None = None,
    log_y: bool = False,
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not records:
        raise SpecError("expected records with a measured error (and a tol for calibration), found none")
    problems = list(dict.fromkeys((record.problem, record.sampler, record.steps) for record in records))
    methods = list(dict.fromkeys(record.method for record in records))
    columns = min(2, len(problems))
    lines = -(-len(problems) // columns)
    figure = Figure(figsize=(1 + 4.6 * columns, 0.9 + 3.4 * lines), dpi=130, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False)
    handles: dict[str, Artist] = {}
    for axes, problem in zip(panels.flat, problems, strict=False):
        if under is not None:
            under(axes)
        for index, method in enumerate(methods):
            group = [r for r in records if (r.problem, r.sampler, r.steps) == problem and r.method == method]
            if group:
                draw(axes, group, COLOURS[index % len(COLOURS)], MARKS[index % len(MARKS)], method)
        axes.set_xscale("log")
        axes.set_yscale("log" if log_y else "linear")
        if not log_y:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.set_title("{}, {}, {} steps".format(*problem), fontsize=10)
        axes.set_xlabel(across, fontsize=9)
        axes.set_ylabel(up, fontsize=9)
        found, names = axes.get_legend_handles_labels()
        handles.update(zip(names, found, strict=True))
    for axes in panels.flat[len(problems) :]:
        axes.axis("off")
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=2, fontsize=8, handlelength=3.5
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
