"""The embedded digits as an ordinary diffusers pipeline, sampled plainly and parallel in time.

The pipeline below knows nothing of paradrift: it is what any user of diffusers would write.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

import paradrift as pd
from paradrift.pretrained import MODELS

NO_LABEL = 10


class DigitsPipeline(DiffusionPipeline):
    """Class-conditional digits with classifier-free guidance."""

    def __init__(self, transformer: DiTTransformer2DModel, scheduler: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self, labels: list[int], guidance: float, steps: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw digits."""
        x = randn_tensor((len(labels), 1, 28, 28), generator=generator) * self.scheduler.init_noise_sigma
        wanted = torch.tensor([*labels, *[NO_LABEL] * len(labels)])
        self.scheduler.set_timesteps(steps)
        for t in self.progress_bar(self.scheduler.timesteps):
            both = self.scheduler.scale_model_input(torch.cat([x, x]), t)
            output = self.transformer(both, timestep=t.expand(len(both)), class_labels=wanted).sample
            conditional, unconditional = output.chunk(2)
            x = (
                self.scheduler.step(
                    unconditional + guidance * (conditional - unconditional), t, x, generator=generator
                ).prev_sample
                if isinstance(self.scheduler, DDPMScheduler)
                else self.scheduler.step(unconditional + guidance * (conditional - unconditional), t, x).prev_sample
            )
        return x


def load(name: str) -> DigitsPipeline:
    """The pipeline with one of three schedulers."""
    folder = MODELS["digits"]
    model = DiTTransformer2DModel.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False).float()
    trained = DDPMScheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
    kinds = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpm++": DPMSolverMultistepScheduler}
    pipe = DigitsPipeline(model.eval(), kinds[name].from_config(trained.config))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    """Draw digits both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="*", default=["ddim:50", "dpm++:50", "ddpm:250"], help="scheduler:steps")
    parser.add_argument("--tol", type=float, default=1e-2)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--labels", type=int, nargs="*", default=[3])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="few steps: a check that all of it runs")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for run in ["ddim:8", "ddpm:8"] if chosen.tiny else chosen.runs:
        name, steps = run.split(":")
        pipe = load(name)

        def draw(pipe: DigitsPipeline = pipe, steps: int = int(steps)) -> Tensor:
            return pipe(chosen.labels, 2.0, steps, generator=torch.Generator().manual_seed(0))

        draw()  # warm up
        begin = time.perf_counter()
        plain = draw()
        sequential = time.perf_counter() - begin
        with pd.parallelize(pipe, tol=chosen.tol, window=chosen.window, strict=True) as running:
            found = draw()
        stats = running.stats
        error = float((found - plain).square().mean().sqrt()) / np.sqrt(0.3797)
        print(
            f"{name} {steps} steps: {stats.rounds} rounds, {stats.evaluations} evaluations for {stats.calls} calls, "
            f"{sequential / stats.seconds:.2f} times faster, error {error:.1e}, "
            f"networks {stats.model_seconds / stats.seconds:.0%} of the time"
        )


if __name__ == "__main__":
    main()
