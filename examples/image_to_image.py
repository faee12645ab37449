r"""Image to image, parallel in time: a picture from a file, drawn anew with Stable Diffusion or SDXL.

Only the last part of the schedule is run (``--strength``), so there are fewer calls to share among the rounds.
With real weights:

    python examples/image_to_image.py --image photo.jpg --prompt "a watercolour" --dtype float16 --compare
    python examples/image_to_image.py --image photo.jpg --size 1024 --dtype float16 --compare \
        --model stabilityai/stable-diffusion-xl-base-1.0 --prompt "a watercolour"

Without any (a tiny random pipeline and a disc of grey):

    python examples/image_to_image.py --tiny sd
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny_pipelines
import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image, ImageOps

import paradrift as pd


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="stable-diffusion-v1-5/stable-diffusion-v1-5", help="a hub id or a folder")
    parser.add_argument("--tiny", choices=["sd", "sdxl"], help="a tiny random pipeline instead, compared")
    parser.add_argument("--image", type=Path, help="the picture to start from")
    parser.add_argument("--size", type=int, default=512, help="pixels a side, to which the picture is cut and scaled")
    parser.add_argument("--prompt", default="a watercolour")
    parser.add_argument("--strength", type=float, default=0.7, help="how much is drawn anew, 0 to 1")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tol", type=float, default=1e-2, help="relative distance to the plain run")
    parser.add_argument("--window", type=int, help="network calls worked on at once (default: planned)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of the weights")
    parser.add_argument("--compare", action="store_true", help="also run plainly")
    parser.add_argument("--out", type=Path, default=Path("out/image_to_image.png"))
    chosen = parser.parse_args(arguments)
    if not (chosen.image or chosen.tiny):
        parser.error("expected a picture to start from, found none: give --image FILE, or --tiny sd")
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a picture anew."""
    chosen = parse(arguments)
    if chosen.tiny:
        pipe = AutoPipelineForImage2Image.from_pipe(tiny_pipelines.text_to_image(chosen.tiny))
        size = tiny_pipelines.SIZE
    else:
        pipe = AutoPipelineForImage2Image.from_pretrained(chosen.model, dtype=getattr(torch, chosen.dtype))
        size = chosen.size
    pipe.to(chosen.device)
    first = Image.open(chosen.image) if chosen.image else Image.radial_gradient("L")
    first = ImageOps.fit(first.convert("RGB"), (size, size))

    def draw(steps: int = chosen.steps) -> np.ndarray:
        return pipe(
            prompt=chosen.prompt,
            image=first,
            strength=chosen.strength,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(chosen.seed),
            output_type="np",
        ).images[0]

    compare = chosen.compare or chosen.tiny
    if compare:
        draw(steps=4)  # warm up
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
