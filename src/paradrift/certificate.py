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

import numpy as np
import torch
from torch import Tensor

from paradrift.denoisers import Denoiser
from paradrift.density import check_noise
from paradrift.divergence import Certificate as Certificate
from paradrift.errors import SpecError
from paradrift.kept import Part, certifiable, kept
from paradrift.noise import Noise
from paradrift.prepare import Generators
from paradrift.solution import Solution
from paradrift.summing import over_rows
from paradrift.tableau import Tableau

Judged = tuple[Tensor, Tensor, Tensor]  # nats by node, log-likelihood ratios, answers
_STRANGE = 0.5  # distance in standard deviations at which the first step cannot be that of this table and noise


def kl(
    solution: Solution,
    denoiser: Denoiser,
    *,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    max_rows: int | None = None,
) -> Certificate:
    """Audit a solution: the exact Girsanov identity between the parallel and the sequential path, sample by sample.

    The solution knows its sampler and its addressed noise. The denoiser may be another than the one that drew it: the
    certificate then compares with the sequential sampler of that one (a model in half precision with the model in full
    precision, say).

    Args:
        solution: A solution with its trajectory, of a causal method: one that settles a row by looking at noises
            before it only, as all of the library do but ``Tolerance(finish=True)``. (A trajectory given as a guess
            must be causal too: row m a function of noises up to m.)
        denoiser: The model.
        generator: A generator (or one a sample) in the state that it had before the solve, where it drew the noise.
        noise: The noise source, or the ready noises, where the solve was given one.
        max_rows: Most rows in one model call.

    Returns:
        The certificate.

    Raises:
        SpecError: if the path was not kept, not finished or not causal, if a row before the last has no noise, or if
            the noises are not those of this path.

    Cost: one evaluation per node and sample, none waiting for another.

    Example:
        >>> import numpy as np
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.sample import sample
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> solution = sample(toy, (3, 2), steps=100, seed=7, trajectory=True)
        >>> certificate = kl(solution, toy)
        >>> certificate.mean < 1e-3, certificate.evaluations
        (True, 300)
    """
    certifiable(solution)
    opened = kept(solution, denoiser, generator=generator, noise=noise)
    check_noise(opened.table)
    parts, evaluations = opened.audit(judged, max_rows)
    return joined(parts, evaluations, opened.path)


def judged(part: Part) -> Judged:
    """Nats by node, log-likelihood ratios and answers of some samples; see the chapter.

    Args:
        part: The samples.

    Returns:
        The three.

    Raises:
        SpecError: if the noises are not those of this path.
    """
    table, z, xi = part.table, part.z, part.xi
    drift = part.total("a", z) + part.total("b", part.outputs)

    # the noises with which the sequential sampler would have walked this path
    own = torch.as_tensor(np.diagonal(table.c).copy()).to(z)[:, None, None]
    noisy = (own != 0).expand_as(z)
    theirs = torch.where(noisy, (z - drift) / own, 0.0)
    if any(table.lags[2]):  # rows that also use noises of earlier rows
        theirs = torch.zeros_like(z)
        for row in range(1, table.rows):
            if table.c[row, row] != 0:
                earlier = sum(table.c[row, n] * theirs[n] for n in np.flatnonzero(table.c[row, :row]))
                theirs[row] = (z[row] - drift[row] - earlier) / table.c[row, row]
    shift = torch.where(noisy, theirs - xi, 0.0)
    _check_first(table, shift)

    nats = shift.square().sum(2) / 2
    ratio = over_rows((shift * xi).sum(2) + nats)
    node = np.maximum(np.cumsum(table.evaluated) - table.evaluated - 1, 0)  # the last node before each row
    where = torch.as_tensor(node, device=z.device)
    per_node = nats.new_zeros(table.nodes, z.shape[1]).index_add_(0, where, nats)
    answers = z[-1] if table.c[-1, -1] != 0 else drift[-1] + part.total("c", theirs)[-1]
    return per_node, ratio, answers


def joined(parts: list[Judged], evaluations: int, path: Tensor) -> Certificate:
    """The certificate of all samples.

    Args:
        parts: What :func:`judged` found of each part, in order.
        evaluations: Rows evaluated.
        path: All rows, shape (S, R, *shape).

    Returns:
        The certificate.

    Raises:
        SpecError: if the model's outputs along the path are not finite.
    """
    by_node, ratios, answers = zip(*parts, strict=True)
    per_node, llr, samples = torch.cat(by_node, 1), torch.cat(ratios), torch.cat(answers)
    bad = ~torch.isfinite(llr)
    if bool(bad.any()):
        raise SpecError(f"expected finite model outputs along the path, found others in sample {int(bad.nonzero()[0])}")
    answers = samples.to(path.dtype).view_as(path[:, -1])
    return Certificate(nats=over_rows(per_node), per_node=per_node, llr=llr, samples=answers, evaluations=evaluations)


def _check_first(table: Tableau, shift: Tensor) -> None:
    """The first row that uses an output is exact in every method: where it is not, these are not its noises."""
    row = int(table.entries[1][0].min())
    off = float(shift[row].square().mean().sqrt())
    if not off <= _STRANGE:
        raise SpecError(
            f"expected the noises and the sampler of this solution, found its first step off by {off:.2g} standard "
            "deviations: pass the model and the noise that it was drawn with"
        )
