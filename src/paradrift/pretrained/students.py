"""Two students of the embedded digits, as guesses: a trajectory network and a consistency student.

Both are diffusers ``DiTTransformer2DModel``s in folders of their own, with their model cards. They were distilled from
``pretrained("digits")`` with guidance 2 and know no other scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from paradrift.adapters import from_scheduler
from paradrift.denoisers import Reform
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.students import Student

FOLDERS = {name: Path(__file__).parent / f"digits-{name}" for name in ("trajectory", "consistency")}
TIMES = (875, 750, 625, 500, 375, 250, 125, 15)  # where the trajectory network predicts


@dataclass(frozen=True, eq=False)
class Network:
    """The trajectory network as a student's model: channels become predictions.

    Args:
        network: The transformer.
        labels: The digit of each sample, int64.
    """

    network: nn.Module = field(repr=False)
    labels: Tensor

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The transformer."""
        return (self.network,)

    def __call__(self, x: Tensor, t: Tensor, sample: Tensor) -> Tensor:
        """Predict the trajectory.

        Args:
            x: Starts, shape (R, 1, 28, 28).
            t: Their times, shape (R,).
            sample: Sample indices, shape (R,).

        Returns:
            Data predictions at :data:`TIMES`, shape (8, R, 1, 28, 28), in the dtype of the states.
        """
        dtype = next(self.network.parameters()).dtype
        out = self.network(x.to(dtype), timestep=t, class_labels=self.labels.to(x.device)[sample]).sample
        return out.transpose(0, 1)[:, :, None].to(x.dtype)


def pretrained_student(
    name: Literal["trajectory", "consistency"],
    *,
    labels: Sequence[int] | None = None,
    calls: int = 1,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Student:
    """An embedded student as a ready guess for ``pretrained("digits")``.

    Args:
        name: "trajectory": one call gives the data predictions of a whole chain without noise. "consistency": a call
            gives the end of the trajectory that a state lies on.
        labels: The digit of each sample, those of the teacher; None: 0, 1, ..., 9 in turn, for up to 1000 samples.
        calls: How often it is called; the trajectory network knows starts only.
        device: Where it runs.
        dtype: Precision that it runs in; the weights are stored in float16.

    Returns:
        The guess.

    Raises:
        SpecError: if there is no such student, a label is no digit, or the trajectory network is to be called twice.
    """
    if name not in FOLDERS:
        raise SpecError(f"expected a student among {', '.join(FOLDERS)}, found {name!r}")
    digits = list(range(10)) * 100 if labels is None else [int(label) for label in labels]
    if not digits or not all(0 <= digit <= 9 for digit in digits):
        raise SpecError(f"expected digits 0 to 9 as labels, one for each sample, found {digits}")
    if name == "trajectory" and calls > 1:
        raise SpecError(f"expected one call of the trajectory network, which knows starts only, found {calls}")
    # Slow to import, and not needed by those who bring their own model.
    from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    network = DiTTransformer2DModel.from_pretrained(
        FOLDERS[name], torch_dtype=dtype, local_files_only=True, low_cpu_mem_usage=False
    )
    network = nn.Module.to(network, device)
    teacher = Path(__file__).parent / "digits"
    scheduler = DDPMScheduler.from_pretrained(teacher, subfolder="scheduler", local_files_only=True)
    denoiser = from_scheduler(network, scheduler, conditioning={"class_labels": torch.tensor(digits)})
    if name == "trajectory":
        assert denoiser.schedule is not None
        times = np.array(TIMES, np.float64)
        levels = np.log(denoiser.schedule.alpha(times)) - np.log(denoiser.schedule.sigma(times))
        return Student(Network(network, torch.tensor(digits)), levels.tolist())
    return Student(Reform(denoiser, Form.DATA), calls=calls)
