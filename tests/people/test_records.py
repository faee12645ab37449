"""Records: what is written is what is read, and every line says where it comes from."""

import dataclasses

import pytest

from paradrift.bench import records
from paradrift.bench.records import Record
from paradrift.errors import SpecError

ONE = Record(
    problem="digits",
    method="default",
    sampler="ddpm",
    steps=1000,
    window="sliding 16",
    tol=1e-2,
    samples=4,
    rounds_mean=70.5,
    rounds_max=75,
    evaluations=4600,
    seconds=2.0,
    sequential_seconds=9.0,
    error_median=3e-3,
    error_worst=8e-3,
    extra={"repetitions": 7},
)


def test_round_trip(tmp_path):
    other = dataclasses.replace(ONE, tol=None, error_median=None, time=records.now())
    path = tmp_path / "deep" / "runs.jsonl"
    records.append(path, ONE)
    records.append(path, other)
    assert records.load(path) == [ONE, other]


def test_says_where_it_comes_from():
    assert {"processor", "cores", "threads", "gpu", "system"} == set(ONE.machine)
    assert {"python", "paradrift", "torch", "numpy", "diffusers"} == set(ONE.versions)
    assert ONE.commit is None or len(ONE.commit.rstrip("+")) == 12
    assert ONE.time.endswith("+00:00")


def test_one_line_for_a_person():
    assert records.line(ONE) == (
        "digits, ddpm, 1000 steps, default: 70.5 rounds, 2.00 s (sequential 9.00 s) error 3.0e-03, worst 8.0e-03"
    )


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match="expected a file of benchmark records at .*, found none"):
        records.load(tmp_path / "none.jsonl")


@pytest.mark.parametrize("text", ["not json", '{"problem": "digits"}', '{"colour": 1}', "[1]"])
def test_line_that_is_no_record(tmp_path, text):
    (tmp_path / "runs.jsonl").write_text(f"\n{text}\n")
    with pytest.raises(SpecError, match="expected a benchmark record in line 2"):
        records.load(tmp_path / "runs.jsonl")
