"""The benchmarks by name: each yields records as it measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from paradrift.bench.calibration import calibration, oracle
from paradrift.bench.coverage import coverage
from paradrift.bench.engine import engine
from paradrift.bench.headline import headline
from paradrift.bench.langevin import langevin
from paradrift.bench.pipelines import pipelines, tolerances
from paradrift.bench.records import Record
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
    }
)
