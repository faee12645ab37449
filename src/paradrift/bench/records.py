"""One measurement is one JSON line that says what ran, on which machine, with which versions."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from paradrift.errors import SpecError

Plain = str | int | float | bool | None


def machine() -> dict[str, Plain]:
    """What the measurement ran on.

    Returns:
        Processor, cores, threads in use, GPU, operating system.
    """
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of what it computes with.

    Returns:
        Version by name.
    """
    names = ("paradrift", "torch", "numpy", "diffusers")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


@functools.cache
def commit() -> str | None:
    """The git hash of the code that runs, with "+" when files differ from it; None outside a repository.

    Returns:
        Twelve hex digits, perhaps with "+".
    """
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", str(here.parent)],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


def now() -> str:
    """The time in UTC, to the second.

    Returns:
        ISO 8601.
    """
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement; errors are in units of the data's standard deviation.

    Args:
        problem: What was sampled, such as "digits" or "mixture-64".
        method: Which solver, in words that stand alone in a legend.
        sampler: Which sampler.
        steps: Steps of the sampler.
        window: The window, as given or chosen.
        tol: The tolerance asked for; None where the stop is another.
        samples: How many samples.
        rounds_mean: Rounds of a sample, mean over samples.
        rounds_max: Rounds of the slowest sample.
        evaluations: Model evaluations over all samples.
        seconds: Wall time of the call.
        sequential_seconds: Wall time of the sequential sampler; None when not measured.
        error_median: Distance to the sequential answer, median over samples; None when not measured.
        error_worst: The same, largest.
        engine_share: Share of the wall time outside the model.
        extra: Anything else worth keeping.
        machine: What it ran on.
        versions: Versions of the software.
        commit: Git hash of the code.
        time: When it ran, UTC.
    """

    problem: str
    method: str
    sampler: str
    steps: int
    window: str
    tol: float | None
    samples: int
    rounds_mean: float
    rounds_max: int
    evaluations: int
    seconds: float
    sequential_seconds: float | None = None
    error_median: float | None = None
    error_worst: float | None = None
    engine_share: float | None = None
    extra: Mapping[str, Plain] = field(default_factory=dict)
    machine: Mapping[str, Plain] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)
    commit: str | None = field(default_factory=commit)
    time: str = field(default_factory=now)


Point = tuple[str, Callable[[], Record]]  # a measurement by name, which ends up in ``extra["key"]``


def measured(point: Point) -> Record:
    """Measure a point.

    Args:
        point: Its name and how to measure it.

    Returns:
        The record, which knows its name.
    """
    key, measure = point
    record = measure()
    return dataclasses.replace(record, extra={"key": key, **record.extra})


def line(record: Record) -> str:
    """One record for a person to read.

    Args:
        record: A measurement.

    Returns:
        Problem, method, rounds, seconds and error in one line.
    """
    words = [f"{record.problem}, {record.sampler}, {record.steps} steps, {record.method}:"]
    words.append(f"{record.rounds_mean:.1f} rounds, {record.seconds:.2f} s")
    if record.sequential_seconds is not None:
        words.append(f"(sequential {record.sequential_seconds:.2f} s)")
    if record.error_median is not None and record.error_worst is not None:
        words.append(f"error {record.error_median:.1e}, worst {record.error_worst:.1e}")
    return " ".join(words)


def append(path: str | Path, record: Record) -> None:
    """Add one line to a file, which is made with its folder when missing.

    Args:
        path: File of JSON lines.
        record: What to add.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(dataclasses.asdict(record), ensure_ascii=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def load(path: str | Path) -> list[Record]:
    """Read a file of JSON lines.

    Args:
        path: What :func:`append` wrote.

    Returns:
        The records, oldest first.

    Raises:
        SpecError: if the file is missing, or a line is not a record.
    """
    path = Path(path)
    if not path.is_file():
        raise SpecError(f"expected a file of benchmark records at {path}, found none: run `paradrift bench` first")
    records: list[Record] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            records.append(Record(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise SpecError(f"expected a benchmark record in line {number} of {path}, found {error}") from error
    return records


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
