"""Text to image along the lines of another picture, parallel in time: Stable Diffusion with a ControlNet.

Two networks take turns: the ControlNet's outputs are arguments of the UNet. Both are replayed, a window of steps at a
time; nothing has to be said about how they depend on each other. With real weights (``edges.png`` holds white lines on
black, as a Canny filter draws them; ``--edges`` draws such lines from a photograph):

    python examples/controlnet.py --image edges.png --prompt "a bird of glass" --dtype float16 --compare

Without any (tiny random networks and a disc of grey):

    python examples/controlnet.py --tiny
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny_pipelines
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from PIL import Image, ImageFilter, ImageOps

import paradrift as pd


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stable-diffusion-v1-5/stable-diffusion-v1-5", help="a hub id or a folder")
    parser.add_argument("--controlnet", default="lllyasviel/sd-controlnet-canny", help="likewise")
    parser.add_argument("--tiny", action="store_true", help="tiny random networks instead, compared")
    parser.add_argument("--image", type=Path, help="the picture to follow")
    parser.add_argument("--edges", action="store_true", help="follow the edges of the picture")
    parser.add_argument("--size", type=int, default=512, help="pixels a side, to which the picture is cut and scaled")
    parser.add_argument("--prompt", default="a bird of glass")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tol", type=float, default=1e-2, help="relative distance to the plain run")
    parser.add_argument("--window", type=int, help="network calls worked on at once (default: planned)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of the weights")
    parser.add_argument("--compare", action="store_true", help="also run plainly")
    parser.add_argument("--out", type=Path, default=Path("out/controlnet.png"))
    chosen = parser.parse_args(arguments)
    if not (chosen.image or chosen.tiny):
        parser.error("expected a picture to follow, found none: give --image FILE, or --tiny")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a picture."""
    chosen = parse(arguments)
    dtype = getattr(torch, chosen.dtype)
    if chosen.tiny:
        pipe = StableDiffusionControlNetPipeline.from_pipe(
            tiny_pipelines.text_to_image("sd"), controlnet=tiny_pipelines.controlnet()
        )
        size = tiny_pipelines.SIZE
    else:
        control = ControlNetModel.from_pretrained(chosen.controlnet, dtype=dtype)
        pipe = StableDiffusionControlNetPipeline.from_pretrained(chosen.model, controlnet=control, dtype=dtype)
        size = chosen.size
    pipe.to(chosen.device)
    lines = Image.open(chosen.image) if chosen.image else Image.radial_gradient("L")
    lines = ImageOps.fit(lines.convert("RGB"), (size, size))
    if chosen.edges:
        lines = ImageOps.autocontrast(lines.convert("L").filter(ImageFilter.FIND_EDGES)).convert("RGB")

    def draw(steps: int = chosen.steps) -> np.ndarray:
        return pipe(
            prompt=chosen.prompt,
            image=lines,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(chosen.seed),
            output_type="np",
        ).images[0]

    compare = chosen.compare or chosen.tiny
    if compare:
        draw(steps=2)  # warm up
    with pd.parallelize(pipe, tol=chosen.tol, window=chosen.window) as run:
        picture = draw()
    print(run.stats)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * picture).round().astype(np.uint8)).save(chosen.out)
    print(f"picture: {chosen.out}")

    if compare:
        begin = time.perf_counter()
        plain = draw()
        seconds = time.perf_counter() - begin
        error = np.sqrt(np.mean((picture - plain) ** 2)) / plain.std()  # in units of the picture's own deviation
        print(
            f"{run.stats.rounds} rounds for {run.stats.calls} calls; parallel {run.stats.seconds:.2f} s, plainly "
            f"{seconds:.2f} s, {seconds / run.stats.seconds:.2f} times faster; error {error:.1e}"
        )


if __name__ == "__main__":
    main()
