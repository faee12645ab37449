r"""How far the law of a sampler is from the continuous diffusion that it discretises, in nats.

A network's data prediction D(x, t) drives the continuous reverse dynamics of stochasticity :math:`\lambda`. An
exponential integrator follows them with one output held fixed over each step, the one its form names. Held or not, the
noise is the same, so the two laws differ by their drifts alone, and with :math:`\varrho = \sigma/\alpha` Girsanov's
theorem reads, in the noise form,

.. math:: \mathrm{KL}(Q\,\|\,P) = \mathbb E_Q \int \frac{(1+\lambda^2)^2}{4\lambda^2}\,
          |\hat\epsilon_{held} - \hat\epsilon(y_r, r)|^2 \; |d\log\varrho| .

With :math:`\hat\epsilon = p x + q f` at one state and level, :math:`\hat\epsilon_{held} - \hat\epsilon =
q_r (f_{held} - f(y_r, r))`, and the rate of any form is that of the noise form times :math:`q_r^2`:

========  =================  ============================================================
form      :math:`q^2`         rate
========  =================  ============================================================
DATA      SNR                :math:`(1+\lambda^2)^2/(8\lambda^2)\,|d\,\mathrm{SNR}|`
NOISE     1                  :math:`(1+\lambda^2)^2/(4\lambda^2)\,|d\log\varrho|`
SCORE     :math:`\sigma^2`   :math:`(1+\lambda^2)^2/(8\lambda^2)\,\alpha^2 |d\varrho^2|`
RESIDUAL  :math:`\sigma^2`   the same
========  =================  ============================================================

Q is the law that the kept path was drawn from, filled in between the grid points as the integrator itself does it. A
path of the sequential sampler gives its discretisation error; a path of a parallel solver, whose held outputs may be a
little old, gives the total: parallel against continuous. P starts from the same start. Both start and network are
taken as they are: what the network learned wrongly is in P as well.

The held outputs follow from the path and its noises, :math:`f_j = (y_{j+1} - a_j y_j - c_j \xi_{j+1}) / b_j`, without
any evaluation. Two estimates are built on them:

- :func:`kl` draws one level in each step, the state there from its law given both ends (see
  :mod:`paradrift.samplers.frozen`), and asks the model once. Its expectation is the divergence, exactly.
- :func:`leading` compares held outputs of neighbouring steps, :math:`\tfrac12 \sum_j w_j |f_{j+1} - f_j|^2` with
  :math:`w_j = b_j^2 / (2 c_j^2)`, for nothing. The integrand grows from 0 to about
  :math:`|f_{j+1} - f_j|^2` over a step, and half of that is its mean to leading order in the step. In DATA form the
  steps at low noise are rarely that short: there the estimate is several times too small.

A last step to zero noise is left out: no density is left there, and the law compared is that of the row before it. (The
answer is then a function of that row, for both laws, when it is made from an output at the row itself.)

Source: Chen, Ren, Ying and Rotskoff 2024, arXiv 2405.15986, whose proof bounds the same integral (theorem 3.3, from
above, with the paths of P); the estimates are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paradrift.bridges import Grid, bridged, grid_of, neighbouring
from paradrift.denoisers import Denoiser
from paradrift.divergence import Nats
from paradrift.errors import SpecError
from paradrift.kept import certifiable, kept
from paradrift.noise import Noise
from paradrift.prepare import Generators
from paradrift.samplers import Exponential
from paradrift.solution import Solution
from paradrift.summing import over_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Divergence(Nats):
    """The divergence of a sampler's law from the continuous dynamics of the same network.

    Args:
        nats: Contribution of each sample, shape (S,), float64; the mean estimates the divergence of the paths.
        per_step: The same by step, shape (N, S), without a last step to zero noise.
        sampler: The integrator whose form and stochasticity fill in the path.
        evaluations: Rows evaluated.
    """

    per_step: Tensor
    sampler: Exponential
    evaluations: int

    def __str__(self) -> str:
        return (
            f"KL(sampler || continuous) = {self.words}, {self.sampler.form.value} form, stochasticity "
            f"{self.sampler.stochasticity:.3g}, {self.evaluations} evaluations"
        )


def kl(
    solution: Solution,
    denoiser: Denoiser,
    *,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    max_rows: int | None = None,
    fresh: int = 0,
) -> Divergence:
    """Unbiased estimate of KL(law of the kept path || continuous reverse dynamics), in one batch.

    Args:
        solution: A solution with its trajectory, of a causal method.
        denoiser: The model.
        generator: A generator (or one a sample) in the state that it had before the solve, where it drew the noise.
        noise: The noise source, or the ready noises, where the solve was given one.
        max_rows: Most rows in one model call.
        fresh: Number of the set of levels and noises drawn for the estimate; another gives an independent one.

    Returns:
        The divergence.

    Raises:
        SpecError: if the path was not kept, not finished or not causal, if the sampler is no exponential integrator
            with noise, or if the noises are not those of this path.

    Cost: one evaluation per step and sample and one more a sample, none waiting for another. The model is asked
    between the times of the grid.

    Example:
        >>> import numpy as np
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.presets import sequential
        >>> from paradrift.sample import sample
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.full(2, 0.25), schedule=Discrete.linear(1000))
        >>> drawn = sample(toy, (100, 2), steps=100, solver=sequential(), trajectory=True)
        >>> found = kl(drawn, toy)
        >>> 2.5 < found.mean < 4.0, found.evaluations
        (True, 10000)
    """
    certifiable(solution)
    opened = kept(solution, denoiser, generator=generator, noise=noise)
    grid = grid_of(opened)
    return _divergence(grid, *bridged(opened, grid, fresh=fresh, max_rows=max_rows))


def leading(
    solution: Solution,
    denoiser: Denoiser,
    *,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    max_rows: int | None = None,
) -> Divergence:
    """The same to leading order in the steps, for nothing: an estimate, neither unbiased nor a bound.

    Args:
        solution: A solution with its trajectory, of a causal method.
        denoiser: The model.
        generator: A generator (or one a sample) in the state that it had before the solve, where it drew the noise.
        noise: The noise source, or the ready noises, where the solve was given one.
        max_rows: Most rows in one model call.

    Returns:
        The divergence.

    Raises:
        SpecError: as :func:`kl` does.

    Cost: one evaluation a sample, at the first row, as a check that the noises are right; one more a sample, at the
    answer, where the chain ends with noise.
    """
    certifiable(solution)
    opened = kept(solution, denoiser, generator=generator, noise=noise)
    grid = grid_of(opened)
    return _divergence(grid, *neighbouring(opened, grid, max_rows=max_rows))


def _divergence(grid: Grid, per_step: Tensor, evaluations: int) -> Divergence:
    nats = over_rows(per_step)
    bad = ~torch.isfinite(nats)
    if bool(bad.any()):
        raise SpecError(f"expected finite model outputs along the path, found others in sample {int(bad.nonzero()[0])}")
    return Divergence(nats=nats, per_step=per_step, sampler=grid.sampler, evaluations=evaluations)
