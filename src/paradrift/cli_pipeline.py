"""``paradrift sample`` with a pipeline of diffusers: its plain run, its parallel one, and what is shown and written."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from paradrift import pipelines, takes
from paradrift.diffusers.settings import Settings
from paradrift.forms import Array
from paradrift.pipelines import Wish
from paradrift.takes import Take

_COLUMNS = 12  # pictures in one line of the sheet
_FRAME = 125  # milliseconds that a frame is shown


def sample(
    pipe: Any,  # noqa: ANN401 - any pipeline
    wish: Wish,
    settings: Settings,
    *,
    out: Path,
    sequential: bool = True,
    as_json: bool = False,
) -> int:
    """Run a pipeline plainly and in parallel, print the comparison, and write the pictures.

    Args:
        pipe: The pipeline.
        wish: What it is asked for.
        settings: How it is run in parallel.
        out: Folder of the pictures, which exists.
        sequential: Whether to run it plainly too.
        as_json: Whether to print JSON instead of the table.

    Returns:
        Exit code: 0, or 1 if the pictures hold values that are not finite.
    """
    call = pipelines.call(pipe, wish)
    with takes.around(pipe, settings):
        pass  # a pipeline in which no network is found says so before anything is drawn
    takes.warm_up(pipe, call)
    shown: list[Take] = []
    if sequential:
        pipe.set_progress_bar_config(desc="sequential", disable=None)  # None: none where nobody watches
        shown.append(takes.plainly(pipe, call))
    pipe.set_progress_bar_config(disable=None)
    answer = takes.in_parallel(pipe, call, settings)
    shown.append(answer)
    away = takes.gap(answer.pictures, shown[0].pictures) if sequential else None

    written = [path for take in shown for path in pictures(out, take)]
    if sequential or len(answer.pictures) > 1 or answer.pictures.shape[1] > 1:
        written.insert(0, sheet(out / "samples.png", shown, wish.labels))
    if as_json:
        asked = {
            "pipeline": type(pipe).__name__,
            "scheduler": type(getattr(pipe, "scheduler", None)).__name__,
            "arguments": dict(call.asked),
            "seed": wish.seed,
            **dataclasses.asdict(settings),
        }
        print(json.dumps(plain(shown, away, asked, written)))
    else:
        screen = Console()
        screen.print(_table(shown, away))
        screen.print(_outcome(shown), highlight=False, markup=False, soft_wrap=True)
        files = dict.fromkeys(re.sub(r"-\d+\.png$", "-*.png", str(path)) for path in written)
        screen.print(f"Pictures: {', '.join(files)}", highlight=False, markup=False, soft_wrap=True)
    if not np.isfinite(answer.pictures).all():
        Console(stderr=True).print(
            "paradrift: the pictures hold values that are not finite: try --dtype float32 or --dtype bfloat16",
            soft_wrap=True,
        )
        return 1
    return 0


def _table(shown: Sequence[Take], away: Array | None) -> Table:
    """The runs side by side."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, collapse_padding=True)
    result.add_column("", no_wrap=True)
    for name in ("seconds", "rounds", "evaluations", "calls", "error\nestimated", "error\nmeasured"):
        result.add_column(name, justify="right", no_wrap=True)
    for take in shown:
        counts = [f"{count}" for count in _counts(take, shown[-1])] or [""] * 3
        last = take is shown[-1]
        estimated = number(take.stats.error_bound) if take.stats is not None and counts[0] else ""
        measured = "" if away is None or not last else number(float(away.max()))
        result.add_row(take.name, f"{take.seconds:.2f}", *counts, estimated, measured)
    return result


def _counts(take: Take, last: Take) -> tuple[int, ...]:
    """Rounds, evaluations and calls; the parallel run, the last, counts the calls of both, if it was one."""
    if last.stats is None or last.stats.fallback is not None:
        return ()
    calls = last.stats.calls
    return (calls,) * 3 if take.stats is None else (take.stats.rounds, take.stats.evaluations, calls)


def number(worst: float | None) -> str:
    """An error in words.

    Args:
        worst: The error; None or not finite where nothing is known.

    Returns:
        Two digits.
    """
    return "unknown" if worst is None or not np.isfinite(worst) else ("0" if worst == 0 else f"{worst:.1e}")


def _outcome(shown: Sequence[Take]) -> str:
    """The comparison in one sentence."""
    parallel, stats = shown[-1], shown[-1].stats
    if stats is None or stats.fallback is not None:
        return f"Run plainly, not in parallel: {None if stats is None else stats.fallback}."
    text = f"{stats.rounds} rounds where the plain run makes {stats.calls} calls, one after the other"
    plainly = shown[0].seconds if len(shown) > 1 else stats.sequential_seconds
    if plainly is not None and parallel.seconds > 0:
        ratio = plainly / parallel.seconds
        text += f"; {ratio:.1f} times faster" if ratio >= 1 else f"; {1 / ratio:.1f} times slower"
        text += "" if len(shown) > 1 else " than its networks' predicted time"
    if stats.unbatchable:
        text += f"; calls of {', '.join(stats.unbatchable)} could not be merged and were evaluated one by one"
    return f"{text}. Choice: {stats.plan}." if stats.plan else f"{text}."


def plain(
    shown: Sequence[Take], away: Array | None, asked: Mapping[str, Any], written: Sequence[Path]
) -> dict[str, Any]:
    """The same as plain values for JSON; what is unknown is null.

    Args:
        shown: The runs.
        away: Error of each sample of the last one, shape (S,), if measured.
        asked: What was asked for.
        written: The pictures.

    Returns:
        Settings, runs and files.
    """
    errors = None if away is None else [_known(value) for value in away.tolist()]
    runs = [
        {
            "name": take.name,
            "seconds": take.seconds,
            "stats": None if take.stats is None else {k: _known(v) for k, v in dataclasses.asdict(take.stats).items()},
            "error_measured": errors if take is shown[-1] else None,
        }
        for take in shown
    ]
    return {"settings": dict(asked), "runs": runs, "pictures": [str(path) for path in written]}


def _known(value: Any) -> Any:  # noqa: ANN401 - a number, a word, ...
    return None if isinstance(value, float) and not np.isfinite(value) else value


def pictures(out: Path, take: Take) -> list[Path]:
    """Write each sample as a PNG of its own, in full size; with several frames, as an animated one.

    Args:
        out: Folder to write to.
        take: The run.

    Returns:
        The files.
    """
    from PIL import Image

    levels = np.rint(np.nan_to_num(take.pictures).clip(0, 1) * 255).astype(np.uint8)
    written = []
    for number, frames in enumerate(levels, 1):
        images = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in frames]
        further = {"save_all": True, "append_images": images[1:], "duration": _FRAME} if len(images) > 1 else {}
        written.append(out / f"{take.name}-{number}.png")
        images[0].save(written[-1], **further)
    return written


def sheet(path: Path, shown: Sequence[Take], labels: Sequence[int] | None) -> Path:
    """Draw the samples of each run in a row of its own, the same sample, or frame, below itself.

    Args:
        path: PNG file to write.
        shown: The runs, first on top.
        labels: Class of each sample, written over its column.

    Returns:
        The file.
    """
    from matplotlib.figure import Figure

    total, frames, height, width, _ = shown[0].pictures.shape
    if frames > 1:
        kept = np.unique(np.linspace(0, frames - 1, min(frames, _COLUMNS)).round().astype(int))
        lines = [[(number, int(frame)) for frame in kept] for number in range(total)]
    else:
        lines = [[(n, 0) for n in range(at, min(total, at + _COLUMNS))] for at in range(0, total, _COLUMNS)]
    columns = len(lines[0])
    size = 2.2 if columns <= 4 else 1.4  # inches
    figure = Figure(
        figsize=(1.2 + size * columns, 0.3 + (size * height / width + 0.15) * len(lines) * len(shown)),
        dpi=130,
        layout="constrained",
    )
    axes = figure.subplots(len(lines) * len(shown), columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    for line, cells in enumerate(lines):
        for position, take in enumerate(shown):
            row = axes[line * len(shown) + position]
            rounds = "".join(f"\n{count} rounds" for count in _counts(take, shown[-1])[:1])
            caption = f"{take.name}{rounds}\n{take.seconds:.2f} s"
            row[0].text(-0.06, 0.5, caption, transform=row[0].transAxes, ha="right", va="center", fontsize=9)
            for panel, (number, frame) in zip(row, cells, strict=False):
                image = np.nan_to_num(take.pictures[number, frame]).clip(0, 1)
                panel.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
                if position == 0 and labels is not None:
                    panel.set_title(f"class {labels[number]}", fontsize=9)
                elif position == 0 and frames > 1:
                    panel.set_title(f"frame {frame + 1}", fontsize=9)
    figure.savefig(path)
    return path
