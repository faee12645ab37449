"""A sampling loop of your own, without any pipeline: plainly, replayed, and as a table.

The loop is ten lines around a UNet and a scheduler. ``paradrift.replay`` runs those very lines, parallel in time.
``paradrift.sample`` does not: it reads the scheduler as a table and solves the whole chain with a solver of its own,
which saves the work of running the loop again and again, and says how far each sample may be off. All three draw the
same noise, so all three draw the same picture. With real weights:

    python examples/hand_written_loop.py --model google/ddpm-cifar10-32 --steps 1000 --rows 4
    python examples/hand_written_loop.py --model google/ddpm-cat-256 --steps 250

Without any (a tiny random UNet, whose picture is noise):

    python examples/hand_written_loop.py --tiny
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import tiny_pipelines
import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from torch import Tensor

import paradrift as pd


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="google/ddpm-cifar10-32", help="a hub id or a folder of a UNet2DModel")
    parser.add_argument("--tiny", action="store_true", help="a tiny random UNet instead")
    parser.add_argument("--rows", type=int, default=2, help="how many pictures")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tol", type=float, default=1e-2, help="relative distance to the plain loop")
    parser.add_argument("--window", type=int, help="network calls worked on at once (default: planned)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("out/hand_written_loop.png"), help="a row for each way")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the same pictures three times."""
    chosen = parse(arguments)
    unet = tiny_pipelines.unet() if chosen.tiny else UNet2DModel.from_pretrained(chosen.model)
    unet.to(chosen.device).requires_grad_(False)
    trained = DDPMScheduler() if chosen.tiny else DDPMScheduler.from_pretrained(chosen.model)
    scheduler = DDPMScheduler.from_config(trained.config, clip_sample=False)  # clipping has no table
    shape = (chosen.rows, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)

    def loop(generator: torch.Generator) -> Tensor:
        scheduler.set_timesteps(chosen.steps)
        x = torch.randn(shape, generator=generator).to(chosen.device)
        for t in scheduler.timesteps:
            noise = unet(x, t).sample
            x = scheduler.step(noise, t, x, generator=generator).prev_sample
        return x

    unet(torch.zeros(shape, device=chosen.device), 0)  # warm up
    begin = time.perf_counter()
    plain = loop(torch.Generator().manual_seed(chosen.seed))
    plain_seconds = time.perf_counter() - begin
    print(f"plain loop: {chosen.steps} calls, {plain_seconds:.2f} s")

    # The very same loop, run several times; what it changes is named, and put back before each.
    generator = torch.Generator().manual_seed(chosen.seed)
    replayed, stats = pd.replay(
        lambda: loop(generator),
        {"unet": unet},
        objects=[scheduler],
        generators=[generator],
        tol=chosen.tol,
        window=chosen.window,
    )
    print(stats)
    report("replay", replayed, plain, stats.rounds, stats.calls, stats.seconds, plain_seconds)

    # The same sampler without the loop: the scheduler as it stands, and a generator as the loop's began.
    scheduler.set_timesteps(chosen.steps)
    solution = pd.sample(
        pd.from_scheduler(unet, scheduler),
        shape,
        sampler=pd.Probed(scheduler),
        generator=torch.Generator().manual_seed(chosen.seed),
        tol=chosen.tol,
        window=pd.Sliding(chosen.window) if chosen.window else pd.Auto(),
        device=chosen.device,
    )
    table = solution.stats
    report("table", solution.samples, plain, table.rounds, table.nodes, table.seconds, plain_seconds)

    ways = torch.stack([plain, replayed, solution.samples]).cpu()  # (3, rows, channels, height, width)
    sheet = ways.permute(0, 3, 1, 4, 2).reshape(3 * shape[2], chosen.rows * shape[3], shape[1])
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    pixels = (255 * (sheet / 2 + 0.5).clamp(0, 1)).round().byte().numpy()
    Image.fromarray(pixels).save(chosen.out)
    print(f"pictures: {chosen.out}")


def report(way: str, found: Tensor, plain: Tensor, rounds: int, calls: int, seconds: float, before: float) -> None:
    """Say what one way cost, and how far it is from the plain loop."""
    error = float((found - plain).square().mean().sqrt() / plain.std())  # in units of the pictures' own deviation
    ratio = before / seconds
    print(f"{way}: {rounds} rounds for {calls} calls; {seconds:.2f} s, {ratio:.2f} times faster; error {error:.1e}")


if __name__ == "__main__":
    main()
