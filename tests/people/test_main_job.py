"""The main job for real: the embedded model, few steps."""

import json

import pytest

from paradrift.bench import records
from paradrift.cli import main


def test_a_digit_sequentially_and_in_parallel(tmp_path, capsys):
    words = ["sample", "--out", str(tmp_path), "--labels", "7", "--steps", "24", "--window", "8", "--json", "--tensors"]
    assert main(words) == 0
    sequential, parallel = json.loads(capsys.readouterr().out)["runs"]
    assert sequential["stats"]["rounds"] == 24
    assert parallel["stats"]["rounds"] < 24
    assert parallel["status"] == ["converged"]
    assert max(parallel["error_measured"]) < 3e-2
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "convergence.png", "samples.safetensors"}


def test_no_steps(tmp_path, capsys):
    assert main(["sample", "--out", str(tmp_path), "--steps", "0"]) == 2
    assert capsys.readouterr().err == "paradrift: expected a positive number of steps, found 0\n"


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler-ancestral", "heun", "dpmpp-2m", "dpmpp-3m"])
def test_every_sampler(tmp_path, capsys, sampler):
    words = ["sample", "--out", str(tmp_path), "--labels", "7", "--steps", "16", "--sampler", sampler, "--json"]
    assert main(words) == 0
    assert max(json.loads(capsys.readouterr().out)["runs"][1]["error_measured"]) < 3e-2


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["piadm-sde", "paradigms", "sequential"])
def test_every_solver(tmp_path, capsys, solver):
    words = ["sample", "--out", str(tmp_path), "--labels", "7", "--steps", "24", "--solver", solver, "--json"]
    assert main([*words, "--blocks", "2", "--sweeps", "12"]) == 0
    assert max(json.loads(capsys.readouterr().out)["runs"][1]["error_measured"]) < 5e-2


@pytest.mark.slow
def test_headline_benchmark_runs(tmp_path):
    assert main(["bench", "headline", "--quick", "--out", str(tmp_path)]) == 0
    found = records.load(tmp_path / "headline.jsonl")
    assert [record.sampler for record in found] == ["DDPM"]
    assert all(record.error_worst is not None and record.error_worst < 3e-2 for record in found)
