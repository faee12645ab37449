"""The study that runs the theorems: rounds against dimension, error terms, memory, blocks, certificates.

Every point has a name, so ``paradrift bench theory --resume`` goes on where it was cut off.
"""

from __future__ import annotations

from collections.abc import Iterator

from paradrift.bench import theory_dimension, theory_ode, theory_tables, theory_terms
from paradrift.bench.records import Point, Record, measured
from paradrift.bench.theory_setting import Setting
from paradrift.forms import Form


def theory(quick: bool) -> Iterator[Record]:
    """The theorems of PIADM, measured: rounds against dimension at equal KL, the error terms, blocks, certificates.

    Args:
        quick: Small dimensions: a check that all of it runs.

    Yields:
        One record for each point.
    """
    for point in points(quick):
        yield measured(point)


def points(quick: bool) -> Iterator[Point]:
    """The measurements, not made yet.

    Args:
        quick: Small dimensions.

    Yields:
        Key and measurement.
    """
    yield from theory_terms.points(quick)
    yield from theory_tables.points(quick)
    yield from theory_ode.points((16, 64) if quick else (16, 64, 256, 1024, 4096))
    yield from theory_dimension.points(_settings(quick))


def _settings(quick: bool) -> list[Setting]:
    """What is asked, dimension by dimension; left out is what needs tables of more than about 10,000 rows."""
    if quick:
        return [Setting(dim=dim, nats=1.0, form=Form.RESIDUAL) for dim in (16, 64)]
    cases = [
        (Form.SCORE, False, 1.0, 4096),
        (Form.RESIDUAL, True, 1.0, 4096),
        (Form.RESIDUAL, False, 1.0, 16384),
        (Form.SCORE, True, 1.0, 256),
        (Form.SCORE, False, 0.1, 256),
        (Form.RESIDUAL, True, 0.1, 256),
        (Form.RESIDUAL, False, 0.1, 1024),
    ]
    found = [
        Setting(dim=dim, nats=nats, form=form, careful=careful)
        for form, careful, nats, largest in cases
        for dim in (16, 64, 256, 1024, 4096, 16384)
        if dim <= largest
    ]
    return sorted(found, key=lambda setting: setting.dim)
