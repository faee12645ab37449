"""The audit of a kept path: everything that can be said of it, from one batch of evaluations and no solver code."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paradrift.certificate import Judged, joined, judged
from paradrift.denoisers import Denoiser
from paradrift.density import check_noise
from paradrift.divergence import Certificate
from paradrift.errors import SpecError
from paradrift.forward_error import Audited, ForwardError, audited, gathered
from paradrift.kept import Part, certifiable, kept
from paradrift.noise import Noise
from paradrift.prepare import Generators
from paradrift.solution import Solution


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """What an audit has found.

    Args:
        certificate: How far the law of the path is from the sequential sampler's; None where that has no answer.
        reason: Why there is no certificate, in one sentence; None where there is one.
        error: Estimated distance of each answer to the sequential one, for samplers with or without noise.
        evaluations: Rows evaluated.
    """

    certificate: Certificate | None
    reason: str | None
    error: ForwardError
    evaluations: int

    def __str__(self) -> str:
        law = f"no divergence in nats: {self.reason}" if self.certificate is None else str(self.certificate)
        return f"{self.error}\n{law}"


def audit(
    solution: Solution,
    denoiser: Denoiser,
    *,
    generator: Generators | None = None,
    noise: Noise | Tensor | None = None,
    rounds: int = 1,
    max_rows: int | None = None,
) -> Audit:
    """Judge a kept path by the model alone: its certificate in nats, and how far its answers are from sequential ones.

    Nothing of the solver is used: the sampler's table, the path, the noises, and one evaluation of the model at every
    node. A solution that was changed afterwards, or drawn by a faulty solver, does not pass unnoticed.

    Args:
        solution: A solution with its trajectory, in memory or read by :meth:`paradrift.Solution.load`.
        denoiser: The model.
        generator: A generator (or one a sample) in the state that it had before the solve, where it drew the noise.
        noise: The noise source, or the ready noises, where the solve was given one.
        rounds: Rounds of evaluations: 1 for all in one batch; 2 for a better estimate of the distance, see
            :func:`paradrift.forward_error`.
        max_rows: Most rows in one model call.

    Returns:
        The audit.

    Raises:
        SpecError: if the path was not kept, or the noises are not those of this path.

    Cost: one evaluation per node and sample in each round.

    Example:
        >>> import numpy as np
        >>> from paradrift.analytic import Gaussian
        >>> from paradrift.sample import sample
        >>> from paradrift.schedules import Discrete
        >>> toy = Gaussian(mean=np.zeros(2), variance=np.ones(2), schedule=Discrete.linear(100))
        >>> found = audit(sample(toy, (3, 2), steps=100, seed=7, trajectory=True), toy)
        >>> found.certificate.mean < 1e-3, bool((found.error.error < 1e-2).all()), found.evaluations
        (True, True, 300)
    """
    opened = kept(solution, denoiser, generator=generator, noise=noise)
    reason: str | None = None
    try:
        certifiable(solution)
        check_noise(opened.table)
    except SpecError as refusal:
        reason = str(refusal)

    def work(part: Part) -> tuple[Audited, Judged | None]:
        return audited(part, rounds, opened.denoiser.variance), None if reason else judged(part)

    found, evaluations = opened.audit(work, max_rows)
    laws = [law for _, law in found if law is not None]
    certificate = joined(laws, len(opened.path) * opened.table.nodes, opened.path) if laws else None
    error = gathered([estimate for estimate, _ in found], rounds, evaluations)
    return Audit(certificate=certificate, reason=reason, error=error, evaluations=evaluations)
