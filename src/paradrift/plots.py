"""Pictures: the samples of two runs side by side, and how a trajectory converged.

Figures are made without pyplot, so nothing here touches global state or needs a screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from paradrift.errors import SpecError
from paradrift.forms import Array
from paradrift.report import Run, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

COLUMNS = 12  # pictures in one line before it wraps
FRONT = "#19b5a5"


def drawable(shape: Sequence[int]) -> bool:
    """Whether samples of this shape are pictures.

    Args:
        shape: Shape of one sample.

    Returns:
        True for (1, height, width) and (3, height, width).
    """
    return len(shape) == 3 and shape[0] in (1, 3)


def samples(path: Path, runs: Sequence[Run], labels: Sequence[int] | None = None) -> None:
    """Draw the samples of each run in a row of its own, the same sample below itself.

    Args:
        path: PNG file to write.
        runs: The runs, first on top.
        labels: Class of each sample, written over its column.

    Raises:
        SpecError: if the samples are not pictures, or the runs differ in their number.
    """
    from matplotlib.figure import Figure

    shape = runs[0].solution.samples.shape
    if not drawable(shape[1:]) or any(run.solution.samples.shape != shape for run in runs):
        raise SpecError(f"expected runs of equally many samples of shape (1 or 3, height, width), found {tuple(shape)}")
    total = shape[0]
    columns = min(total, COLUMNS)
    lines = -(-total // columns)
    figure = Figure(figsize=(1.9 + 1.1 * columns, 0.35 + 1.3 * lines * len(runs)), dpi=130, layout="constrained")
    axes = figure.subplots(lines * len(runs), columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for line in range(lines):
        for position, run in enumerate(runs):
            row = axes[line * len(runs) + position]
            stats = run.solution.stats
            caption = f"{run.name}\n{stats.rounds} rounds\n{stats.seconds:.2f} s"
            row[0].text(-0.12, 0.5, caption, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
            for column, index in enumerate(range(line * columns, min(total, (line + 1) * columns))):
                _picture(row[column], run.solution.samples[index])
                if labels is not None and position == 0:
                    row[column].set_title(f"class {labels[index]}", fontsize=9)
    figure.savefig(path)


def convergence(path: Path, trace: Trace, title: str = "") -> None:
    """Draw how one sample converged: the change per row and round with the front, and previews below.

    Args:
        path: PNG file to write.
        trace: What was recorded while solving.
        title: Heading of the figure.

    Raises:
        SpecError: if no round was recorded.
    """
    from matplotlib.figure import Figure

    if not trace.change:
        raise SpecError("expected a trace of at least one round, found none: pass the trace as callback to sample")
    shown = sorted(trace.previews)
    pictures = bool(shown) and drawable(trace.previews[shown[0]].shape)
    figure = Figure(figsize=(9, 6.4 if pictures else 4.6), dpi=130, layout="constrained")
    if pictures:
        grid = figure.add_gridspec(2, len(shown), height_ratios=(3.4, 1))
        heat = figure.add_subplot(grid[0, :])
        for column, index in enumerate(shown):
            panel = figure.add_subplot(grid[1, column])
            _picture(panel, trace.previews[index])
            panel.set_title(f"round {index}" if column == 0 else f"{index}", fontsize=9)
    else:
        heat = figure.subplots()
    _heat_map(heat, np.stack(trace.change), np.asarray(trace.settled, np.float64))
    heat.set_title(title or f"How sample {trace.sample} converged", fontsize=11)
    figure.savefig(path)


def _heat_map(axes: Axes, change: Array, settled: Array) -> None:
    """The change per row (across) and round (down), log colours, the front as a line.

    Args:
        axes: Where to draw.
        change: Shape (rounds, R), NaN outside the window.
        settled: Nodes settled after each round, shape (rounds,).
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    rounds, rows = change.shape
    positive = change[np.isfinite(change) & (change > 0)]
    high = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()) if positive.size else 1e-1, high * 1e-8)
    low = low if low < high else high / 10
    masked = np.ma.masked_invalid(np.where(np.isfinite(change), np.clip(change, low, high), np.nan))
    axes.set_facecolor("0.93")
    front = np.clip(settled, 0, rows - 1)

    def draw(panel: Axes, width: float) -> AxesImage:
        image = panel.imshow(
            masked,
            norm=LogNorm(low, high),
            cmap="magma",
            aspect="auto",
            interpolation="nearest",
            extent=(-0.5, rows - 0.5, rounds + 0.5, 0.5),
        )
        panel.stairs(
            front, np.arange(rounds + 1) + 0.5, orientation="horizontal", baseline=None, color=FRONT, linewidth=width
        )
        panel.yaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
        return image

    spans = np.isfinite(change).sum(1)
    narrow = rounds >= 16 and float(np.median(spans)) < rows / 10
    image = draw(axes, 1.0 if narrow else 1.8)
    if narrow:  # the band is a thin line: show a part of it larger, where everything is settled
        middle = rounds // 2
        first, last = middle - 4, middle + 4
        columns = np.flatnonzero(np.isfinite(change[first : last + 1]).any(0))
        zoom = axes.inset_axes((0.06, 0.08, 0.44, 0.46))
        zoom.set_facecolor("0.93")
        draw(zoom, 1.8)
        zoom.set_xlim(float(columns[0]) - 3, float(columns[-1]) + 3)
        zoom.set_ylim(last + 1.5, first + 0.5)
        zoom.tick_params(labelsize=7)
        axes.indicate_inset_zoom(zoom, edgecolor="0.3")
    axes.plot([], [], color=FRONT, linewidth=1.8, label="front: everything to its left is settled")
    axes.legend(loc="upper right", fontsize=8, framealpha=0.9)
    axes.set_xlabel("row of the table: time, from the start (noise) to the answer (data)")
    axes.set_ylabel("round")
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("change in this round, in units of\nthe data's standard deviation", fontsize=9)


def _picture(axes: Axes, image: Tensor) -> None:
    """One image with values in [-1, 1].

    Args:
        axes: Where to draw.
        image: Shape (1 or 3, height, width).
    """
    levels = torch.nan_to_num((image.detach().to("cpu", torch.float32) + 1) / 2).clamp(0, 1).numpy()
    axes.axis("off")
    axes.imshow(levels[0] if levels.shape[0] == 1 else np.moveaxis(levels, 0, -1), cmap="gray", vmin=0, vmax=1)
