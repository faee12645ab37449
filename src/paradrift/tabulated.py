"""The tables of the last few chains, kept: one of 1000 rows takes as long to make as many calls of a small network.

Tables cannot be written to, so they may be shared. Only what cannot change in between is kept: tables of samplers and
schedules that are frozen dataclasses, found again by their values.
"""

from __future__ import annotations

import functools

import numpy as np

from paradrift.forms import Array, Form
from paradrift.samplers import Sampler
from paradrift.schedules import Schedule
from paradrift.tableau import Tableau

KEPT = 4  # tables: three dense matrices each, 24 MB for 1000 rows


def tabulated(sampler: Sampler, schedule: Schedule, times: Array) -> Tableau:
    """The table of a sampler, made once for the same sampler, schedule and times.

    Args:
        sampler: The sequential method.
        schedule: The noise schedule.
        times: The grid, shape (N + 1,).

    Returns:
        The table.
    """
    if _fixed(sampler) and _fixed(schedule):
        return _made(sampler, schedule, tuple(times.tolist()))
    return sampler.tableau(schedule, times)


@functools.lru_cache(maxsize=KEPT)
def reformed(table: Tableau, form: Form) -> Tableau:
    """A table for another form of output, made once for each table.

    Args:
        table: The table.
        form: The form.

    Returns:
        The table for that form.
    """
    return table.reform(form)


@functools.lru_cache(maxsize=KEPT)
def _made(sampler: Sampler, schedule: Schedule, times: tuple[float, ...]) -> Tableau:
    return sampler.tableau(schedule, np.array(times))


def _fixed(value: object) -> bool:
    """Whether an object is a frozen dataclass of hashable values: what it made once is what it would make again."""
    kind = getattr(type(value), "__dataclass_params__", None)
    if kind is None or not (kind.frozen and kind.eq):
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return True
