"""The training script of the students: the teacher's trajectories, one step of each student, folders that load."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import paradrift as pd
from paradrift.pretrained.students import FOLDERS, TIMES, pretrained_student

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    yield importlib.import_module("train_students")
    torch.set_num_threads(threads)


def run(script, *words):
    result = CliRunner().invoke(script.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_trajectories_are_those_of_the_multistep_sampler(script):
    """Against the library's DPM-Solver++ 2M on the same nodes: two programs, one formula."""
    teacher = pd.pretrained("digits", labels=[3, 8])
    start = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    states, data = script.solve(teacher, start, torch.arange(2))
    table = pd.DPMpp2M(short=0).tableau(teacher.schedule, np.array([*script.NODES, -1.0]))
    rows = pd.sample(teacher, (2, 1, 28, 28), sampler=table, start=start, solver=pd.sequential(), trajectory=True)
    places = [0, *(script.NODES.index(time) for time in TIMES)]
    assert torch.allclose(states, rows.trajectory[:, places, 0], atol=1e-4)
    model = pd.Reform(teacher, pd.Form.DATA)
    for index, time in enumerate(TIMES):
        found = model(states[:, index + 1, None], torch.full((2,), float(time)), torch.arange(2))
        assert torch.allclose(data[:, index, None], found, atol=1e-4)


@pytest.mark.parametrize("name", ["trajectory", "consistency"])
def test_one_step_moves_a_student_and_exports_a_folder_that_loads(script, tmp_path, name, monkeypatch):
    data, folder = tmp_path / "data", tmp_path / name
    run(script, "generate", "--data", data, "--samples", 4, "--chunk", 2)
    written = sorted(data.glob("*.npz"))
    assert [path.name for path in written] == ["00000.npz", "00001.npz"]
    before = [path.stat().st_mtime_ns for path in written]
    run(script, "generate", "--data", data, "--samples", 4, "--chunk", 2)
    assert [path.stat().st_mtime_ns for path in written] == before
    small = ["--hidden", 32, "--layers", 1, "--batch", 2, "--minutes", 0, "--held-out", 1, "--eager"]
    output = run(script, "train", name, "--data", data, "--folder", folder, *small)
    assert "step 1 loss" in output
    assert "step 1 loss" in run(script, "train", name, "--data", data, "--folder", folder, "--begin", folder, *small)
    monkeypatch.setitem(sys.modules["paradrift.pretrained.students"].FOLDERS, name, folder)
    student = pretrained_student(name, labels=[3, 1])
    x, t = torch.randn(3, 1, 28, 28), torch.full((3,), 980.0)
    with torch.inference_mode():
        out = student.model(x, t, torch.tensor([0, 1, 0]))
    assert out.shape == ((len(TIMES),) if name == "trajectory" else ()) + (3, 1, 28, 28)
    # The last layer starts at zero, so only a step makes the output of either another than its start.
    assert bool(out.abs().amax() > 0)


def test_what_is_no_embedded_student_is_refused():
    with pytest.raises(pd.SpecError, match="expected a student among trajectory, consistency, found 'teacher'"):
        pretrained_student("teacher")
    with pytest.raises(pd.SpecError, match=r"expected digits 0 to 9 as labels, one for each sample, found \[12\]"):
        pretrained_student("trajectory", labels=[12])
    with pytest.raises(pd.SpecError, match="expected one call of the trajectory network, which knows starts only"):
        pretrained_student("trajectory", calls=2)


def test_the_embedded_students_are_small_and_near_their_teacher():
    """Nearer to its answers than its own first prediction, held: by a third at their training, on other samples."""
    assert sum(path.stat().st_size for folder in FOLDERS.values() for path in folder.rglob("*.safetensors")) < 4e6
    teacher, shape = pd.pretrained("digits"), (20, 1, 28, 28)
    wanted = pd.sample(teacher, shape, sampler=pd.DPMpp2M(), steps=15, solver=pd.sequential(), seed=5)
    start = pd.sample(teacher, shape, sampler=pd.DDIM(), steps=1, solver=pd.sequential(), seed=5, trajectory=True)
    assert start.trajectory is not None
    x, t, sample = start.trajectory[:, 0], torch.full((20,), 980.0), torch.arange(20)

    def miss(model):
        with torch.inference_mode():
            answer = model(x, t, sample)
        end = answer if answer.ndim == 4 else answer[-1]
        return float((end - wanted.samples).square().mean().sqrt())

    held = miss(pd.Reform(teacher, pd.Form.DATA))
    for name in FOLDERS:
        assert miss(pretrained_student(name).model) < 0.8 * held
