"""The embedded digits as an ordinary diffusers pipeline, sampled plainly and parallel in time.

    python examples/parallel_pipeline.py
    python examples/parallel_pipeline.py --runs ddpm:1000 --window 16 --threads 1

The pipeline (``paradrift/pretrained/pipeline.py``) knows nothing of paradrift: it is what any user of diffusers would
write.
"""

from __future__ import annotations

import argparse
import time

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

import paradrift as pd
from paradrift.pretrained.pipeline import digits_pipeline

SCHEDULERS = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}


def main() -> None:
    """Draw digits both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="*", default=["ddim:50", "dpm++:50", "ddpm:250"], help="scheduler:steps")
    parser.add_argument("--tol", type=float, default=1e-2)
    parser.add_argument("--window", type=int, help="planned if not given")
    parser.add_argument("--labels", type=int, nargs="*", default=[3])
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="few steps: a check that all of it runs")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for run in ["ddim:8", "ddpm:8"] if chosen.tiny else chosen.runs:
        name, steps = run.split(":")
        pipe = digits_pipeline(SCHEDULERS[name])
        pipe.set_progress_bar_config(disable=True)

        def draw() -> torch.Tensor:
            generator = torch.Generator().manual_seed(0)
            return pipe(chosen.labels, chosen.guidance, int(steps), generator)  # noqa: B023 - called at once

        draw()  # warm up
        begin = time.perf_counter()
        plain = draw()
        sequential = time.perf_counter() - begin
        with pd.parallelize(pipe, tol=chosen.tol, window=chosen.window, strict=True) as running:
            found = draw()
        stats = running.stats
        print(f"{name}, {steps} steps: {sequential / stats.seconds:.2f} times faster than plainly ({sequential:.2f} s)")
        print(f"{stats}\nmeasured error: {float((found - plain).norm() / plain.norm()):.1e}\n")


if __name__ == "__main__":
    main()
