"""The study in pictures, drawn from records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paradrift.bench.plots import COLOURS, MARKS
from paradrift.bench.records import Record
from paradrift.bench.theory_words import exponent, of, quantities

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = {  # colours follow the method through all panels
    "sequential": COLOURS[6],
    "PIADM-SDE": COLOURS[1],
    "wavefront": COLOURS[4],
    "Picard, score form": COLOURS[3],
    "Picard, residual form": COLOURS[5],
    "secant slopes": COLOURS[2],
    "default, stop=KL": COLOURS[0],
}
PANELS = (("score", "exact"), ("residual", "theorem"))
SMALL = 1e-16  # least error drawn

Drawing = Callable[[Path, Sequence[Record]], None]


def draw(folder: Path, records: Sequence[Record]) -> list[Path]:
    """Draw whatever the records hold of the study.

    Args:
        folder: Where the pictures go.
        records: Measurements, of the study or not.

    Returns:
        The files that were written.
    """
    drawings: dict[str, tuple[str, Drawing]] = {
        "theory-rounds.png": ("dimension", rounds),
        "theory-memory.png": ("ode", memory),
        "theory-terms.png": ("terms", terms),
    }
    paths: list[Path] = []
    for name, (part, drawing) in drawings.items():
        found = of(records, part=part) + (of(records, part="dimension") if part == "ode" else [])
        if found:
            drawing(folder / name, found)
            paths.append(folder / name)
    return paths


def _lines(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, mark: str, label: str) -> None:
    axes.plot(x, y, color=colour, marker=mark, markersize=5, linewidth=1.4, label=label)


def _dim(record: Record) -> int:
    return int(record.extra["dim"])  # type: ignore[arg-type]


def rounds(path: Path, records: Sequence[Record]) -> None:
    """Rounds against dimension at a fixed KL of 1 nat, every axis logarithmic: sequential steps and all methods.

    Args:
        path: PNG file to write.
        records: Measurements against dimension.
    """
    from matplotlib.figure import Figure as Picture

    figure = Picture(figsize=(10.2, 5.2), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    handles: dict[str, Artist] = {}
    for axes, (form, rule) in zip(panels, PANELS, strict=True):
        for index, (method, colour) in enumerate(METHODS.items()):
            own = [r for r in records if r.method == method and r.extra["nats"] == 1.0]
            own = sorted((r for r in own if (r.extra["form"], r.extra["horizon_rule"]) == (form, rule)), key=_dim)
            if own:
                _lines(axes, [_dim(r) for r in own], [r.rounds_mean for r in own], colour, MARKS[index], method)
        horizon = "the shortest" if rule == "exact" else "log(4 d)"
        axes.set_title(f"sequential sampler in {form} form, horizon {horizon}", fontsize=10)
        _logarithmic(axes, "dimension d", "rounds a sample, mean")
        found, names = axes.get_legend_handles_labels()
        handles.update(zip(names, found, strict=True))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=8)
    _save(figure, path)


def memory(path: Path, records: Sequence[Record]) -> None:
    """Numbers held at a time against dimension: whole chains and blocks, SDE and ODE.

    Args:
        path: PNG file to write.
        records: Measurements against dimension, of the SDE and of the ODE.
    """
    from matplotlib.figure import Figure as Picture

    figure = Picture(figsize=(6.4, 4.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    wanted = (
        ("SDE, whole chain", "dimension", "Picard, score form"),
        ("SDE, a block of PIADM-SDE", "dimension", "PIADM-SDE"),
        ("ODE, whole chain of the predictor", "ode", "Picard, predictor alone"),
        ("ODE, a block of PIADM-ODE", "ode", "PIADM-ODE"),
    )
    for index, (label, part, method) in enumerate(wanted):
        own = [r for r in records if r.extra["part"] == part and r.method == method]
        own = [r for r in own if part == "ode" or (r.extra["nats"], r.extra["horizon_rule"]) == (1.0, "theorem")]
        own = sorted((r for r in own if r.extra.get("form") != "score"), key=_dim)
        if not own:
            continue
        dims, held = [_dim(r) for r in own], [_dim(r) * float(r.extra["points"]) for r in own]  # type: ignore[arg-type]
        power = f", $d^{{{exponent(dims, held):.2f}}}$" if len(dims) > 1 else ""
        _lines(axes, dims, held, COLOURS[index], MARKS[index], label + power)
    _logarithmic(axes, "dimension d", "numbers held for one sample")
    axes.legend(fontsize=8)
    _save(figure, path)


def terms(path: Path, records: Sequence[Record]) -> None:
    """The four error terms, one panel each, Gaussian data solid and the mixture dashed.

    Args:
        path: PNG file to write.
        records: Measurements of error terms.
    """
    from matplotlib.figure import Figure as Picture

    figure = Picture(figsize=(10.2, 7.6), dpi=130, layout="constrained")
    across = {
        "truncation": "horizon T",
        "discretisation": "steps",
        "score": "size of the error in the score, delta",
        "picard": "sweeps K",
    }
    for axes, (term, label) in zip(figure.subplots(2, 2).flat, across.items(), strict=True):
        names: list[str] = []
        for data, dash in (("Gaussian", "-"), ("mixture", "--")):
            own = [r for r in records if (r.extra["term"], r.extra["data"]) == (term, data)]
            own = sorted(own, key=lambda r: float(r.extra["size"]))  # type: ignore[arg-type]
            for name in quantities(own[0]) if own else []:
                if name.endswith("to data"):  # bounded below by the truncation: for the table
                    continue
                names += [] if name in names else [name]
                points = [(float(r.extra["size"]), float(r.extra[name])) for r in own]  # type: ignore[arg-type]
                points = [(x, y) for x, y in points if y > SMALL]
                colour = COLOURS[names.index(name)]
                style = {"color": colour, "linestyle": dash, "marker": MARKS[names.index(name)], "markersize": 4}
                axes.plot(*zip(*points, strict=True), linewidth=1.3, label=f"{name}, {data}", **style)
        _guide(axes, term)
        axes.set_yscale("log")
        if term in ("discretisation", "score"):
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        low, high = axes.get_ylim()  # room for the legend
        axes.set_ylim(low / (1e7 if term == "picard" else 1), high * (1e3 if term == "discretisation" else 1))
        axes.set_title(term.capitalize(), fontsize=10)
        axes.set_xlabel(label, fontsize=9)
        axes.set_ylabel("nats, or squared distance, of one coordinate", fontsize=8)
        axes.grid(alpha=0.3)
        places = {"discretisation": "upper center", "picard": "lower center"}
        axes.legend(fontsize=7, loc=places.get(term, "best"), ncols=2 if term in places else 1)
    _save(figure, path)


def _guide(axes: Axes, term: str) -> None:
    """The theorem's shape, in grey."""
    grey = {"color": "0.5", "linewidth": 1.0, "linestyle": ":"}
    if term == "truncation":
        x = np.array([1.0, 10.0])
        axes.plot(x, np.exp(-x), label="$e^{-T}$", **grey)
    elif term == "discretisation":
        x = np.array([16.0, 512.0])
        axes.plot(x, 20 / x, label="step", **grey)
        axes.plot(x, 0.1 / x**2, label="step$^2$", **{**grey, "linestyle": "-."})
    elif term == "score":
        x = np.array([0.025, 0.4])
        axes.plot(x, x**2, label="$\\delta^2$", **grey)
    else:
        x = np.array([1.0, 20.0])
        axes.plot(x, 10 * np.exp(-x), label="$e^{-K}$", **grey)


def _logarithmic(axes: Axes, across: str, up: str) -> None:
    axes.set_xscale("log", base=4)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.grid(alpha=0.3)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
