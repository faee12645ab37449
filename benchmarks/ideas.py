"""The laboratory of slopes: what would better surrogates be worth, if the stop cost nothing?

    python benchmarks/ideas.py --out benchmarks/results/ideas.jsonl     # half an hour on one core
    python benchmarks/ideas.py --quick                                  # two samples of short chains

Sweeps of the whole chain as the library makes them, in y = x / alpha and in data form,

    y[m+1] = a[m] y[m] + b[m] g[m](y[m]) + c[m] xi[m],    g[m](y) = f[m] + law(m, y - ref[m]),

with ref and f the states and data predictions of the last evaluation. An *idea* is a prior, a law learned from what was
evaluated, or a step on top. The judge is an oracle that knows the answer: rounds until the error of a sample stays
below a level. Stops, windows and guesses of entering nodes play no part; what is left is what slopes can do. The rounds
of a record are those to 1e-2; means and medians for all levels stand in ``extra``. A level that is not met counts as
one round more than were made. Nodes are evaluated in the same batches as by the sequential sampler, so the answer is
met to the last bit, even where rounding grows. What came of it is told in docs/decisions.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from laboratory import Chain, Nodes, Prior, bands, gaussian, means
from torch import Tensor

import paradrift as pd
from paradrift.bench import model_set
from paradrift.bench.models import Model
from paradrift.bench.networks import graph as graph_network
from paradrift.bench.problems import Problem, digits, mixture, rough
from paradrift.bench.records import Record, append

LEVELS = (1e-1, 1e-2, 1e-3, 1e-4)
WORDS: dict[str, Callable[[Tensor], Tensor]] = {"mean": torch.mean, "median": partial(torch.quantile, q=0.5)}
ENOUGH = 1e-5  # of all samples: no level below is asked for
ROUNDS, CALIBRATED, CALIBRATION_SEED = 60, 40, 99

Law = Callable[[int, Tensor], Tensor]  # node and change of its state, (S, D), to the change of its data prediction
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


Learn = Callable[[Chain, Prior, list[Nodes]], Law]  # from the evaluations so far, at least two, the newest last


def ratio(x: Tensor, f: Tensor) -> Tensor:
    """The scalar least-squares slope of f along x, shape (..., 1)."""
    return (x * f).sum(-1, keepdim=True) / (x * x).sum(-1, keepdim=True).clamp(min=1e-30)


def moves(seen: list[Nodes], back: int = 1) -> Nodes:
    """Changes of states and predictions between two evaluations."""
    return Nodes(seen[-back].y - seen[-back - 1].y, seen[-back].f - seen[-back - 1].f)


def secant(chain: Chain, prior: Prior, seen: list[Nodes], earlier: int = 0) -> Law:
    """One number for each node and sample, or its mean with some nodes before it."""
    slopes = ratio(*moves(seen))
    total, count = slopes.clone(), torch.ones(chain.nodes, 1, 1)
    for lag in range(1, earlier + 1):
        total[lag:] += slopes[:-lag]
        count[lag:] += 1
    return lambda node, change: total[node] / count[node] * change


def elements(chain: Chain, prior: Prior, seen: list[Nodes], shrink: float, pooled: int = 8) -> Law:
    """One number for each element, pooled over a node and those before it, shrunk to the scalar."""
    dy, df = moves(seen)
    unit = (dy * dy).mean(-1, keepdim=True).clamp(min=1e-30)
    xx, xf = (dy * dy / unit).cumsum(0), (dy * df / unit).cumsum(0)
    xx[pooled:], xf[pooled:] = xx[pooled:] - xx[:-pooled], xf[pooled:] - xf[:-pooled]
    slopes = (xf + shrink * ratio(dy, df)) / (xx + shrink)
    return lambda node, change: slopes[node] * change


def several(chain: Chain, prior: Prior, seen: list[Nodes], rank: int, ridge: float) -> Law:
    """The scalar secant, and on the span of the last changes what they say beyond it."""
    slopes = ratio(*moves(seen))
    past = [moves(seen, back) for back in range(1, min(rank, len(seen) - 1) + 1)]
    norms = [dy.norm(dim=-1, keepdim=True).clamp(min=1e-30) for dy, _ in past]
    x = torch.stack([dy / norm for (dy, _), norm in zip(past, norms, strict=True)], -2)
    rest = torch.stack([(df - slopes * dy) / norm for (dy, df), norm in zip(past, norms, strict=True)], -2)
    weigh = torch.linalg.solve(x @ x.mT + ridge * torch.eye(len(past), dtype=x.dtype), x)

    def law(node: int, change: Tensor) -> Tensor:
        return slopes[node] * change + ((weigh[node] @ change[..., None]) * rest[node]).sum(-2)

    return law


def broyden(chain: Chain, prior: Prior, seen: list[Nodes]) -> Law:
    """The prior with the least change that explains the last move."""
    dy, df = moves(seen)
    rest = (df - prior(slice(None), dy)) / (dy * dy).sum(-1, keepdim=True).clamp(min=1e-30)
    return lambda node, change: prior(node, change) + rest[node] * (dy[node] * change).sum(-1, keepdim=True)


def scaled(chain: Chain, prior: Prior, seen: list[Nodes]) -> Law:
    """The prior times the number that explains the last move best."""
    dy, df = moves(seen)
    factor = ratio(prior(slice(None), dy), df)
    return lambda node, change: factor[node] * prior(node, change)


def newton(chain: Chain, prior: Prior, seen: list[Nodes]) -> Law:
    """The derivative itself: M more products a round, one after the other, and the limit of what slopes can do."""
    return lambda node, change: chain.product(node, seen[-1].y[node], change)


@dataclass(frozen=True)
class Idea:
    """A prior, a law, what it needs to have seen, and how many iterates are combined on top.

    Args:
        learn: Makes the law.
        prior: Makes the prior, from trajectories known from calibration.
        least: Evaluations before the law takes over from the prior.
        memory: Iterates that triangular Anderson combines; 1 for none.
    """

    learn: Learn = secant
    prior: Callable[[Chain, Nodes], Prior] = gaussian
    least: int = 2
    memory: int = 1


IDEAS: dict[str, Idea] = {
    "secant": Idea(),
    "Newton": Idea(newton, least=1),
    "2 secants": Idea(partial(several, rank=2, ridge=1e-3)),
    "3 secants": Idea(partial(several, rank=3, ridge=1e-2)),
    "pooled over 1 node before": Idea(partial(secant, earlier=1)),
    "pooled over 3 nodes before": Idea(partial(secant, earlier=3)),
    "per element, shrinkage 1": Idea(partial(elements, shrink=1.0)),
    "per element, shrinkage 10": Idea(partial(elements, shrink=10.0)),
    "calibrated means": Idea(prior=means),
    "calibrated means by label": Idea(prior=partial(means, by_label=True)),
    "calibrated bands, then secant": Idea(prior=bands),
    "calibrated bands, Broyden": Idea(broyden, prior=bands),
    "calibrated bands, scaled": Idea(scaled, prior=bands),
    "Anderson 2 on top": Idea(memory=2),
    "Anderson 3 on top": Idea(memory=3),
}


def combine(g: Tensor, past: list[Nodes], ridge: float = 1e-3) -> Tensor:
    """Triangular Anderson: every row by the residuals up to it; past holds (image, residual), the newest last."""
    if len(past) < 2:
        return g
    images, residuals = (torch.stack([past[-1][part] - old[part] for old in past[:-1]]) for part in (0, 1))
    gram = torch.einsum("pmsd,qmsd->msqp", residuals, residuals).cumsum(0)
    right = torch.einsum("pmsd,msd->msp", residuals, past[-1].f).cumsum(0)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-30)
    weights = torch.linalg.solve(gram + ridge * trace * torch.eye(len(images), dtype=g.dtype), right)
    return g - torch.einsum("msp,pmsd->msd", weights, images)


def solve(chain: Chain, idea: Idea, known: Nodes, answer: Tensor, enough: float = ENOUGH) -> Tensor:
    """Sweep until all samples have the answer.

    Args:
        chain: What is solved.
        idea: How.
        known: Rows and data predictions of calibration trajectories.
        answer: The sequential sampler's last row, shape (S, D).
        enough: Error at which all samples have it.

    Returns:
        Errors before the first round and after each, shape (rounds + 1, S).
    """
    prior, every = idea.prior(chain, known), torch.arange(chain.nodes)
    at, law, seen, past = prior.at, prior, list[Nodes](), list[Nodes]()

    def sweep() -> Tensor:
        return chain.march(lambda node, y: at.f[node] + law(node, y - at.y[node])).y

    y = sweep()
    errors = [chain.error(y[-1], answer)]
    while len(errors) <= ROUNDS and not float(errors[-1].max()) <= enough:
        at = Nodes(y[:-1], chain.evaluate(y[:-1], every))
        seen = [*seen[-3:], at]
        law = idea.learn(chain, prior, seen) if len(seen) >= idea.least else prior
        image = sweep()
        past = [*past, Nodes(image, image - y)][-idea.memory :]
        y = combine(image, past)
        errors.append(chain.error(y[-1], answer))
    return torch.stack(errors)


def rounds_to(errors: Tensor, level: float) -> Tensor:
    """Rounds from which on a sample's error is below a level, shape (S,); as many as errors where it never is."""
    return (~(errors <= level) * torch.arange(1, len(errors) + 1)[:, None]).amax(0)


def measure(chain: Chain, name: str, known: Nodes, answer: Tensor) -> Record:
    """One idea on one chain.

    Args:
        chain: What is solved.
        name: Which idea.
        known: Calibration trajectories.
        answer: The sequential sampler's last row, shape (S, D).

    Returns:
        The record; products with the derivative count as evaluations.
    """
    begin = time.perf_counter()
    errors = solve(chain, IDEAS[name], known, answer)
    rounds = len(errors) - 1
    calls = rounds * (2 if name == "Newton" else 1) * chain.nodes * chain.samples
    needed = {level: rounds_to(errors, level).double() for level in LEVELS}
    each = {
        f"{word} to {level:.0e}": float(average(found))
        for word, average in WORDS.items()
        for level, found in needed.items()
    }
    return Record(
        problem=chain.problem.name,
        method=name,
        sampler=type(chain.problem.sampler).__name__,
        steps=chain.problem.steps,
        window="whole",
        tol=None,
        samples=chain.samples,
        rounds_mean=float(needed[1e-2].mean()),
        rounds_max=int(needed[1e-2].max()),
        evaluations=calls,
        seconds=time.perf_counter() - begin,
        error_median=float(errors[-1].median()),
        error_worst=float(errors[-1].max()),
        extra={
            **each,
            "rounds made": rounds,
            "unmet": int((needed[LEVELS[-1]] > rounds).sum()),
        },
    )


def graph(training: int) -> Model:
    """The graph network of the comparison, trained ten steps for each of ``training``, at most as long as there."""
    recipe = graph_network.RECIPE
    return model_set.graph(replace(recipe, steps=min(recipe.steps, 10 * training)))


def of_model(model: Model, name: str) -> Problem:
    """The chain of a model's sampler without noise, 50 steps."""
    return replace(model.problem(model.ode, 50), name=name)


# a problem, made where it is wanted with a number of training steps; samples; labels that samples have in turn
PROBLEMS: dict[str, tuple[Callable[[int], Problem], int, int]] = {
    "rough ODE 50": (partial(rough, pd.DDIM(), 50, "rough ODE 50"), 32, 1),
    "rough SDE 100": (partial(rough, pd.DDPM(), 100, "rough SDE 100"), 16, 1),
    "mixture-64 ODE 50": (lambda training: mixture(stochastic=False), 32, 1),
    "mixture-64 SDE 50": (lambda training: mixture(stochastic=True), 32, 1),
    "digits guided ODE 50": (lambda training: digits(pd.DDIM(), 50, "digits guided ODE 50"), 8, 10),
    "gaussian-256 ODE 50": (lambda training: of_model(model_set.gaussian(), "gaussian-256 ODE 50"), 16, 1),
    "graph ODE 50": (lambda training: of_model(graph(training), "graph ODE 50"), 32, 1),
}


def chains(name: str, quick: bool) -> tuple[Chain, Chain]:
    """A problem, and the trajectories to calibrate on.

    Args:
        name: Which problem.
        quick: Two samples of five steps, calibrated on twelve, of networks hardly trained.

    Returns:
        Both chains.
    """
    make, samples, labels = PROBLEMS[name]
    problem = make(30 if quick else 300)
    if quick:
        problem = replace(problem, times=problem.times[:: problem.steps // 5])
    calibration = Chain(problem, 12 if quick else CALIBRATED, CALIBRATION_SEED, labels)
    return Chain(problem, 2 if quick else samples, labels=labels), calibration


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Two samples of short chains.")] = False,
    only: Annotated[str, typer.Option(help="Problems with this in their name.")] = "",
    out: Annotated[Path | None, typer.Option(help="File of JSON lines to add to.")] = None,
) -> None:
    """Rounds to four levels of error for each idea on each problem."""
    torch.set_num_threads(1)
    for problem in PROBLEMS:
        if only not in problem:
            continue
        chain, calibration = chains(problem, quick)
        with torch.no_grad():
            known, answer = calibration.sequential(), chain.sequential().y[-1]
            typer.echo(f"{problem}, {chain.samples} samples: mean and median rounds to {LEVELS}")
            for name in IDEAS:
                if name == "calibrated means by label" and chain.labels == 1:
                    continue
                record = measure(chain, name, known, answer)
                if out is not None:
                    append(out, record)
                numbers = [f"{record.extra[f'{word} to {level:.0e}']:6.1f}" for word in WORDS for level in LEVELS]
                typer.echo(f"  {name:30}{''.join(numbers)}{'' if record.extra['unmet'] == 0 else '   not all met'}")


if __name__ == "__main__":
    app()
