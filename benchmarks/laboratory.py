"""What the laboratory of slopes works with (benchmarks/ideas.py): a chain without a solver, and priors of its nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

import paradrift as pd
from paradrift.bench.problems import Problem
from paradrift.noise import Philox

BANDS = (0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 30, 50, 80, 130, 220, 400)  # first principal component of each band


class Nodes(NamedTuple):
    """States y and data predictions f of all nodes, each of shape (M, S, D)."""

    y: Tensor
    f: Tensor


class Chain:
    """The one-step table of a problem in y = x / alpha, with the library's own noise.

    Args:
        problem: What is sampled.
        samples: How many, S.
        seed: Seed of the noise.
        labels: Labels that samples have in turn; 1 for models without.
    """

    def __init__(self, problem: Problem, samples: int, seed: int = 0, labels: int = 1) -> None:
        self.problem, self.samples, self.labels = problem, samples, labels
        model = problem.denoiser(samples)
        assert model.schedule is not None
        self.model, self.v0 = pd.Reform(model, pd.Form.DATA), model.variance or 1.0
        table = problem.sampler.tableau(model.schedule, problem.times).reform(pd.Form.DATA)
        assert table.alpha is not None
        assert table.sigma is not None
        assert (table.reach, table.noise_reach, table.nodes) == (1, 0, table.rows - 1)
        of = partial(torch.tensor, dtype=problem.dtype)
        self.nodes, self.t, self.alpha = table.nodes, torch.tensor(table.t), of(table.alpha)
        self.seen, self.rho = of(table.alpha * table.scale), of(table.sigma / table.alpha)[:-1, None, None]
        self.a = of(table.band("a", 1)[1:] * table.alpha[:-1] / table.alpha[1:])
        self.b = of(table.band("b", 1)[1:] / table.alpha[1:])
        c = of(table.band("c", 0)[1:] / table.alpha[1:])
        noise, who = Philox(seed=seed, shape=problem.shape, dtype=problem.dtype), torch.arange(samples)
        self.start = noise.start(who).flatten(1) * table.start / self.alpha[0]
        columns = torch.arange(1, table.rows).expand(samples, -1)
        drawn = noise.draw(who, columns).flatten(2).movedim(1, 0) if table.noisy else self.start[None]
        self.kick = c[:, None, None] * drawn
        self.size = self.start.shape[1]

    def evaluate(self, y: Tensor, nodes: Tensor) -> Tensor:
        """Data predictions of K nodes at y, shape (K, S, D): a call for each, as batches may change the last bits."""
        who, found = torch.arange(self.samples), list[Tensor]()
        for node, state in zip(nodes.tolist(), y, strict=True):
            x = (self.seen[node] * state).view(-1, *self.problem.shape)
            found.append(self.model(x, self.t[node].expand(self.samples), who).flatten(1))
        return torch.stack(found)

    def product(self, node: int, y: Tensor, change: Tensor) -> Tensor:
        """The derivative of a node's data prediction at y, shape (S, D), times a change: exact, by forward mode."""
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
            dual = forward_ad.make_dual(y[None], change[None])
            found = forward_ad.unpack_dual(self.evaluate(dual, torch.tensor([node]))).tangent
        return torch.zeros_like(change) if found is None else found[0].clone()

    def march(self, answer: Callable[[int, Tensor], Tensor]) -> Nodes:
        """The table with given answers, shape (S, D) each: y of rows 0 to M, f of nodes 0 to M - 1."""
        y, f = [self.start], []
        for node in range(self.nodes):
            f.append(answer(node, y[-1]))
            y.append(self.a[node] * y[-1] + self.b[node] * f[-1] + self.kick[node])
        return Nodes(torch.stack(y), torch.stack(f))

    def sequential(self) -> Nodes:
        """The sequential sampler's rows and data predictions."""
        return self.march(lambda node, y: self.evaluate(y[None], torch.tensor([node]))[0])

    def error(self, y: Tensor, answer: Tensor) -> Tensor:
        """Distance of last rows, rms over elements in units of sqrt(v0), shape (S,)."""
        return ((y - answer) * self.alpha[-1]).square().mean(-1).sqrt() / self.v0**0.5


@dataclass(frozen=True)
class Prior:
    """What stands in for evaluations before the first: references, and slopes along the columns of a basis."""

    at: Nodes
    slopes: Tensor
    basis: Tensor | None = None

    def __call__(self, node: int | slice, change: Tensor) -> Tensor:
        """The law of a node, or of all of them for slice(None)."""
        if self.basis is None:
            return self.slopes[node] * change
        return (change @ self.basis * self.slopes[node]) @ self.basis.T


def gaussian(chain: Chain, known: Nodes) -> Prior:
    """Isotropic Gaussian data of the model's variance and mean zero: what the library begins with."""
    zero = torch.zeros(chain.nodes, chain.samples, chain.size, dtype=chain.problem.dtype)
    return Prior(Nodes(zero, zero), chain.v0 / (chain.v0 + chain.rho**2))


def means(chain: Chain, known: Nodes, by_label: bool = False) -> Prior:
    """References at the means of known trajectories, over all or over those with a sample's label."""
    labels = chain.labels if by_label else 1
    which = torch.arange(chain.samples) % labels
    at = [torch.stack([part[:, label::labels].mean(1) for label in range(labels)], 1)[:, which] for part in known]
    return Prior(Nodes(at[0][:-1], at[1]), gaussian(chain, known).slopes)


def bands(chain: Chain, known: Nodes) -> Prior:
    """Means, and slopes regressed on known trajectories for each band of their principal components."""
    answers = known.y[-1] - known.y[-1].mean(0)
    late = (known.f[chain.nodes // 2 :] - known.y[-1].mean(0)).flatten(0, 1)
    basis = torch.linalg.svd(torch.cat([answers, late]), full_matrices=True)[2].T
    dy, df = ((part - part.mean(1, keepdim=True)) @ basis for part in (known.y[:-1], known.f))
    edges = [edge for edge in BANDS if edge < chain.size] + [chain.size]
    slopes = torch.empty(chain.nodes, 1, chain.size, dtype=basis.dtype)
    for low, high in pairwise(edges):
        x, f = dy[..., low:high], df[..., low:high]
        slopes[..., low:high] = ((x * f).sum((1, 2)) / (x * x).sum((1, 2)))[:, None, None]
    return Prior(means(chain, known).at, slopes, basis)
