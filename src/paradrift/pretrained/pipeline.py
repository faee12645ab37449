"""The embedded digits as an ordinary pipeline of diffusers: it knows nothing of parallel sampling."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from paradrift.pretrained import MODELS, NO_LABEL


class DigitsPipeline(DiffusionPipeline):
    """Class-conditional digits with classifier-free guidance.

    Args:
        transformer: The network.
        scheduler: Any scheduler of diffusers for v-prediction.
    """

    def __init__(self, transformer: DiTTransformer2DModel, scheduler: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        labels: Sequence[int],
        guidance: float | None = 2.0,
        num_inference_steps: int = 50,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw digits, one network call after the other.

        Args:
            labels: The digit of each sample.
            guidance: Scale of classifier-free guidance, which doubles the rows of each call; None: none.
            num_inference_steps: Steps of the scheduler.
            generator: Draws the noise.

        Returns:
            Pixels in [-1, 1], shape (S, 1, 28, 28).
        """
        x = randn_tensor((len(labels), 1, 28, 28), generator=generator, device=self.device)
        wanted = torch.tensor([*labels, *([] if guidance is None else [NO_LABEL] * len(labels))], device=x.device)
        scheduler: Any = self.scheduler
        extra = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
        scheduler.set_timesteps(num_inference_steps)
        x = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            rows = scheduler.scale_model_input(x if guidance is None else torch.cat([x, x]), t)
            output = self.transformer(rows, timestep=t.expand(len(rows)), class_labels=wanted).sample
            if guidance is not None:
                conditional, unconditional = output.chunk(2)
                output = unconditional + guidance * (conditional - unconditional)
            x = scheduler.step(output, t, x, **extra).prev_sample
        return x


def digits_pipeline(kind: Any = DDPMScheduler) -> DigitsPipeline:  # noqa: ANN401 - any scheduler class
    """The embedded model with a scheduler.

    Args:
        kind: Class of the scheduler; it is made from the configuration that the model was trained with.

    Returns:
        The pipeline.
    """
    folder = MODELS["digits"]
    model = DiTTransformer2DModel.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    trained = DDPMScheduler.load_config(folder, subfolder="scheduler", local_files_only=True)
    return DigitsPipeline(model.float().eval(), kind.from_config(trained))
