"""Text to image, parallel in time: any pipeline of diffusers that takes a prompt, as it is.

The pipeline is called as always; the block around the call is all that paradrift needs. A tolerance finer than the
weights' precision asks for digits that are not there, and costs rounds: 1e-2 suits float16, 5e-2 bfloat16.
With real weights (``pip install accelerate`` loads them with less memory):

    python examples/text_to_image.py --model stable-diffusion-v1-5/stable-diffusion-v1-5 --dtype float16 --compare
    python examples/text_to_image.py --model stabilityai/stable-diffusion-xl-base-1.0 --dtype float16 --compare
    python examples/text_to_image.py --model black-forest-labs/FLUX.1-dev --dtype bfloat16 --tol 5e-2 --compare

Without any (a tiny random pipeline, whose picture is noise):

    python examples/text_to_image.py --tiny sd
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny_pipelines
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import paradrift as pd


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stable-diffusion-v1-5/stable-diffusion-v1-5", help="a hub id or a folder")
    parser.add_argument("--tiny", choices=["sd", "sdxl", "flux"], help="a tiny random pipeline instead, compared")
    parser.add_argument("--prompt", default="a lighthouse on a cliff, oil painting")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, help="pixels a side (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tol", type=float, default=1e-2, help="relative distance to the plain run")
    parser.add_argument("--window", type=int, help="network calls worked on at once (default: planned)")
    parser.add_argument("--max-rows", type=int, help="most network calls in one batch, to spare memory")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of the weights")
    parser.add_argument("--compare", action="store_true", help="also run plainly")
    parser.add_argument("--out", type=Path, default=Path("out/text_to_image.png"))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a picture."""
    chosen = parse(arguments)
    if chosen.tiny:
        pipe, size = tiny_pipelines.text_to_image(chosen.tiny), chosen.size or tiny_pipelines.SIZE
    else:
        pipe = DiffusionPipeline.from_pretrained(chosen.model, dtype=getattr(torch, chosen.dtype))
        size = chosen.size
    pipe.to(chosen.device)

    def draw(steps: int = chosen.steps) -> np.ndarray:
        return pipe(
            prompt=chosen.prompt,
            num_inference_steps=steps,
            height=size,
            width=size,
            generator=torch.Generator().manual_seed(chosen.seed),
            output_type="np",
        ).images[0]

    compare = chosen.compare or chosen.tiny
    if compare:
        draw(steps=2)  # warm up
    with pd.parallelize(pipe, tol=chosen.tol, window=chosen.window, max_rows=chosen.max_rows) as run:
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
