"""The training script of the digits: one step, a resumed run, and an export that diffusers loads."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from typer.testing import CliRunner

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    yield importlib.import_module("train_digits")
    torch.set_num_threads(threads)


@pytest.fixture
def train(script, tmp_path):
    """Runs the command up to a step on 64 made-up pictures; returns what it printed."""
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (64, 28, 28), dtype=np.uint8), rng.integers(0, 10, 64)
    data = tmp_path / "digits.npz"
    np.savez(data, train_x=pictures, train_y=labels, test_x=pictures, test_y=labels)

    def run(steps: int, checkpoint: str) -> str:
        small = ["--hidden", "32", "--layers", "1", "--batch", "16", "--save-every", "1", "--eager", "--threads", "1"]
        places = ["--data", str(data), "--checkpoint", str(tmp_path / checkpoint), "--folder", str(tmp_path / "model")]
        result = CliRunner().invoke(
            script.app, ["train", *places, *small, "--steps", str(steps)], catch_exceptions=False
        )
        assert result.exit_code == 0
        return result.output

    return run


def test_one_step_moves_the_weights_and_exports_a_diffusers_folder(train, tmp_path):
    train(1, "one.ckpt")
    model = DiTTransformer2DModel.from_pretrained(
        tmp_path / "model", torch_dtype=torch.float32, low_cpu_mem_usage=False
    ).eval()
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "model" / "scheduler")
    assert scheduler.config["prediction_type"] == "v_prediction"
    assert not scheduler.config["clip_sample"]
    pictures, labels = torch.zeros(2, 1, 28, 28), torch.tensor([3, 10])
    velocity = model(pictures, timestep=torch.tensor([5, 5]), class_labels=labels).sample
    assert velocity.shape == pictures.shape
    # The last layer starts at zero, so only a step makes the output other than zero.
    assert velocity.abs().max() > 0


def test_a_stopped_run_continues_at_its_step(train, tmp_path):
    train(2, "stopped.ckpt")
    assert torch.load(tmp_path / "stopped.ckpt", weights_only=True)["step"] == 2
    output = train(3, "stopped.ckpt")
    assert "resumed at step 2" in output
    assert "step 3 " in output
    assert torch.load(tmp_path / "stopped.ckpt", weights_only=True)["step"] == 3


def test_a_run_that_is_asked_for_no_more_steps_changes_nothing(train, tmp_path):
    train(2, "done.ckpt")
    before = torch.load(tmp_path / "done.ckpt", weights_only=True)["average"]
    train(2, "done.ckpt")
    after = torch.load(tmp_path / "done.ckpt", weights_only=True)["average"]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_labels_are_dropped_once_for_the_whole_network(script):
    """diffusers would drop them anew in each block, and the unconditional network would never be trained."""
    seen = []

    def network(noisy, timestep, class_labels):
        seen.append(class_labels)
        return type("Output", (), {"sample": noisy})

    rng = torch.Generator().manual_seed(0)
    labels = torch.full((2000,), 4)
    script.training_loss(network, script.make_scheduler(), torch.zeros(2000, 1, 28, 28), labels, rng)
    dropped = (seen[0] == script.NULL_CLASS).float().mean().item()
    assert dropped == pytest.approx(0.1, abs=0.02)
    assert not script.make_denoiser(32, 1).training
