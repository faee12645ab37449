"""Train the class-conditional MNIST denoiser that comes with paradrift.

    python examples/train_digits.py measure            # choose an architecture by its cost
    python examples/train_digits.py train              # train, or resume, and export
    python examples/train_digits.py classify           # train the independent judge
    python examples/train_digits.py evaluate           # class agreement and Frechet distance

The denoiser is diffusers' ``DiTTransformer2DModel``, so the exported folder loads with ``from_pretrained`` and needs no
code from here. Images are float tensors of shape (batch, 1, 28, 28) in [-1, 1] throughout. Without ``--data`` they come
from OpenML, which needs scikit-learn.
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from diffusers import DDPMScheduler, DiTTransformer2DModel
from torch import Tensor, nn

NULL_CLASS = 10

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
DataOption = Annotated[Path | None, typer.Option(help="npz with train_x, train_y, test_x, test_y; else OpenML.")]
ThreadsOption = Annotated[int, typer.Option(help="Torch threads.")]


def load_digits(data: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read MNIST.

    Args:
        data: An npz file with uint8 images ``train_x`` (n, 28, 28), ``test_x`` and their labels
            ``train_y``, ``test_y``. None downloads the same images from OpenML.

    Returns:
        Training images (n, 1, 28, 28) in [-1, 1], training labels (n,), test images, test labels.
    """
    if data is not None:
        with np.load(data) as archive:
            arrays = [archive[name] for name in ("train_x", "train_y", "test_x", "test_y")]
    else:
        from sklearn.datasets import fetch_openml

        pixels, labels = fetch_openml("mnist_784", return_X_y=True, as_frame=False)
        pixels, labels = pixels.reshape(-1, 28, 28), labels.astype(np.int64)
        # OpenML keeps the original order: 60,000 training images, then the 10,000 test images.
        arrays = [pixels[:60_000], labels[:60_000], pixels[60_000:], labels[60_000:]]
    train_x, train_y, test_x, test_y = (torch.as_tensor(np.asarray(a)) for a in arrays)

    def scaled(images: Tensor) -> Tensor:
        return images[:, None].float() / 127.5 - 1

    return scaled(train_x), train_y.long(), scaled(test_x), test_y.long()


def make_denoiser(hidden: int, layers: int) -> DiTTransformer2DModel:
    """Build a 16-token diffusion transformer with the adaLN-Zero initialisation.

    Args:
        hidden: Width of a token, a multiple of the head width 32.
        layers: Number of transformer blocks.

    Returns:
        The model in eval mode: in train mode diffusers drops the label independently in every
        block, which almost never shows the network the fully unconditional input that
        classifier-free guidance asks for. ``training_loss`` drops labels once per image instead.
    """
    model = DiTTransformer2DModel(
        num_attention_heads=hidden // 32,
        attention_head_dim=32,
        in_channels=1,
        out_channels=1,
        num_layers=layers,
        sample_size=28,
        patch_size=7,
        num_embeds_ada_norm=NULL_CLASS,
        norm_type="ada_norm_zero",
    )
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    # diffusers leaves out the zero initialisation of the DiT paper, as it only loads weights.
    gates = [block.norm1.linear for block in model.transformer_blocks]
    for linear in [*gates, model.proj_out_1, model.proj_out_2]:
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    return model.eval()


def make_scheduler() -> DDPMScheduler:
    """Build the noise schedule of the model: DDPM's linear betas with velocity prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        clip_sample=False,
    )


def training_loss(
    denoiser: nn.Module,
    scheduler: DDPMScheduler,
    images: Tensor,
    labels: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Mean squared velocity error on one batch.

    Args:
        denoiser: The network, called as diffusers calls it.
        scheduler: Supplies the noising and the velocity target.
        images: Clean images (batch, 1, 28, 28).
        labels: Classes (batch,).
        rng: Source of timesteps, noise and label dropout.

    Returns:
        A scalar.
    """
    batch = images.shape[0]
    # Stratified timesteps: each batch covers the schedule evenly, which lowers gradient noise.
    strata = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
    timesteps = (strata * scheduler.config.num_train_timesteps).long()
    noise = torch.randn(images.shape, generator=rng)
    dropped = torch.rand(batch, generator=rng) < 0.1
    labels = torch.where(dropped, NULL_CLASS, labels)
    noisy = scheduler.add_noise(images, noise, timesteps)
    target = scheduler.get_velocity(images, noise, timesteps)
    return F.mse_loss(denoiser(noisy, timestep=timesteps, class_labels=labels).sample, target)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 3 % of the run, then a cosine down to 1 % of the peak."""
    warmup = max(1, round(0.03 * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def export(average: DiTTransformer2DModel, folder: Path) -> None:
    """Write the averaged weights as fp16 safetensors, with the scheduler beside them."""
    half = DiTTransformer2DModel.from_config(average.config)
    half.load_state_dict(average.state_dict())
    half.half().save_pretrained(folder)
    make_scheduler().save_pretrained(folder / "scheduler")


@app.command()
def train(
    data: DataOption = None,
    checkpoint: Annotated[Path, typer.Option(help="Resumed when it exists.")] = Path("out/digits.ckpt"),
    folder: Annotated[Path, typer.Option(help="Where the model is exported.")] = Path("out/digits"),
    hidden: int = 128,
    layers: int = 6,
    steps: int = 6000,
    batch: int = 128,
    peak_lr: float = 1e-3,
    decay: Annotated[float, typer.Option(help="Of the weight average.")] = 0.9995,
    save_every: int = 500,
    compiled: Annotated[bool, typer.Option("--compiled/--eager")] = True,
    threads: ThreadsOption = 2,
    seed: int = 0,
) -> None:
    """Train the denoiser, resuming from the checkpoint, and export the averaged weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    images, labels, _, _ = load_digits(data)
    scheduler, model = make_scheduler(), make_denoiser(hidden, layers)
    average = make_denoiser(hidden, layers).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    first, seconds, smooth = 0, 0.0, math.nan
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        rng.set_state(state["rng"])
        first, seconds = state["step"], state["seconds"]
        typer.echo(f"resumed at step {first}")
    network = torch.compile(model, dynamic=False) if compiled else model
    parameters, averaged = list(model.parameters()), list(average.parameters())
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter() - seconds
    for step in range(first, steps):
        rate = learning_rate(step, steps, peak_lr)
        for group in optimizer.param_groups:
            group["lr"] = rate
        picked = torch.randint(images.shape[0], (batch,), generator=rng)
        loss = training_loss(network, scheduler, images[picked], labels[picked], rng)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        # A short memory at first, so that the average forgets the initialisation.
        torch._foreach_lerp_(averaged, parameters, 1 - min(decay, (1 + step) / (10 + step)))
        smooth = loss.item() if math.isnan(smooth) else 0.99 * smooth + 0.01 * loss.item()
        done = step + 1
        if done % 100 == 0 or done == steps:
            seconds = time.perf_counter() - started
            typer.echo(f"step {done} loss {smooth:.4f} lr {rate:.2e} {seconds:.0f} s")
        if done % save_every == 0 or done == steps:
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": rng.get_state(),
                "step": done,
                "seconds": time.perf_counter() - started,
            }
            partial = checkpoint.with_suffix(".partial")
            torch.save(state, partial)
            partial.replace(checkpoint)  # atomic: a killed run never leaves half a checkpoint
    export(average, folder)


@app.command()
def measure(
    shapes: Annotated[list[str], typer.Option("--shape", help="hidden x layers")] = [  # noqa: B006
        "128x4",
        "128x6",
        "160x4",
        "192x3",
        "192x4",
    ],
    repeats: int = 30,
) -> None:
    """Print t(rows) and the best speed-up a window of W steps could reach over 1000 steps."""
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for shape in shapes:
            hidden, layers = map(int, shape.split("x"))
            model = make_denoiser(hidden, layers)
            weights = sum(parameter.numel() for parameter in model.parameters())
            cost = {rows: median_seconds(model, rows, repeats) for rows in (1, 8, 16, 32, 64)}
            typer.echo(f"{shape}, {weights / 1e6:.2f} M parameters, {threads} thread(s)")
            for rows, seconds in cost.items():
                ceiling = 1000 * cost[1] / (math.ceil(1000 / rows) * seconds)
                typer.echo(f"  t({rows}) = {1e3 * seconds:6.2f} ms   ceiling {ceiling:5.2f}")


@torch.inference_mode()
def median_seconds(model: DiTTransformer2DModel, rows: int, repeats: int) -> float:
    """Median wall time of one call on ``rows`` images, after three calls of warm-up."""
    images, timesteps = torch.randn(rows, 1, 28, 28), torch.full((rows,), 500)
    labels, durations = torch.arange(rows) % 10, []
    for call in range(3 + repeats):
        started = time.perf_counter()
        model(images, timestep=timesteps, class_labels=labels)
        if call >= 3:
            durations.append(time.perf_counter() - started)
    return statistics.median(durations)


if __name__ == "__main__":
    from judge_digits import app as judging  # the independent classifier: its commands are this script's too

    app.registered_commands += judging.registered_commands
    app()
