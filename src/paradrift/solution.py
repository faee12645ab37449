"""The answer: samples, how far each one can be trusted, and what it cost."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paradrift.divergence import Certificate
from paradrift.errors import SpecError
from paradrift.tableau import Tableau


class Status(enum.Enum):
    """How one sample ended."""

    CONVERGED = "converged"
    BUDGET_EXHAUSTED = "budget exhausted"
    NON_FINITE = "non-finite"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a solve cost.

    Args:
        rounds: Model calls on the critical path: batches that had to wait for the one before.
        evaluations: Rows evaluated, over all samples and rounds, verification included.
        nodes: Model evaluations per sample of the sequential sampler.
        sample_rounds: Rounds until each sample was settled, one per sample.
        seconds: Wall time of the whole public call, planning, noise and bookkeeping included.
        model_seconds: Wall time inside the model.
        noise_seconds: Wall time drawing noise.
        planning_seconds: Wall time measuring the cost of batched calls.
        window: Rows of the widest window used, per sample.
        choice: The planner's decision in words, or how the window was given.
        predicted_sequential_seconds: What the sequential sampler would take, from measured costs; None if unmeasured.
        rejected: Drafts that were replaced by their reflection, one count per sample; None unless exact in law.
    """

    rounds: int
    evaluations: int
    nodes: int
    sample_rounds: tuple[int, ...]
    seconds: float
    model_seconds: float
    noise_seconds: float
    planning_seconds: float
    window: int
    choice: str
    predicted_sequential_seconds: float | None
    rejected: tuple[int, ...] | None = None

    @property
    def engine_seconds(self) -> float:
        """Wall time outside the model, the noise and the planner: what the solver itself costs."""
        return self.seconds - self.model_seconds - self.noise_seconds - self.planning_seconds


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a callback sees after each round.

    Args:
        index: Round number, from 1; a sweep in which no node moved needs no call and repeats the number.
        evaluations: Rows evaluated so far.
        settled: Nodes settled so far, shape (S,).
        nodes: Nodes M of each sample.
        change: Last change of each row in units of the data's standard deviation, rms over elements of x / alpha,
            shape (S, R); NaN outside the window.
        preview: The most advanced data prediction of each sample, shape (S, *shape).
        answer: The current last row of each sample, shape (S, *shape); NaN where the window does not reach it.
    """

    index: int
    evaluations: int
    settled: Tensor
    nodes: int
    change: Tensor
    preview: Tensor
    answer: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What a solution was drawn with: the sampler's table and the address of the noise.

    Args:
        table: The sampler's own table, before it is written in the form of a model.
        seed: Seed, or one for each sample, of addressed noise; None where the noise came from elsewhere.
        model: How to make the denoiser again, in words of whoever drew the samples; None where they kept it.
    """

    table: Tableau
    seed: int | tuple[int, ...] | None
    model: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The result of a solve.

    Args:
        samples: Shape (S, *shape): the sequential sampler's own answers, within ``error``.
        status: How each sample ended, one per sample.
        error: Estimated distance of each sample to the sequential answer, rms over elements in units of sqrt(v0),
            shape (S,). Of samples without an answer, that of the best so far; infinite while the window had not
            reached the answer, and where the model broke. Of samples that are exact in law, that to the sequential
            answer of the noises that drew them: 0.
        stats: What it cost.
        certifiable: Whether the accepted path is causal, so that a certificate in nats may be computed.
        certificate: How far the law is from the sequential sampler's, where it was asked for (``certify=True``,
            ``stop=KL(nats)``, ``exact=True``) and every sample converged.
        trajectory: All rows, shape (S, R, *shape), when they were asked for.
        recipe: What it was drawn with, as far as an audit needs it.
    """

    samples: Tensor
    status: tuple[Status, ...]
    error: Tensor
    stats: Stats
    certifiable: bool
    certificate: Certificate | None = None
    trajectory: Tensor | None = None
    recipe: Recipe | None = None

    @property
    def converged(self) -> bool:
        """Whether every sample converged."""
        return all(status is Status.CONVERGED for status in self.status)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: tensors, and everything else as JSON metadata.

        Args:
            path: File to write.
        """
        from safetensors.torch import save_file

        tensors = {"samples": self.samples, "error": self.error}
        meta: dict[str, Any] = {
            "status": [status.value for status in self.status],
            "stats": dataclasses.asdict(self.stats),
            "certifiable": self.certifiable,
        }
        if self.trajectory is not None:
            tensors["trajectory"] = self.trajectory
            if self.recipe is not None:
                arrays, words = self.recipe.table.packed()
                tensors |= {f"table.{name}": torch.from_numpy(array) for name, array in arrays.items()}
                meta["recipe"] = {"table": words, "seed": self.recipe.seed, "model": self.recipe.model}
        if self.certificate is not None:
            for name in ("nats", "per_node", "llr", "samples"):
                tensors[f"certificate.{name}"] = getattr(self.certificate, name)
            meta["certificate"] = {"evaluations": self.certificate.evaluations}
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, str(path), metadata={"paradrift": json.dumps(meta)})

    @staticmethod
    def load(path: str | Path) -> Solution:
        """Read what :meth:`save` wrote.

        Args:
            path: File to read.

        Returns:
            The solution, on the host.

        Raises:
            SpecError: if the file is missing or was not written by :meth:`save`.
        """
        from safetensors import safe_open

        if not Path(path).is_file():
            raise SpecError(f"expected a solution file at {path}, found none: check the path")
        with safe_open(str(path), framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get("paradrift", "null"))
            if meta is None:
                raise SpecError(f"expected a file written by Solution.save at {path}, found other safetensors")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        several = {name: meta["stats"].get(name) for name in ("sample_rounds", "rejected")}
        stats = meta["stats"] | {name: None if counts is None else tuple(counts) for name, counts in several.items()}
        recipe, certificate = meta.get("recipe"), meta.get("certificate")
        if recipe is not None:
            arrays = {name[6:]: tensor.numpy() for name, tensor in tensors.items() if name.startswith("table.")}
            seed = tuple(recipe["seed"]) if isinstance(recipe["seed"], list) else recipe["seed"]
            table = Tableau.unpacked(arrays, recipe["table"])
            recipe = Recipe(table=table, seed=seed, model=recipe["model"])
        if certificate is not None:
            named = {name[12:]: tensor for name, tensor in tensors.items() if name.startswith("certificate.")}
            certificate = Certificate(**named, **certificate)
        return Solution(
            samples=tensors["samples"],
            status=tuple(Status(value) for value in meta["status"]),
            error=tensors["error"],
            stats=Stats(**stats),
            certifiable=meta["certifiable"],
            trajectory=tensors.get("trajectory"),
            certificate=certificate,
            recipe=recipe,
        )
