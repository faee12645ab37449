"""Class labels to images, parallel in time: a DiT as diffusers ships it.

Several labels are several rows of one call. With real weights (207 is a golden retriever, 933 a cheeseburger):

    python examples/class_conditional.py --model facebook/DiT-XL-2-256 --labels 207 933 --dtype float16 --compare

Without any (a tiny random pipeline, whose pictures are noise):

    python examples/class_conditional.py --tiny
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tiny_pipelines
import torch
from diffusers import DiTPipeline
from PIL import Image

import paradrift as pd


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="facebook/DiT-XL-2-256", help="a hub id or a folder")
    parser.add_argument("--tiny", action="store_true", help="a tiny random pipeline instead, compared")
    parser.add_argument("--labels", type=int, nargs="+", default=[207, 933], help="classes of ImageNet, 0 to 999")
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tol", type=float, default=1e-2, help="relative distance to the plain run")
    parser.add_argument("--window", type=int, help="network calls worked on at once (default: planned)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of the weights")
    parser.add_argument("--compare", action="store_true", help="also run plainly")
    parser.add_argument("--out", type=Path, default=Path("out/class_conditional.png"), help="all pictures in a row")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one picture for each label."""
    chosen = parse(arguments)
    if chosen.tiny:
        pipe = tiny_pipelines.class_conditional()
    else:
        pipe = DiTPipeline.from_pretrained(chosen.model, dtype=getattr(torch, chosen.dtype))
    pipe.to(chosen.device)

    def draw(steps: int = chosen.steps) -> np.ndarray:
        return pipe(
            class_labels=chosen.labels,
            guidance_scale=chosen.guidance,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(chosen.seed),
            output_type="np",
        ).images

    compare = chosen.compare or chosen.tiny
    if compare:
        draw(steps=2)  # warm up
    with pd.parallelize(pipe, tol=chosen.tol, window=chosen.window) as run:
        pictures = draw()
    print(run.stats)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * np.concatenate(pictures, axis=1)).round().astype(np.uint8)).save(chosen.out)
    print(f"pictures: {chosen.out}")

    if compare:
        begin = time.perf_counter()
        plain = draw()
        seconds = time.perf_counter() - begin
        error = np.sqrt(np.mean((pictures - plain) ** 2)) / plain.std()  # in units of the pictures' own deviation
        print(
            f"{run.stats.rounds} rounds for {run.stats.calls} calls; parallel {run.stats.seconds:.2f} s, plainly "
            f"{seconds:.2f} s, {seconds / run.stats.seconds:.2f} times faster; error {error:.1e}"
        )


if __name__ == "__main__":
    main()
