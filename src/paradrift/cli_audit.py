"""``paradrift audit``: what a saved solution is worth, found without the solver that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import paradrift as pd
from paradrift import choices
from paradrift.errors import SpecError
from paradrift.pretrained import MODELS


def audit(
    file: Annotated[Path, typer.Argument(help="A file written by `paradrift sample --tensors`, or Solution.save.")],
    rounds: Annotated[
        int, typer.Option(help="Rounds of evaluations: 1 judges all in one batch, 2 estimates the distance better.")
    ] = 1,
    max_rows: Annotated[int | None, typer.Option(help="Most rows in one batch: a cap on memory.")] = 256,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads of torch; its own choice if not given.")] = None,
) -> None:
    """Evaluate the model at every node of a saved path, and print how far its answers and its law are off.

    The file knows its sampler, its noise and the embedded model that drew it. For a model of yours, load the file in
    Python and call paradrift.audit(solution, denoiser).
    """
    solution = pd.Solution.load(file)
    words = solution.recipe.model if solution.recipe is not None else None
    if words is None or words.get("name") not in MODELS:
        raise SpecError(
            f"expected a path of an embedded model in {file}, found none: write it with `paradrift sample --tensors`, "
            "or call paradrift.audit(solution, denoiser) with your own model"
        )
    choices.threads(threads)
    denoiser = pd.pretrained(
        words["name"],
        labels=words["labels"],
        guidance=words["guidance"],
        device=choices.device(device),
        dtype=choices.Precision(words["dtype"]).dtype,
    )
    print(pd.audit(solution, denoiser, rounds=rounds, max_rows=max_rows))
    if solution.certificate is not None:
        print(f"the file itself says: {solution.certificate}")
