"""The benchmarks by name: each yields records as it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from paradrift.bench.calibration import calibration, oracle
from paradrift.bench.compare_run import compare
from paradrift.bench.coverage import coverage
from paradrift.bench.engine import engine
from paradrift.bench.headline import headline
from paradrift.bench.langevin import langevin
from paradrift.bench.pipelines import pipelines, tolerances
from paradrift.bench.records import Point, Record
from paradrift.bench.students import points as drafts
from paradrift.bench.students import students
from paradrift.bench.theory import points, theory
from paradrift.bench.toy import toy

SUITES: Mapping[str, Callable[[bool], Iterator[Record]]] = MappingProxyType(
    {
        "headline": headline,
        "pipelines": pipelines,
        "tolerances": tolerances,
        "engine": engine,
        "langevin": langevin,
        "toy": toy,
        "oracle": oracle,
        "calibration": calibration,
        "coverage": coverage,
        "theory": theory,
        "students": students,
        "compare": compare,
    }
)

# suites whose measurements have names, so that a run that was cut off can go on where it stopped
POINTS: Mapping[str, Callable[[bool], Iterator[Point]]] = MappingProxyType({"theory": points, "students": drafts})
