"""Judge the digits of ``train_digits.py`` with a classifier that never saw the denoiser.

python examples/train_digits.py classify
python examples/train_digits.py evaluate --sampler ddpm --steps 1000 --samples 500
"""

from __future__ import annotations

import math
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from diffusers import DDIMScheduler, DDPMScheduler, DiTTransformer2DModel
from PIL import Image
from torch import Tensor, nn
from train_digits import NULL_CLASS, DataOption, ThreadsOption, load_digits

CHUNK = 250

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Sampler(StrEnum):
    """Sequential samplers the evaluation can draw with."""

    ddpm = "ddpm"
    ddim = "ddim"


class DigitClassifier(nn.Module):
    """Small convolutional judge, independent of the denoiser: logits (batch, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 5, stride=2, padding=2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 49, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 1, 28, 28) to logits (batch, 10)."""
        return self.head(self.features(images))


@app.command()
def classify(
    data: DataOption = None,
    judge: Annotated[Path, typer.Option(help="Where the classifier is stored.")] = Path("out/digit_classifier.pt"),
    epochs: int = 3,
    threads: ThreadsOption = 2,
) -> None:
    """Train the classifier that judges the samples, on the real training set."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    images, labels, test_images, test_labels = load_digits(data)
    model = DigitClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    batches = math.ceil(images.shape[0] / 128)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        model.train()
        for picked in torch.randperm(images.shape[0]).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(images[picked]), labels[picked]).backward()
            optimizer.step()
            rates.step()
        assigned, _ = judge_images(model.eval(), test_images)
        accuracy = (assigned == test_labels).float().mean()
        typer.echo(f"epoch {epoch + 1} test accuracy {accuracy:.2%}")
    judge.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), judge)


@torch.inference_mode()
def judge_images(model: DigitClassifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Classify images (n, 1, 28, 28) in chunks.

    Returns:
        Assigned classes (n,) and penultimate features (n, 64).
    """
    features = torch.cat([model.features(part) for part in images.split(CHUNK)])
    return model.head(features).argmax(dim=1), features


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Frechet distance between Gaussians fitted to two feature sets (n, d) and (m, d)."""
    means, covariances = [], []
    for features in (first.double(), second.double()):
        means.append(features.mean(dim=0))
        covariances.append(features.T.cov())
    # The product of two covariances has real, non-negative eigenvalues; rounding may not.
    eigenvalues = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0)
    spread = covariances[0].trace() + covariances[1].trace() - 2 * eigenvalues.sqrt().sum()
    return ((means[0] - means[1]).square().sum() + spread).item()


@torch.inference_mode()
def draw(
    model: nn.Module,
    scheduler: DDPMScheduler | DDIMScheduler,
    labels: Tensor,
    guidance: float,
    rng: torch.Generator,
) -> Tensor:
    """Draw one batch sequentially with classifier-free guidance.

    Args:
        model: The denoiser.
        scheduler: Diffusers scheduler with its timesteps already set.
        labels: Asked classes (batch,).
        guidance: Weight of the conditional prediction; 1 is no guidance.
        rng: Source of all noise.

    Returns:
        Images (batch, 1, 28, 28), clamped to [-1, 1].
    """
    images = torch.randn(labels.shape[0], 1, 28, 28, generator=rng)
    both = torch.cat([labels, torch.full_like(labels, NULL_CLASS)])
    for timestep in scheduler.timesteps:
        output = model(images.repeat(2, 1, 1, 1), timestep=timestep.expand(len(both)), class_labels=both).sample
        conditional, unconditional = output.chunk(2)
        velocity = unconditional + guidance * (conditional - unconditional)
        images = scheduler.step(velocity, timestep, images, generator=rng).prev_sample
    return images.clamp(-1, 1)


def save_grid(images: Tensor, path: Path, columns: int = 20) -> None:
    """Write images (n, 1, 28, 28) as one PNG, row by row, dropping an incomplete last row."""
    rows = images.shape[0] // columns
    tiles = images[: rows * columns].reshape(rows, columns, 28, 28)
    pixels = tiles.permute(0, 2, 1, 3).reshape(rows * 28, columns * 28)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(((pixels + 1) * 127.5).round().byte().numpy()).save(path)


@app.command()
def evaluate(
    data: DataOption = None,
    folder: Path = Path("src/paradrift/pretrained/digits"),
    judge: Path = Path("out/digit_classifier.pt"),
    samples: int = 500,
    sampler: Sampler = Sampler.ddpm,
    steps: int = 1000,
    guidance: float = 2.0,
    grid: Path = Path("out/digits.png"),
    compiled: Annotated[bool, typer.Option("--compiled/--eager")] = True,
    threads: ThreadsOption = 2,
    seed: int = 7,
) -> None:
    """Draw classes 0..9 in turn; report class agreement and the Frechet distance."""
    torch.set_num_threads(threads)
    model = DiTTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
    kind = DDPMScheduler if sampler is Sampler.ddpm else DDIMScheduler
    scheduler = kind.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(steps)
    network = torch.compile(model, dynamic=False) if compiled else model
    classifier = DigitClassifier()
    classifier.load_state_dict(torch.load(judge, weights_only=True))
    classifier.eval()
    rng = torch.Generator().manual_seed(seed)
    asked = torch.arange(samples) % 10
    started, parts = time.perf_counter(), []
    for labels in asked.split(CHUNK):
        parts.append(draw(network, scheduler, labels, guidance, rng))
        typer.echo(f"{sum(map(len, parts))} drawn, {time.perf_counter() - started:.0f} s")
    images = torch.cat(parts)
    save_grid(images, grid)
    assigned, features = judge_images(classifier, images)
    agreed = int((assigned == asked).sum())
    typer.echo(f"class agreement {agreed}/{samples} = {agreed / samples:.2%}")
    train_images, _, test_images, _ = load_digits(data)
    _, test_features = judge_images(classifier, test_images)
    # The distance is biased upwards by small sets, so the reference uses as many images.
    real = train_images[torch.randperm(train_images.shape[0], generator=rng)[:samples]]
    _, real_features = judge_images(classifier, real)
    typer.echo(
        f"Frechet distance to the test set: samples {frechet_distance(features, test_features):.3f}"
        f", as many training images {frechet_distance(real_features, test_features):.3f}"
    )


if __name__ == "__main__":
    app()
