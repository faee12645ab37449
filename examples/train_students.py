"""Train the two students of the embedded digits: networks that guess a whole solve of their teacher.

    python examples/train_students.py generate                # the teacher's trajectories, guided
    python examples/train_students.py train trajectory        # start noise and label to eight data predictions
    python examples/train_students.py train consistency       # any point of a trajectory to its end
    python examples/train_students.py evaluate                # distance of both to the teacher

No pictures are needed: a student sees its teacher's trajectories alone. Both are diffusers' ``DiTTransformer2DModel``,
so the exported folders load with ``from_pretrained``. The trajectory network answers in one call, in eight channels
(an operator network as in DSNO, arXiv 2211.13449). The consistency student answers with the end of the trajectory that
its input lies on (arXiv 2303.01469); as whole trajectories are stored, it is trained on their ends themselves.
"""

from __future__ import annotations

import math
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import Tensor, nn
from train_digits import ThreadsOption, make_denoiser, make_scheduler

import paradrift as pd
from paradrift.pretrained.students import TIMES as LEVELS

# The nodes of the teacher's solver; every second one is a level of the trajectory network.
NODES = (980, 930, 875, 812, 750, 687, 625, 562, 500, 437, 375, 312, 250, 187, 125, 62, 15)
STARTS = (955, 1000)  # first times of the samplers in use, all of them nothing but noise

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DataOption = Annotated[Path, typer.Option(help="Folder of the trajectories.")]


class Kind(StrEnum):
    """The two students."""

    trajectory = "trajectory"
    consistency = "consistency"


def make_student(kind: Kind, hidden: int, layers: int, teacher: nn.Module | None = None) -> DiTTransformer2DModel:
    """Build a student, from parts of its teacher where they fit.

    Args:
        kind: Which student.
        hidden: Width of a token, a multiple of the head width 32.
        layers: Number of transformer blocks.
        teacher: The teacher's network; its blocks, evenly spaced, are where a student of its width begins.

    Returns:
        The model in eval mode; the trajectory network has a channel for each level.
    """
    student = make_denoiser(hidden, layers)
    if kind is Kind.trajectory:
        student.proj_out_2 = nn.Linear(hidden, student.proj_out_2.out_features * len(LEVELS))
        nn.init.zeros_(student.proj_out_2.weight)
        nn.init.zeros_(student.proj_out_2.bias)
        student.out_channels = len(LEVELS)
        student.register_to_config(out_channels=len(LEVELS))
    if isinstance(teacher, DiTTransformer2DModel) and teacher.proj_out_1.in_features == hidden:
        depth = len(teacher.transformer_blocks)
        for index, block in enumerate(student.transformer_blocks):
            block.load_state_dict(teacher.transformer_blocks[index * (depth - 1) // max(1, layers - 1)].state_dict())
        ends = ["pos_embed", "proj_out_1"] + ["proj_out_2"] * (kind is Kind.consistency)
        for name in ends:
            student.get_submodule(name).load_state_dict(teacher.get_submodule(name).state_dict())
    return student.eval()


def levels() -> tuple[Tensor, Tensor]:
    """Signal and noise levels of all 1000 times, float32."""
    cumulative = make_scheduler().alphas_cumprod.double()
    return cumulative.sqrt().float(), (1 - cumulative).sqrt().float()


@torch.inference_mode()
def solve(teacher: pd.Denoiser, start: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The teacher's trajectories by DPM-Solver++ 2M.

    Args:
        teacher: The guided denoiser, in v form.
        start: Noise, shape (S, 1, 28, 28).
        samples: Which sample of the teacher each is, shape (S,).

    Returns:
        States at the start and at the levels, shape (S, 9, 28, 28); data predictions at the levels, (S, 8, 28, 28).
    """
    alpha, sigma = levels()
    x, before, states, data = start, None, [start], []
    for index, node in enumerate(NODES):
        a, s = alpha[node], sigma[node]
        prediction = a * x - s * teacher(x, torch.full((len(x),), float(node)), samples)
        if node in LEVELS:
            states.append(x)
            data.append(prediction)
        if index + 1 == len(NODES):
            break
        a_next, s_next = alpha[NODES[index + 1]], sigma[NODES[index + 1]]
        step = (a_next / s_next).log() - (a / s).log()
        direction = prediction
        if before is not None:
            ratio = before[1] / step
            direction = prediction + (prediction - before[0]) / (2 * ratio)
        before = prediction, step
        x = s_next / s * x - a_next * torch.expm1(-step) * direction
    return torch.cat(states, 1), torch.cat(data, 1)


@app.command()
def generate(
    data: DataOption = Path("out/trajectories"),
    samples: int = 16_384,
    chunk: int = 256,
    guidance: float = 2.0,
    threads: ThreadsOption = 1,
) -> None:
    """Write the teacher's trajectories, one file a chunk; chunks that exist are left as they are."""
    torch.set_num_threads(threads)
    data.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    for index in range(math.ceil(samples / chunk)):
        path = data / f"{index:05d}.npz"
        if path.exists():
            continue
        rng = torch.Generator().manual_seed(index)
        labels = torch.randint(10, (chunk,), generator=rng)
        start = torch.randn(chunk, 1, 28, 28, generator=rng)
        teacher = pd.pretrained("digits", labels=labels.tolist(), guidance=guidance)
        states, predictions = solve(teacher, start, torch.arange(chunk))
        partial = path.with_suffix(".partial.npz")
        np.savez(
            partial,
            labels=labels.numpy(),
            states=states.half().numpy(),
            data=predictions.half().numpy(),
        )
        partial.replace(path)
        typer.echo(f"{(index + 1) * chunk} trajectories, {time.perf_counter() - started:.0f} s")


def load(data: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Read all chunks: labels (N,), states (N, 9, 28, 28) and data predictions (N, 8, 28, 28) in float16."""
    parts = []
    for path in sorted(data.glob("*.npz")):
        if ".partial" not in path.name:
            with np.load(path) as archive:
                parts.append([torch.from_numpy(archive[name]) for name in ("labels", "states", "data")])
    if not parts:
        raise typer.BadParameter(f"expected trajectories in {data}, found none: run generate first")
    labels, states, predictions = (torch.cat(part) for part in zip(*parts, strict=True))
    return labels, states, predictions


def predict(kind: Kind, student: nn.Module, x: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
    """What a student says.

    Args:
        kind: Which student.
        student: The network, called as diffusers calls it.
        x: States, shape (R, 1, 28, 28).
        timestep: Their times, shape (R,), int64.
        labels: Classes, shape (R,).

    Returns:
        Data predictions at the levels, shape (R, 8, 28, 28), or the end of the trajectory, shape (R, 1, 28, 28). The
        output of the consistency student is a velocity, so that it is the identity where there is no noise.
    """
    out = student(x, timestep=timestep, class_labels=labels).sample
    if kind is Kind.trajectory:
        return out
    alpha, sigma = (level[timestep].reshape(-1, 1, 1, 1) for level in levels())
    return alpha * x - sigma * out


def training_loss(
    kind: Kind,
    student: nn.Module,
    labels: Tensor,
    states: Tensor,
    predictions: Tensor,
    variance: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Mean squared error against the teacher on one batch, the trajectory network's relative to each level's variance.

    Predictions differ from sample to sample ten times more at the end of a trajectory than at its beginning, where a
    solve loses its rounds; an error of pixels would be an error of the last levels.

    Args:
        kind: Which student.
        student: The network.
        labels: Classes, shape (batch,).
        states: States at the start and the levels, shape (batch, 9, 28, 28).
        predictions: The teacher's data predictions, shape (batch, 8, 28, 28).
        variance: Of these over samples, mean over pixels, shape (8,).
        rng: Source of times.

    Returns:
        A scalar.
    """
    batch = len(labels)
    timestep = torch.randint(*STARTS, (batch,), generator=rng)
    if kind is Kind.trajectory:
        found = predict(kind, student, states[:, :1].float(), timestep, labels)
        return ((found - predictions.float()).square().mean((0, 2, 3)) / variance).mean()
    # Half of the batch at the start, where the student is called; the last level is the end already.
    place = torch.randint(1, len(LEVELS), (batch,), generator=rng) * (torch.rand(batch, generator=rng) < 0.5)
    timestep = torch.where(place > 0, torch.tensor([0, *LEVELS])[place], timestep)
    x = states[torch.arange(batch), place][:, None].float()
    return F.mse_loss(predict(kind, student, x, timestep, labels), predictions[:, -1:].float())


@app.command()
def train(
    kind: Kind,
    data: DataOption = Path("out/trajectories"),
    folder: Annotated[Path | None, typer.Option(help="Where it is exported; out/KIND if none is named.")] = None,
    begin: Annotated[Path | None, typer.Option(help="Folder of a student to go on from.")] = None,
    hidden: int = 128,
    layers: int = 3,
    minutes: Annotated[float, typer.Option(help="Length of the training.")] = 18.0,
    batch: int = 128,
    peak_lr: float = 1e-3,
    decay: Annotated[float, typer.Option(help="Of the weight average.")] = 0.9995,
    held_out: Annotated[int, typer.Option(help="Trajectories for the validation error.")] = 512,
    compiled: Annotated[bool, typer.Option("--compiled/--eager")] = True,
    threads: ThreadsOption = 1,
    seed: int = 0,
) -> None:
    """Train one student for so many minutes and export its averaged weights in float16."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    labels, states, predictions = load(data)
    kept = len(labels) - held_out
    variance = predictions[: min(kept, 4096)].float().var(0, correction=0).mean((1, 2)).clamp_min(1e-6)
    teacher = pd.denoisers.modules(pd.pretrained("digits"))[0]
    model, average = (make_student(kind, hidden, layers, teacher) for _ in range(2))
    if begin is not None:
        before = DiTTransformer2DModel.from_pretrained(begin, torch_dtype=torch.float32, low_cpu_mem_usage=False)
        model.load_state_dict(before.state_dict())
    average.load_state_dict(model.state_dict())
    average.requires_grad_(False)
    network = torch.compile(model, dynamic=False) if compiled else model
    parameters, averaged = list(model.parameters()), list(average.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    smooth, step, started = math.nan, 0, time.perf_counter()
    while not step or time.perf_counter() - started < 60 * minutes:
        # The cosine follows the clock: it ends where the time does, however fast the machine.
        spent = min(1.0, (time.perf_counter() - started) / (60 * minutes)) if step else 0.0
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * min(1.0, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent)))
        picked = torch.randint(kept, (batch,), generator=rng)
        loss = training_loss(kind, network, labels[picked], states[picked], predictions[picked], variance, rng)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, 1 - min(decay, (1 + step) / (10 + step)))
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        step += 1
        if step % 250 == 0:
            report(kind, average, step, smooth, labels[kept:], states[kept:], predictions[kept:], started)
    report(kind, average, step, smooth, labels[kept:], states[kept:], predictions[kept:], started)
    average.half().save_pretrained(folder or Path("out") / kind)


@torch.inference_mode()
def report(
    kind: Kind,
    student: nn.Module,
    step: int,
    loss: float,
    labels: Tensor,
    states: Tensor,
    predictions: Tensor,
    started: float,
) -> None:
    """Print the loss and the error of the averaged weights from the start, on held-out trajectories."""
    timestep = torch.full((len(labels),), NODES[0])
    found = predict(kind, student, states[:, :1].float(), timestep, labels)
    wanted = predictions.float() if kind is Kind.trajectory else predictions[:, -1:].float()
    errors = (found - wanted).square().mean((0, 2, 3)).sqrt().tolist()
    words = " ".join(f"{error:.3f}" for error in errors)
    typer.echo(f"step {step} loss {loss:.4f} held-out rms {words} {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    app()
