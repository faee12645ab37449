"""Text to video, parallel in time: Wan, CogVideoX, LTX, or another pipeline that takes a prompt and returns frames.

One call of such a network is large already: ``--max-rows`` keeps the batches within memory, and where one call keeps
the whole GPU busy, a batch of them takes as long as they would one after the other. With real weights
(``pip install accelerate`` first):

    python examples/video.py --model Wan-AI/Wan2.1-T2V-1.3B-Diffusers --dtype bfloat16 --tol 5e-2 --max-rows 4
    python examples/video.py --model Lightricks/LTX-Video --dtype bfloat16 --tol 5e-2 --frames 25 --max-rows 4
    python examples/video.py --model zai-org/CogVideoX-2b --dtype float16 --width 720 --frames 49 --max-rows 4

Without any (a tiny random Wan, whose frames are noise):

    python examples/video.py --tiny
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

SHOWN = 8  # frames on the contact sheet


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="Wan-AI/Wan2.1-T2V-1.3B-Diffusers", help="a hub id or a folder")
    parser.add_argument("--tiny", action="store_true", help="a tiny random pipeline instead, compared")
    parser.add_argument("--prompt", default="a paper boat drifts down a rainy street")
    parser.add_argument("--frames", type=int, default=17, help="one more than a multiple of 8 suits all models")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=832)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tol", type=float, default=1e-2, help="relative distance to the plain run")
    parser.add_argument("--window", type=int, help="network calls worked on at once (default: planned)")
    parser.add_argument("--max-rows", type=int, help="most network calls in one batch, to spare memory")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="of the weights")
    parser.add_argument("--compare", action="store_true", help="also run plainly")
    parser.add_argument("--out", type=Path, default=Path("out/video.gif"), help="a contact sheet (.png) goes beside it")
    return parser.parse_args(arguments)


def save(frames: np.ndarray, out: Path) -> None:
    """Write frames of shape (frames, height, width, 3), from 0 to 1, as a moving picture and as a contact sheet."""
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = [Image.fromarray(frame) for frame in (255 * frames).round().astype(np.uint8)]
    pictures[0].save(out, save_all=True, append_images=pictures[1:], duration=1000 // 16, loop=0)  # 16 frames a second
    shown = np.linspace(0, len(frames) - 1, min(SHOWN, len(frames))).round().astype(int)
    Image.fromarray(np.concatenate([np.asarray(pictures[k]) for k in shown], axis=1)).save(out.with_suffix(".png"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a video."""
    chosen = parse(arguments)
    if chosen.tiny:
        pipe = tiny_pipelines.video()
        count, height, width = 9, 32, 48
    else:
        pipe = DiffusionPipeline.from_pretrained(chosen.model, dtype=getattr(torch, chosen.dtype))
        count, height, width = chosen.frames, chosen.height, chosen.width
    pipe.to(chosen.device)

    def draw(steps: int = chosen.steps) -> np.ndarray:
        return pipe(
            prompt=chosen.prompt,
            num_frames=count,
            height=height,
            width=width,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(chosen.seed),
            output_type="np",
        ).frames[0]

    compare = chosen.compare or chosen.tiny
    if compare:
        draw(steps=2)  # warm up
    with pd.parallelize(pipe, tol=chosen.tol, window=chosen.window, max_rows=chosen.max_rows) as run:
        frames = draw()
    print(run.stats)
    save(frames, chosen.out)
    print(f"frames: {chosen.out}, {chosen.out.with_suffix('.png')}")

    if compare:
        begin = time.perf_counter()
        plain = draw()
        seconds = time.perf_counter() - begin
        error = np.sqrt(np.mean((frames - plain) ** 2)) / plain.std()  # in units of the frames' own deviation
        print(
            f"{run.stats.rounds} rounds for {run.stats.calls} calls; parallel {run.stats.seconds:.2f} s, plainly "
            f"{seconds:.2f} s, {seconds / run.stats.seconds:.2f} times faster; error {error:.1e}"
        )


if __name__ == "__main__":
    main()
