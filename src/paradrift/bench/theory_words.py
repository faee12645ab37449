"""The study in tables, made from records alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from paradrift.bench.records import Plain, Record


def of(records: Iterable[Record], **wanted: Plain) -> list[Record]:
    """Records with these entries in ``extra``, the last of each key.

    Args:
        records: Measurements.
        **wanted: Entries.

    Returns:
        Those that have them, in order of their first appearance.
    """
    found = {record.extra["key"]: record for record in records if "key" in record.extra}
    return [r for r in found.values() if all(r.extra.get(name) == value for name, value in wanted.items())]


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y in log x, by least squares.

    Args:
        x: Positive numbers.
        y: Positive numbers.

    Returns:
        The slope.
    """
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def per_log(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of y in log x, by least squares.

    Args:
        x: Positive numbers.
        y: Numbers.

    Returns:
        The slope, per factor e of x.
    """
    return float(np.polyfit(np.log(x), y, 1)[0])


def cases(records: Iterable[Record]) -> list[tuple[str, str, float]]:
    """Form, rule of the horizon and budget of the measurements against dimension.

    Args:
        records: Measurements.

    Returns:
        Each combination once.
    """
    found = of(records, part="dimension")
    return list(dict.fromkeys((r.extra["form"], r.extra["horizon_rule"], r.extra["nats"]) for r in found))  # type: ignore[misc]


def tables(records: Sequence[Record]) -> str:
    """All tables, in Markdown.

    Args:
        records: Measurements.

    Returns:
        The text.
    """
    parts = [*_dimension(records), *_ode(records), *_terms(records), *_small(records)]
    return "\n\n".join(parts) + "\n"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown.

    Args:
        head: Column titles.
        rows: Cells.

    Returns:
        The text.
    """
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _dimension(records: Sequence[Record]) -> Iterator[str]:
    for form, rule, nats in cases(records):
        found = of(records, part="dimension", form=form, horizon_rule=rule, nats=nats)
        dims = sorted({int(r.extra["dim"]) for r in found})  # type: ignore[arg-type]
        first = [next(r for r in found if r.extra["dim"] == dim) for dim in dims]
        rows = [
            ["horizon T, blocks N", *(f"{r.extra['horizon']:.2f}, {r.extra['blocks']}" for r in first), "", ""],
        ]
        for method in dict.fromkeys(r.method for r in found):
            own = {int(r.extra["dim"]): r for r in found if r.method == method}  # type: ignore[arg-type]
            cells = [_cell(own.get(dim)) for dim in dims]
            have = [dim for dim in dims if dim in own]
            rounds = [own[dim].rounds_mean for dim in have]
            slope = f"{per_log(have, rounds):.2f}" if len(have) > 1 else ""
            if method == "sequential" and len(have) > 1:
                slope = f"d^{exponent(have, rounds):.2f}"
            rows.append([method, *cells, f"{rounds[-1] / rounds[0]:.2f}", slope])
        default = {r.extra["dim"]: r for r in found if r.extra.get("drift") is not None}
        rows.append(
            ["*nats in all, default*"] + [_total(default[dim]) if dim in default else "" for dim in dims] + ["", ""]
        )
        yield f"**{form} form, {rule} horizon, {nats:g} nat**"
        yield grid(["rounds: mean (worst), K", *(f"d = {dim:,}" for dim in dims), "last / first", "per log d"], rows)


def _cell(record: Record | None) -> str:
    if record is None:
        return ""
    sweeps = record.extra.get("sweeps")
    worst = f" ({record.rounds_max})" if record.rounds_max != record.rounds_mean else ""
    return _number(record.rounds_mean) + worst + (f", {sweeps}" if sweeps else "")


def _total(record: Record) -> str:
    return f"{record.extra['drift'] + record.extra['truncation_reverse']:.3f}"  # type: ignore[operator]


def _ode(records: Sequence[Record]) -> Iterator[str]:
    found = of(records, part="ode")
    if not found:
        return
    dims = sorted({int(r.extra["dim"]) for r in found})  # type: ignore[arg-type]
    rows: list[list[str]] = []
    for method in dict.fromkeys(r.method for r in found):
        own = {int(r.extra["dim"]): r for r in found if r.method == method}  # type: ignore[arg-type]
        rows.append([f"{method}: rounds", *(_cell(own.get(dim)) for dim in dims)])
        rows.append(["nodes", *(str(own[dim].steps) if dim in own else "" for dim in dims)])
        rows.append(["squared distance", *(f"{own[dim].extra['parallel']:.1e}" if dim in own else "" for dim in dims)])
    yield "**ODE**"
    yield grid(["", *(f"d = {dim:,}" for dim in dims)], rows)


def _terms(records: Sequence[Record]) -> Iterator[str]:
    found = of(records, part="terms")
    rows: list[list[str]] = []
    for term, data in dict.fromkeys((str(r.extra["term"]), str(r.extra["data"])) for r in found):
        own = sorted((r for r in found if (r.extra["term"], r.extra["data"]) == (term, data)), key=_size)
        sizes = [_size(r) for r in own]
        for name in quantities(own[0]):
            values = [float(r.extra[name]) for r in own]  # type: ignore[arg-type]
            many = len(sizes) > 2
            if term == "discretisation":
                slope = f"step^{-exponent(sizes[1:], values[1:]):.2f}" if many else ""
            elif term == "score":
                slope = f"delta^{exponent(sizes[:3], values[:3]):.2f}" if many else ""
            else:
                late = [(s, v) for s, v in zip(sizes, values, strict=True) if v > 1e-25][-4:]
                slope = _rate(late)
            rows.append([term, data, name, f"{values[0]:.3g}", f"{values[-1]:.3g}", slope])
    if rows:
        yield "**Error terms**"
        yield grid(["term", "data", "measured", "first", "last", "fitted"], rows)


def _rate(points: Sequence[tuple[float, float]]) -> str:
    if len(points) < 2:
        return ""
    sizes, values = zip(*points, strict=True)
    return f"exp({per_step(sizes, values):.2f} K or T)"


def per_step(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y in x, by least squares.

    Args:
        x: Numbers.
        y: Positive numbers.

    Returns:
        The slope.
    """
    return float(np.polyfit(x, np.log(y), 1)[0])


def quantities(record: Record) -> list[str]:
    """Names of what an error term was measured as.

    Args:
        record: A measurement.

    Returns:
        Names in ``extra``.
    """
    known = ("key", "part", "term", "data", "size")
    return [name for name in record.extra if name not in known and not name.endswith("standard error")]


def _size(record: Record) -> float:
    return float(record.extra["size"])  # type: ignore[arg-type]


def _small(records: Sequence[Record]) -> Iterator[str]:
    found = of(records, part="transition")
    noises = sorted({float(r.extra["stochasticity"]) for r in found}, reverse=True)  # type: ignore[arg-type]
    if found:
        rounds = {(r.method, r.extra["stochasticity"]): str(r.rounds_max) for r in found}
        rows = [[name, *(rounds.get((name, u), "") for u in noises)] for name in dict.fromkeys(m for m, _ in rounds)]
        yield "**Transitions**"
        yield grid(["transition", *(f"stochasticity {u:g}" for u in noises)], rows)
    found = of(records, part="blocks")
    if found:
        yield "**Blocks**"
        rows = [
            [r.method, str(r.extra["blocks"]), str(r.rounds_max), str(r.extra["sweeps"]), f"{r.evaluations:,}"]
            for r in sorted(found, key=lambda r: r.method)
        ]
        yield grid(["slopes", "blocks", "rounds", "sweeps of each block", "evaluations"], rows)
    found = of(records, part="certificate")
    if found:
        yield "**Certificates**"
        rows = [
            [
                str(r.extra["form"]),
                str(r.extra["sweeps"]),
                f"{r.extra['exact']:.6g}",
                f"{r.extra['sampled']:.4g} ± {r.extra['standard_error']:.2g}",
                f"{r.extra['exact_answers']:.4g}",
                f"{r.extra['weights_mean']:.4g} ± {r.extra['weights_standard_error']:.2g}",
            ]
            for r in found
        ]
        yield grid(["form", "K", "exact", "sampled", "exact, answers alone", "mean weight"], rows)
