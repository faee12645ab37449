"""Named methods that are no choices of the sweep: parareal, CHORDS, fixed points and Newton's, as published."""

from __future__ import annotations

from torch import Tensor

from paradrift.forms import Form
from paradrift.guesses import Given, Repeat
from paradrift.presets import DEFAULT_TOL
from paradrift.samplers import Sampler
from paradrift.solvers.chords import PUBLISHED, Chords
from paradrift.solvers.fixed_point import FixedPoint
from paradrift.solvers.jacobians import Diagonal, Jacobian
from paradrift.solvers.newton import Newton
from paradrift.solvers.parareal import Parareal
from paradrift.solvers.residuals import Residual
from paradrift.solvers.sweep import Solver as Solver
from paradrift.solvers.updates import Anderson, Relaxed, TriangularAnderson
from paradrift.windows import Sliding, Whole


def srds(
    blocks: int | None = None, tol: float = DEFAULT_TOL, coarse: Sampler | None = None, iterations: int | None = None
) -> Parareal:
    """SRDS, which is parareal: a coarse sampler over blocks, put right by the fine one in all blocks at once.

    Its tolerance is not the library's: it bounds the change of the answer in the last iteration, not an error. With
    ``tol=0``, or after as many iterations as blocks, the answer is the sequential sampler's. For Algorithm 1 to the
    letter, which waits for each iteration to end, take ``Parareal(pipelined=False)``.

    Args:
        blocks: B; None for the root of the number of nodes, as in the paper.
        tol: Change of the answer in an iteration, rms over elements in units of sqrt(v0).
        coarse: The coarse sampler, one step of it a block; None for the fine sampler with its output held, which for
            DDIM, DDPM and Euler is one step of the same.
        iterations: Most iterations.

    Returns:
        The method, for samplers that can be cut into blocks: one-step samplers and Heun, with noise or without.

    Source: Selvam, Merchant, Ermon, NeurIPS 2024, arXiv 2412.08292; see :mod:`paradrift.solvers.parareal`.
    """
    return Parareal(blocks=blocks, coarse=coarse, tol=tol, iterations=iterations)


def chords(starts: tuple[int, ...] = PUBLISHED, tol: float = DEFAULT_TOL, arrivals: int | None = None) -> Chords:
    """CHORDS: cores that start at several steps at once, the faster put right by the slower.

    Its tolerance is not the library's: it bounds the difference of the last two answers, not an error. The published
    recommendation, to take the fastest core's answer (17 rounds of 50), is ``tol=0, arrivals=1``.

    Args:
        starts: Step at which each core starts; the published choice is for 50 steps and 8 rows a round.
        tol: Difference of two answers, rms over elements in units of sqrt(v0).
        arrivals: Cores whose arrival is waited for at most; None for all.

    Returns:
        The method, for deterministic one-step samplers.

    Source: Han, Ye, Li, Xu, Zou, Ermon, ICCV 2025, arXiv 2507.15260; see :mod:`paradrift.solvers.chords`.
    """
    return Chords(starts=starts, tol=tol, arrivals=arrivals)


def parataa(
    order: int = 20,
    memory: int = 2,
    window: int | None = None,
    tol: float = 1e-3,
    share: float = 1e-3,
    start: Tensor | None = None,
) -> FixedPoint:
    """ParaTAA: triangular Anderson acceleration of the equations of order k, outputs frozen as noise.

    Its tolerances are not the library's: they bound the defect of each row, not an error. Orders of 20 to 100 and
    memories of 2 to 5 are recommended.

    Args:
        order: k, rows that an equation looks back.
        memory: Iterates that are combined, the newest included.
        window: Width of the sliding window; None for the whole chain.
        tol: Largest defect of a settled row, rms over elements.
        share: Largest defect in units of the noise of DDPM's step.
        start: The trajectory of a similar sample with the same noises, shape (S, R, *shape), to begin from.

    Returns:
        The method.

    Source: Tang et al. 2024, arXiv 2402.09970, Algorithm 1. What differs here: differences begin with a row's first
    update, no row is settled before it, and steps after which residuals have grown are plain; see
    :mod:`paradrift.solvers.fixed_point`.
    """
    return FixedPoint(
        update=TriangularAnderson(memory, ridge=1e-3),
        order=order,
        form=Form.NOISE,
        window=Whole() if window is None else Sliding(window),
        stop=Residual(tol, share),
        start=Repeat() if start is None else Given(start),
    )


def anderson(memory: int = 5, tol: float = 1e-3) -> FixedPoint:
    """The whole chain as a fixed point with Anderson's method: one combination for all rows, so no certificate.

    Rows are settled one by one here; the published code stops when the residual of all rows together is small, where
    that of a late row may hide.

    Args:
        memory: Iterates that are combined, the newest included.
        tol: Largest defect of a settled row, rms over elements.

    Returns:
        The method.

    Source: Pokle, Geng and Kolter 2022, arXiv 2210.12867.
    """
    return FixedPoint(update=Anderson(memory, ridge=1e-4), form=Form.NOISE, stop=Residual(tol, 0.0))


def relaxed(weight: float = 0.8, tol: float = 1e-3) -> FixedPoint:
    """The relaxed fixed point: each iterate moves part of the way to the next one of Picard iteration.

    Args:
        weight: w in Y <- (1 - w) Y + w F(Y).
        tol: Largest defect of a settled row, rms over elements.

    Returns:
        The method.

    Source: the iteration is that of Krasnosel'skii and Mann; ParaFlow (ICLR 2026 submission 4075,
    withdrawn) relaxes the same equations for flow models.
    """
    return FixedPoint(update=Relaxed(weight), form=Form.NOISE, stop=Residual(tol, 0.0))


def newton(
    jacobian: Jacobian | None = None, damping: float = 0.0, window: int | None = None, tol: float = 1e-3
) -> Newton:
    """Newton's method for the whole chain, known as DEER; with damping as ELK.

    Each round costs two evaluations for every node and product, so rounds are dearer than those of other methods.

    Args:
        jacobian: ``Full()`` for states of few elements; None for a diagonal estimated with one probe.
        damping: Levenberg's lambda; 0 for none. For one that fades take ``Newton(damping=..., fading=True)``.
        window: Width of the sliding window; None for the whole chain.
        tol: Largest defect of a settled row, rms over elements.

    Returns:
        The method, for models written in torch operations.

    Source: Lim et al. 2024, arXiv 2309.12252; Gonzalez et al. 2024, arXiv 2407.19115; see
    :mod:`paradrift.solvers.newton`.
    """
    return Newton(
        jacobian=Diagonal() if jacobian is None else jacobian,
        damping=damping,
        window=Whole() if window is None else Sliding(window),
        stop=Residual(tol, 0.0),
    )
