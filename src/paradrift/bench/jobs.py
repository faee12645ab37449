"""Measurements against the clock: one after the other, those that matter most first, as long as the time lasts."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from paradrift.bench import records
from paradrift.bench.records import Record

FULL = "out of memory"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement, which may give several records.

    Args:
        key: Its name, by which a run goes on where it was cut off; ends up in ``extra["job"]`` of its records.
        part: Word for what kind of measurement it is, in ``extra["part"]``.
        problem: What is measured.
        method: In which way.
        steps: Steps of the sampler, 1 for a call.
        samples: Samples or rows.
        run: Measures.
        needs: Seconds that must be left for it to be begun.
    """

    key: str
    part: str
    problem: str
    method: str
    steps: int
    samples: int
    run: Callable[[], Sequence[Record]]
    needs: float = 0.0

    @property
    def words(self) -> str:
        """What it is, in words."""
        return f"{self.part} of {self.problem}, {self.method}"


@dataclass(frozen=True)
class Clock:
    """How much time is left.

    Args:
        seconds: The budget.
        begin: When it began.
    """

    seconds: float
    begin: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds left, negative once it is overdrawn."""
        return self.seconds - (time.perf_counter() - self.begin)


def work(jobs: Iterable[Job], done: Sequence[Record], clock: Clock) -> Iterator[Record | str]:
    """Do jobs in their order while the time lasts; what is skipped, and what fails, is said.

    A job that cannot be done gives a record with the reason in ``extra["failed"]``, whose seconds are those until it
    failed. One without enough memory is not tried again by later runs; others are.

    Args:
        jobs: The jobs.
        done: Records of earlier runs on this machine: their jobs are left out.
        clock: The budget.

    Yields:
        Records as they come, and sentences.
    """
    finished = {record.extra.get("job") for record in done if record.extra.get("failed") in (None, FULL)}
    skipped: Counter[str] = Counter()
    for job in jobs:
        if job.key in finished:
            continue
        if clock.left <= job.needs:
            skipped[f"{job.part} of {job.problem}"] += 1
            continue
        begin = time.perf_counter()
        try:
            found = job.run()
        except Exception as error:  # whatever it was, it must not cost the measurements after it
            reason = (
                FULL if "out of memory" in str(error).lower() else f"{type(error).__name__}: {error}".splitlines()[0]
            )
            yield _failed(job, reason, time.perf_counter() - begin)
            yield f"failed: {job.words}: {reason}"
            continue
        for record in found:
            yield dataclasses.replace(record, extra={"job": job.key, "part": job.part, **record.extra})
    for words, count in skipped.items():
        yield f"skipped, for want of time: {words}, {count} measurements"


def here(path: Path) -> list[Record]:
    """Records of earlier runs on this machine with these versions of everything.

    Args:
        path: The file, which may be missing.

    Returns:
        The records, oldest first.
    """
    if not path.is_file():
        return []
    own = records.machine()["gpu"], records.versions()
    return [record for record in records.load(path) if (record.machine.get("gpu"), record.versions) == own]


def _failed(job: Job, reason: str, seconds: float) -> Record:
    return Record(
        problem=job.problem,
        method=job.method,
        sampler="none",
        steps=job.steps,
        window="none",
        tol=None,
        samples=job.samples,
        rounds_mean=0.0,
        rounds_max=0,
        evaluations=0,
        seconds=seconds,
        extra={"job": job.key, "part": job.part, "key": job.key, "failed": reason},
    )
