r"""Certificates: how far the law of the parallel sampler is from that of the sequential one, in nats.

The sequential sampler draws row m as :math:`z_m = \mu_m(z) + \sum_n c_{mn}\xi_n` with
:math:`\mu_m(z) = \sum_j a_{mj} z_j + \sum_j b_{mj} f(z_j)`. The parallel sampler settled the same row with outputs
:math:`\tilde f_j` that it knew at the time, in place of :math:`f(z_j)`: its drift is off by
:math:`\Delta_m = \sum_j b_{mj} (\tilde f_j - f(z_j))`. The path would have come out of the sequential sampler from
other noises, :math:`\xi + \delta` with :math:`c\,\delta = \Delta`, which is :math:`\delta_m = \Delta_m / c_m` where
every row has one noise. As long as the outputs used for row m depend on noises before m only, both laws are Gaussian
given the past, with the same covariance, and

.. math:: \log\frac{dQ}{dP} = \sum_m \langle\delta_m, \xi_m\rangle + \tfrac12 |\delta_m|^2, \qquad
          \mathrm{KL}(Q\,\|\,P) = \mathbb E_Q \sum_m \tfrac12 |\delta_m|^2,

Q the law of the parallel path and P that of the sequential path. Both are equalities for the paths; the answers are a
function of the paths, so their laws are at least as close. This is Girsanov's theorem on a grid, for drifts that may
depend on the past in any way.

The kept path and the noises determine the outputs that were used, so the certificate needs nothing of the solver: an
evaluation of the model at every node of the path, in one batch, is all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paradrift import prepare
from paradrift.denoisers import Denoiser, modules
from paradrift.density import check_noise
from paradrift.divergence import Certificate as Certificate
from paradrift.errors import SpecError
from paradrift.executors import Local
from paradrift.forms import Array
from paradrift.noise import Noise
from paradrift.prepare import Generators
from paradrift.pump import evaluating
from paradrift.samplers import Gridded, Sampler
from paradrift.solution import Solution, Status
from paradrift.solvers.base import Request
from paradrift.tableau import Tableau

_CHUNK = 1 << 24  # numbers of a path that are worked on at a time, in float64
_STRANGE = 0.5  # distance in standard deviations at which the first step cannot be that of this table and noise


def kl(
    solution: Solution,
    denoiser: Denoiser,
    *,
    sampler: Sampler | Gridded | Tableau | None = None,
    steps: int | None = None,
    times: Array | Sequence[float] | None = None,
    seed: int | Sequence[int] | None = None,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    start: Tensor | None = None,
    max_rows: int | None = None,
) -> Certificate:
    """Audit a solution: the exact Girsanov identity between the parallel and the sequential path, sample by sample.

    Every argument but the solution means what it means to :func:`paradrift.sample` and must be what the solution was
    drawn with. The denoiser may be another: the certificate then compares with the sequential sampler of that one (a
    model in half precision with the model in full precision, say).

    Args:
        solution: A solution with its trajectory, of a causal method: one that settles a row by looking at noises
            before it only, as all of the library do but ``Tolerance(finish=True)``. (A trajectory given as a guess
            must be causal too: row m a function of noises up to m.)
        denoiser: The model.
        sampler: The sequential method; every row but the last must have a noise of its own.
        steps: Number of steps.
        times: The grid itself.
        seed: Seed of the addressed noise.
        generator: A generator (or one a sample) in the state that it had before the solve.
        noise: The noise source, or the ready noises.
        start: The start, where one was given.
        max_rows: Most rows in one model call.

    Returns:
        The certificate.

    Raises:
        SpecError: if the path was not kept, not finished or not causal, if a row before the last has no noise, or if
            the noises are not those of this path.

    Cost: one evaluation per node and sample, none waiting for another.

    Example:
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.sample import sample
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> solution = sample(toy, (3, 2), steps=100, seed=7, trajectory=True)
        >>> certificate = kl(solution, toy, steps=100, seed=7)
        >>> certificate.mean < 1e-3, certificate.evaluations
        (True, 300)
    """
    path = _path(solution)
    shape = (path.shape[0], *path.shape[2:])
    prepare.check(denoiser, shape, path.dtype)
    recipe = solution.recipe
    given = sampler is not None or steps is not None or times is not None
    if recipe is None or given:
        own = prepare.own_table(denoiser, sampler, steps, times)
    else:
        own, seed = recipe.table, recipe.seed if seed is None else seed
    if seed is None and generator is None and noise is None:
        raise SpecError("expected the noise of this path, found none: give the generator or noise of its solve")
    table = prepare.in_form_of(denoiser, own)
    if table.rows != path.shape[1]:
        raise SpecError(f"expected a path of {table.rows} rows for this sampler, found {path.shape[1]}: check steps=")
    check_noise(table)
    if isinstance(noise, Tensor) and start is None:
        start = path[:, 0]
    source = prepare.noise_for(table, shape, seed or 0, generator, noise, start, path.dtype, path.device)
    executor = Local(denoiser=denoiser, max_rows=max_rows)
    count = max(1, _CHUNK // path[0].numel())
    firsts = range(0, len(path), count)
    try:
        with evaluating(modules(denoiser)), torch.inference_mode():
            parts = [_part(table, path[first : first + count], first, source, executor) for first in firsts]
    finally:
        source.finish()
    by_node, ratios, answers = zip(*parts, strict=True)
    per_node, llr, samples = torch.cat(by_node, 1), torch.cat(ratios), torch.cat(answers)
    bad = ~torch.isfinite(llr)
    if bool(bad.any()):
        raise SpecError(f"expected finite model outputs along the path, found others in sample {int(bad.nonzero()[0])}")
    return Certificate(nats=per_node.sum(0), per_node=per_node, llr=llr, samples=samples, evaluations=executor.rows)


def _path(solution: Solution) -> Tensor:
    """The kept path, if it can be certified."""
    if solution.stats.rejected is not None:
        raise SpecError("expected a path of its own noises, found one exact in law, which needs no certificate")
    if not solution.certifiable:
        raise SpecError(
            "expected a causal path, found one whose stop looked at later rows: certify Tolerance(tol) without finish"
        )
    if solution.trajectory is None:
        raise SpecError("expected a solution with its path, found none: sample with trajectory=True")
    for index, status in enumerate(solution.status):
        if status is not Status.CONVERGED:
            raise SpecError(
                f"expected every sample to have converged, found sample {index}: {status.value}; raise max_rounds, "
                "since a mean over the rest would be of another law"
            )
    return solution.trajectory


def _part(table: Tableau, path: Tensor, first: int, source: Noise, executor: Local) -> tuple[Tensor, Tensor, Tensor]:
    """Nats by node, log-likelihood ratios and answers of the samples from ``first`` on."""
    samples, rows = path.shape[:2]
    shape, device = path.shape[2:], path.device
    ids = torch.arange(first, first + samples, device=device)
    z = path.transpose(0, 1).flatten(2).double()
    drift = _sum(table, "a", z) + _sum(table, "b", _outputs(table, path, ids, executor))
    xi = _noises(table, ids, source, z)

    # the noises with which the sequential sampler would have walked this path
    own = _column(np.diagonal(table.c), z)
    noisy = (own != 0).expand_as(z)
    theirs = torch.where(noisy, (z - drift) / own, 0.0)
    if any(table.lags[2]):  # rows that also use noises of earlier rows
        theirs = torch.zeros_like(z)
        for row in range(1, rows):
            if table.c[row, row] != 0:
                earlier = sum(table.c[row, n] * theirs[n] for n in np.flatnonzero(table.c[row, :row]))
                theirs[row] = (z[row] - drift[row] - earlier) / table.c[row, row]
    shift = torch.where(noisy, theirs - xi, 0.0)
    _check_first(table, shift)

    nats = shift.square().sum(2) / 2
    ratio = (shift * xi).sum((0, 2)) + nats.sum(0)
    node = np.maximum(np.cumsum(table.evaluated) - table.evaluated - 1, 0)  # the last node before each row
    per_node = nats.new_zeros(table.nodes, samples).index_add_(0, torch.as_tensor(node, device=device), nats)
    answers = z[-1] if table.c[-1, -1] != 0 else drift[-1] + _sum(table, "c", theirs)[-1]
    return per_node, ratio, answers.to(path.dtype).unflatten(1, shape)


def _outputs(table: Tableau, path: Tensor, ids: Tensor, executor: Local) -> Tensor:
    """Model outputs at the nodes of the path, zero elsewhere, shape (R, S, D), float64."""
    samples, rows = path.shape[:2]
    nodes = torch.as_tensor(np.flatnonzero(table.evaluated), device=path.device)
    row, sample = nodes.repeat_interleave(samples), ids.repeat(len(nodes))
    scale = _column(table.scale, path.transpose(0, 1))[nodes]
    states = (path.transpose(0, 1)[nodes].flatten(2) * scale).flatten(0, 1).unflatten(1, path.shape[2:])
    times = torch.as_tensor(np.where(table.evaluated, table.t, 0.0)).to(path.device, path.dtype)
    answer = executor.evaluate(Request(x=states, t=times[row], sample=sample, node=row))
    outputs = torch.zeros(rows, samples, path[0, 0].numel(), dtype=torch.float64, device=path.device)
    outputs[nodes] = answer.flatten(1).double().unflatten(0, (len(nodes), samples))
    return outputs


def _noises(table: Tableau, ids: Tensor, source: Noise, like: Tensor) -> Tensor:
    """The noises in use, zero in the other columns, shape (R, S, D)."""
    columns = np.unique(table.entries[2][1])
    xi = torch.zeros_like(like)
    if len(columns):
        used = torch.as_tensor(columns, device=ids.device)
        xi[used] = source.draw(ids, used.expand(len(ids), -1)).flatten(2).transpose(0, 1).to(like)
    return xi


def _sum(table: Tableau, name: str, values: Tensor) -> Tensor:
    """A matrix of the table times values by row, shape (R, S, D), lag by lag."""
    total = torch.zeros_like(values)
    for lag in table.lags["abc".index(name)]:
        total[lag:] += _column(table.band(name, lag), values)[lag:] * values[: len(values) - lag]
    return total


def _column(numbers: Array, like: Tensor) -> Tensor:
    """One number a row, shape (R, 1, 1)."""
    return torch.as_tensor(numbers.copy()).to(like)[:, None, None]


def _check_first(table: Tableau, shift: Tensor) -> None:
    """The first row that uses an output is exact in every method: where it is not, these are not its noises."""
    row = int(table.entries[1][0].min())
    off = float(shift[row].square().mean().sqrt())
    if not off <= _STRANGE:
        raise SpecError(
            f"expected the noises and the sampler of this solution, found its first step off by {off:.2g} standard "
            "deviations: pass the seed, sampler and steps that it was drawn with"
        )
