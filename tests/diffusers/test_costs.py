"""What replaying itself costs, beside the networks."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from paradrift.diffusers import parallelize

_spec = importlib.util.spec_from_file_location("pipelines_stable", Path(__file__).with_name("pipelines_stable.py"))
_pipelines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pipelines)

pytestmark = pytest.mark.filterwarnings("ignore")

STEPS = 50
CALL = 0.1  # seconds of a guided call of SDXL at 1024 pixels on one GPU of a data centre


@pytest.mark.slow
def test_replaying_fifty_steps_of_sdxl_costs_less_than_a_tenth_of_its_networks() -> None:
    """The least of three runs on one thread; the latents are small, as tensor operations on a GPU are nearly free."""
    pipe, _ = _pipelines.STABLE["sdxl"]()

    def cheap(sample: Tensor, timestep: Any, *_: Any, **__: Any) -> tuple[Tensor]:
        return (0.3 * sample + 0.1 * torch.tanh(sample),)

    pipe.unet.forward = cheap
    embeddings = {
        "prompt_embeds": _pipelines._normal(1, 77, 8, seed=2),
        "negative_prompt_embeds": _pipelines._normal(1, 77, 8, seed=3),
        "pooled_prompt_embeds": _pipelines._normal(1, 8, seed=4),
        "negative_pooled_prompt_embeds": _pipelines._normal(1, 8, seed=5),
    }
    costs = []
    for _ in range(3):
        with parallelize(pipe, tol=1e-2, window=16, strict=True) as running:
            pipe(**embeddings, height=8, width=8, num_inference_steps=STEPS, output_type="latent")
        assert running.stats.calls == STEPS
        costs.append(running.stats.seconds - running.stats.model_seconds)
    assert min(costs) < 0.1 * STEPS * CALL
