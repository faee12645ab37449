"""The comparison in tables, made from records alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from paradrift.bench.compare import KINDS
from paradrift.bench.compare_selection import floor
from paradrift.bench.equal_error import (
    STRICT,
    TARGETS,
    WORST,
    Duel,
    Place,
    curves,
    duels,
    latest,
    mean_ratio,
    needs,
    ours,
)
from paradrift.bench.records import Record
from paradrift.bench.theory_words import grid

NEAR = 1.01  # rounds within a percent are a draw
TIMES = ["rounds", "loop, ms", "parallel, ms", "times faster (least)", "ceiling", "error, median", "flips"]
HEAD = ["model", "sampler", "method", "rows", *TIMES]

Table = Mapping[tuple[Place, float], Mapping[str, float]]


def tables(records: Sequence[Record]) -> str:
    """All tables, in Markdown.

    Args:
        records: Measurements of a comparison.

    Returns:
        The text.
    """
    found, mine = curves(records), ours(latest(records, "compare"))
    table, strict = needs(found, floor=floor), needs(curves(records, attrgetter("error_worst")), WORST)
    own = [name for name in dict.fromkeys(record.method for record in records) if name in mine]
    battles = {name: duels(table, name, mine) for name in own}
    parts = ["**Ours in rounds over the best rival's, at equal median error**"]
    parts += [summary(battles[name], name) for name in own]
    parts += ["**The same, at equal error of the worst of the samples**"]
    parts += [summary(duels(strict, name, mine), name, WORST) for name in own]
    parts += [f"**By model, at a median error of {_error(STRICT)}**", by_model(battles)]
    parts += [f"**Rounds at equal error: {', '.join(own)}, and the best rival**", rounds(table, battles)]
    for name in own:
        parts += [f"**Where we lose: {name}**", losses(battles[name])]
    parts += list(laws(records))
    parts += list(seconds(records))
    return "\n\n".join(parts) + "\n"


def _error(target: float) -> str:
    return f"{target:.0e}".replace("e-0", "e-")


def summary(battles: Sequence[Duel], own: str, targets: Sequence[float] = TARGETS) -> str:
    """Geometric means of the ratios, for the README.

    Args:
        battles: Ours against the best rival everywhere.
        own: Our method.
        targets: The errors.

    Returns:
        A table: one row for each kind of sampler.
    """
    rows: list[list[str]] = []
    for kind in KINDS:
        mine = [duel for duel in battles if duel.place.kind == kind]
        if not mine:
            continue
        cells = [kind.upper(), str(len({duel.place for duel in mine}))]
        for target in targets:
            here = [duel for duel in mine if duel.target == target]
            lost = sum(duel.ratio > NEAR for duel in here)
            cells.append(f"{mean_ratio(here) or 0:.2f} ({lost} lost)")
        overall, largest = mean_ratio(mine) or 0.0, max(mine, key=lambda duel: duel.ratio)
        rows.append([*cells, f"{overall:.2f}", f"{largest.ratio:.2f}"])
    return grid([own, "places", *(f"error {_error(target)}" for target in targets), "all errors", "worst place"], rows)


def by_model(battles: Mapping[str, Sequence[Duel]]) -> str:
    """Geometric means of the ratios for each model, where flips disqualify, and the means of those.

    Args:
        battles: Each of ours against the best rival everywhere.

    Returns:
        A table: one row for each model, the number of places in brackets.
    """
    heads = [(kind, own) for kind in KINDS for own in battles]
    asked = {
        (kind, own): [duel for duel in battles[own] if duel.place.kind == kind and duel.target == STRICT]
        for kind, own in heads
    }
    models = dict.fromkeys(duel.place.model for duels in asked.values() for duel in duels)
    rows: list[list[str]] = []
    columns: dict[tuple[str, str], list[float]] = {head: [] for head in heads}
    for model in models:
        cells = [model]
        for head in heads:
            here = [duel for duel in asked[head] if duel.place.model == model]
            mean = mean_ratio(here)
            cells.append("" if mean is None else f"{mean:.2f} ({len(here)})")
            columns[head] += [] if mean is None else [mean]
        rows.append(cells)
    means = [f"{math.prod(found) ** (1 / len(found)):.2f}" if found else "" for found in columns.values()]
    return grid(
        ["model", *(f"{kind.upper()}, {own}" for kind, own in heads)], [*rows, ["**all models alike**", *means]]
    )


def rounds(table: Table, battles: Mapping[str, Sequence[Duel]]) -> str:
    """Rounds everywhere.

    Args:
        table: Rounds by place, error and method.
        battles: Each of ours against the best rival everywhere.

    Returns:
        A table: one row for each place; at each error rounds of ours, in bold where they are ahead, and of the best
        rival.
    """
    by_spot = {name: {(duel.place, duel.target): duel for duel in mine} for name, mine in battles.items()}
    rows: list[list[str]] = []
    for where in dict.fromkeys(duel.place for mine in battles.values() for duel in mine):
        cells = [where.model, f"{where.kind.upper()} {where.steps}", where.width]
        for target in TARGETS:
            here = {name: found[where, target] for name, found in by_spot.items() if (where, target) in found}
            if not here:
                cells.append("not asked")
                continue
            told: list[str] = []
            for name, duel in here.items():
                needed = table[where, target][name]
                words = f"{needed:.1f}" if needed < math.inf else "—"
                told.append(f"**{words}**" if duel.ratio < 1 / NEAR else words)
            duel = next(iter(here.values()))
            cells.append(f"{', '.join(told)}; {duel.rival:.1f} {duel.best}")
        rows.append(cells)
    return grid(["model", "sampler", "rows", *(f"error {_error(target)}" for target in TARGETS)], rows)


def losses(battles: Sequence[Duel]) -> str:
    """Where a rival needs fewer rounds, the worst first.

    Args:
        battles: Ours against the best rival everywhere.

    Returns:
        A table, or a sentence if there is none.
    """
    lost = sorted((duel for duel in battles if duel.ratio > NEAR), key=lambda duel: -duel.ratio)
    if not lost:
        return "Nowhere."
    rows = [
        [
            duel.place.model,
            f"{duel.place.kind.upper()} {duel.place.steps}",
            duel.place.width,
            _error(duel.target),
            f"{duel.ours:.1f}",
            f"{duel.rival:.1f}, {duel.best}",
            f"{duel.ratio:.2f}",
        ]
        for duel in lost
    ]
    return grid(["model", "sampler", "rows", "error", "ours", "best rival", "ratio"], rows)


def laws(records: Sequence[Record]) -> Iterator[str]:
    """Rounds of methods that are exact in law, which have no error to be equal at.

    Args:
        records: Measurements of a comparison.

    Yields:
        A title and a table, if there are any.
    """
    found = [record for record in latest(records, "compare") if record.extra.get("law")]
    if not found:
        return
    yield "**Exact in law**"
    rows = [[r.problem, f"SDE {r.steps}", r.window, r.method, f"{r.rounds_mean:.1f}", str(r.rounds_max)] for r in found]
    yield grid(["model", "sampler", "rows", "method", "rounds, mean", "largest"], rows)


def seconds(records: Sequence[Record]) -> Iterator[str]:
    """Seconds of single samples, on each processor that has measured them.

    Args:
        records: Measurements of a comparison.

    Yields:
        A title and a table, for each processor.
    """
    found = latest(records, "seconds")
    for processor in dict.fromkeys(record.machine["processor"] for record in found):
        there = [record for record in found if record.machine["processor"] == processor]
        yield f"**Seconds of one sample against the plain loop: {processor}, {there[0].machine['cores']} cores**"
        yield grid(HEAD, [_timed(record) for record in there])


def _timed(record: Record) -> list[str]:
    """One line of the table of seconds."""
    speedup, least, ceiling = (float(record.extra[name] or 0) for name in ("speedup", "speedup_least", "ceiling"))
    name = f"**{record.method}**" if record.extra["ours"] else record.method
    flips = record.extra["flips"]
    cells = [record.problem, f"{record.extra['kind']} {record.steps}".upper(), name, record.window]
    cells += [f"{record.rounds_mean:.1f}", f"{1e3 * (record.sequential_seconds or 0):.0f}"]
    cells += [f"{1e3 * record.seconds:.0f}", f"{speedup:.2f} ({least:.2f})", f"{ceiling:.2f}"]
    return [*cells, f"{record.error_median or 0:.0e}", "" if flips is None else str(flips)]
