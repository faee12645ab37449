"""The command line: help that reads, one sentence and code 2 for bad input, and the main job with a solve replayed."""

import json
import types

import pytest
import torch

import paradrift as pd
from paradrift import choices
from paradrift.cli import main
from paradrift.errors import SpecError
from paradrift.solution import Status

COMMANDS = ("sample", "audit", "bench", "plot", "plan", "cite")


@pytest.fixture
def faked(monkeypatch, solved, replayed):
    """The library replaced by a replay, so that only the command line is tested; returns what it was called with."""
    calls = []

    def pretrained(name, labels, guidance, device, dtype):
        if name != "digits":
            raise SpecError(f"expected an embedded model, digits, found {name!r}")
        return types.SimpleNamespace(labels=labels, guidance=guidance, dtype=dtype, variance=None)

    def sample(denoiser, *, shape, callback, solver, **settings):
        calls.append(types.SimpleNamespace(denoiser=denoiser, shape=shape, solver=solver, **settings))
        width = 1 if solver == pd.sequential() else 16
        replayed(callback, shape, width)
        return solved(shape, width, status=faked.status, shift=0.0 if width == 1 else 1e-3)

    faked = types.SimpleNamespace(calls=calls, status=Status.CONVERGED)
    monkeypatch.setattr(pd, "pretrained", pretrained)
    monkeypatch.setattr(pd, "sample", sample)
    return faked


def sentence(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("paradrift: ")
    return lines[0].removeprefix("paradrift: ")


def test_help(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(capsys, command):
    assert main([command, "--help"]) == 0
    assert "Usage: paradrift" in capsys.readouterr().out


def test_help_of_sample_is_grouped(capsys):
    main(["sample", "--help"])
    text = capsys.readouterr().out
    for panel in ("What to draw", "How to draw it", "Where it runs", "What is written"):
        assert panel in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("paradrift 0.")


def test_cite(capsys):
    assert main(["cite"]) == 0
    text = capsys.readouterr().out
    assert "arXiv:2405.15986" in text
    assert text.count("@") == text.count("\n}")


def test_sample_draws_both_runs(faked, tmp_path, capsys):
    assert main(["sample", "--out", str(tmp_path), "--steps", "60", "--tensors"]) == 0
    text = capsys.readouterr().out
    for word in ("sequential", "parallel", "seconds", "rounds", "evaluations", "converged", "12 rounds where"):
        assert word in text
    assert {path.name for path in tmp_path.iterdir()} == {"samples.png", "convergence.png", "samples.safetensors"}
    sequential, parallel = faked.calls[1:]
    assert sequential.solver == pd.sequential()
    assert parallel.shape == (4, 1, 28, 28)
    assert parallel.denoiser.labels == [3, 1, 4, 1]
    assert (parallel.steps, parallel.seed, parallel.dtype) == (60, 0, torch.float32)
    assert parallel.solver.stop == pd.Tolerance(1e-2)


def test_sample_in_parallel_only(faked, tmp_path, capsys):
    assert main(["sample", "--out", str(tmp_path), "--no-sequential", "--labels", "7", "-n", "2"]) == 0
    assert "predicted" in capsys.readouterr().out
    assert faked.calls[-1].denoiser.labels == [7, 7]
    assert len(faked.calls) == 2


def test_sample_as_json(faked, tmp_path, capsys):
    assert main(["sample", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in found["runs"]] == ["sequential", "parallel"]
    assert found["settings"]["steps"] == 1000
    assert len(found["runs"][1]["error_measured"]) == 4
    assert max(found["runs"][1]["error_measured"]) < 1e-2


def test_interrupted_sequential_run_ends_it(faked, tmp_path, capsys):
    faked.status = Status.INTERRUPTED
    assert main(["sample", "--out", str(tmp_path)]) == 130
    assert len(faked.calls) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "code"), [(Status.BUDGET_EXHAUSTED, 1), (Status.INTERRUPTED, 130)])
def test_exit_code_without_convergence(faked, tmp_path, capsys, status, code):
    faked.status = status
    assert main(["sample", "--out", str(tmp_path), "--json", "--no-sequential"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][0]["status"] == [status.value] * 4
    assert found["runs"][0]["error_estimated"] == [None] * 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sample", "--sampler", "magic"], "'magic' is not one of"),
        (["sample", "--steps", "many"], "'--steps': Input should be a valid integer"),
        (["sample", "--window", "wide"], "expected a window of auto, whole, a width such as 16, or blocks:4, found"),
        (["sample", "--labels", "3,x"], "expected classes as whole numbers with commas between"),
        (["sample", "--number", "0"], "expected at least 1 sample"),
        (["sample", "--device", "abacus"], "expected a device of this machine, such as cpu or cuda, found 'abacus'"),
        (["sample", "--threads", "0"], "expected at least 1 thread"),
        (["sample", "--model", "faces"], "expected an embedded model, digits, found 'faces'"),
        (["sample", "--tol", "-1"], "expected a tolerance of at least 0, found -1.0"),
        (["sample", "--window", "0"], "expected a window of at least 1 node, found 0"),
        (
            ["sample", "--solver", "piadm-sde", "--tol", "1"],
            "expected no --tol, --kl or --exact beside --solver piadm-sde",
        ),
        (["sample", "--solver", "paradigms", "--exact"], "expected no --kl or --exact beside --solver paradigms"),
        (["sample", "--kl", "0.1", "--exact"], "expected one of --tol, --kl and --exact, found --kl and --exact"),
        (["sample", "--kl", "0"], "expected a positive budget in nats, found 0.0"),
        (["audit", "nowhere.safetensors"], "expected a solution file at nowhere.safetensors, found none"),
        (["sample", "--solver", "paradigms", "--window", "whole"], "expected a width such as 64 as window"),
        (["sample", "--colour", "red"], "No such option: --colour"),
        (["plot", "no-such-file.jsonl"], "expected a file of benchmark records at no-such-file.jsonl, found none"),
        (["plot"], "Missing argument"),
        (["bench", "no-such-benchmark"], "expected a benchmark of"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_bad_input_is_one_sentence(faked, tmp_path, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert expected in sentence(capsys).replace("  ", " ")


def test_folder_that_cannot_be_made(faked, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sample", "--out", str(tmp_path / "file")]) == 2
    assert "expected a folder that can be written at" in sentence(capsys)


def test_plot_draws_what_bench_wrote(tmp_path, capsys):
    from paradrift.bench.records import Record, append

    base = dict(problem="toy", method="default", sampler="ddpm", steps=50, window="16", tol=1e-2, samples=8)
    base |= dict(rounds_mean=8.0, rounds_max=10, evaluations=900, seconds=0.5, error_median=4e-3, error_worst=9e-3)
    append(tmp_path / "toy.jsonl", Record(**base))
    assert main(["plot", str(tmp_path / "toy.jsonl"), "--out", str(tmp_path / "drawn")]) == 0
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"rounds.png", "calibration.png"}


def test_classes():
    assert choices.labels(None, None) == [3, 1, 4, 1]
    assert choices.labels(None, 12)[-3:] == [3, 3, 1]
    assert choices.labels("0, 9", None) == [0, 9]
    assert choices.labels("5", 3) == [5, 5, 5]
