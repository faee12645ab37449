"""Named methods that are points of one product (window, slopes, guess, stop); the others are in ``rivals``."""

from __future__ import annotations

from itertools import accumulate

from paradrift.forms import Form
from paradrift.guesses import Coast, Repeat
from paradrift.nodes import Thinned
from paradrift.samplers import Corrected
from paradrift.slopes import Increments, Secant, Zero
from paradrift.solvers.preconditioning import Preconditioned
from paradrift.solvers.sweep import Solver as Solver
from paradrift.stopping import LocalChange, Sweeps, Tolerance
from paradrift.verdicts import Exact
from paradrift.windows import Auto, Blocks, Cut, Sliding, Wavefront, Window

DEFAULT_TOL = 1e-2


def default(tol: float = DEFAULT_TOL, window: Window | None = None, verify: int = 64) -> Solver:
    """The library's own: secant slopes, Gaussian continuation, a stop calibrated on the answer, a planned window.

    Args:
        tol: Distance of the answer to the sequential one, rms over elements in units of sqrt(v0).
        window: None to let the planner choose.
        verify: Most nodes that are evaluated once more to measure the error that is reported; 0 for none.

    Returns:
        The solver.
    """
    return Solver(
        window=window or Auto(), slopes=Secant(), guess=Coast(), stop=Tolerance(tol), verify=verify, nodes=Thinned()
    )


def sequential() -> Solver:
    """The sequential sampler, through the same code: a window of one node.

    Returns:
        The solver.
    """
    return Solver(window=Sliding(1), slopes=Zero(), guess=Coast(), stop=Tolerance(0.0), verify=0)


def piadm_sde(blocks: int, sweeps: int) -> Solver:
    """PIADM-SDE: blocks one after the other, K Picard sweeps of the exponential integrator in each.

    For the paper's setting use ``Exponential(form=Form.SCORE, stochasticity=1)`` on the grid ``shrinking``. Rounds are
    K N; with K at least the number of nodes of a block the answer is the sequential sampler's.

    Args:
        blocks: N.
        sweeps: K.

    Returns:
        The solver.

    Source: Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986, Algorithm 1.
    """
    return Solver(window=Blocks(blocks), slopes=Zero(Form.SCORE), guess=Repeat(), stop=Sweeps(sweeps), verify=0)


def piadm_ode(sampler: Corrected, sweeps: int, corrector_sweeps: int | None = None) -> Solver:
    """PIADM-ODE: blocks of the predictor in K Picard sweeps, each followed by N' blocks of the corrector in K'.

    It takes the sampler whose table it solves, because the blocks are the sampler's: give both to
    :func:`paradrift.sample`. Rounds are (K + K' N') N, fewer where a block has fewer nodes than sweeps; with no block
    longer than its sweeps the answer is the sequential sampler's. What a sweep freezes is the predictor's own form, in
    the paper the score. The predictor alone is :func:`piadm_sde` with ``Exponential(stochasticity=0)``.

    Args:
        sampler: The method to solve.
        sweeps: K.
        corrector_sweeps: K'; None for as many as the predictor.

    Returns:
        The solver.

    Source: Chen, Ren, Ying, Rotskoff 2024, arXiv 2405.15986, Algorithms 2 and 3.

    Example:
        >>> from paradrift.samplers import Corrected, Underdamped
        >>> method = Corrected(blocks=4, corrector=Underdamped(steps=6, blocks=2))
        >>> solver = piadm_ode(method, sweeps=5, corrector_sweeps=3)
        >>> solver.window, solver.stop
        (Blocks(count=4, after=(6, 6)), Sweeps(count=(5, 3, 3)))
    """
    runs = sampler.corrector.blocks
    after = (sampler.corrector.steps,) * runs
    if isinstance(sampler.blocks, int):
        window: Window = Blocks(sampler.blocks, after)
    else:
        window = Cut(tuple(accumulate(nodes for own in sampler.blocks for nodes in (own, *after))))
    corrections = sweeps if corrector_sweeps is None else corrector_sweeps
    stop = Sweeps((sweeps, *(corrections,) * runs))
    return Solver(window=window, slopes=Zero(), guess=Repeat(), stop=stop, verify=0)


def paradigms(window: int = 64, tol: float = 0.1) -> Solver:
    """ParaDiGMS: Picard on increments in a sliding window, stopped on the local change.

    Its tolerance is not the library's: it bounds a local change in units of the step's noise, not an error.

    Args:
        window: Width of the window.
        tol: Change per noise, 0.1 in the paper.

    Returns:
        The solver.

    Source: Shih et al. 2023, arXiv 2305.16317, Algorithm 1.
    """
    return Solver(window=Sliding(window), slopes=Increments(), guess=Repeat(), stop=LocalChange(tol), verify=0)


def parasolver(window: int = 64, steps: int = 5, tol: float = 0.1) -> Solver:
    """ParaSolver: ParaDiGMS after a few sequential steps, with later rows filled from the predicted data.

    Its tolerance is that of ParaDiGMS. The published comparison takes 0.55 with 1000 steps of DDPM.

    Args:
        window: Width of the window.
        steps: Preconditioning steps: nodes that are settled one by one at first, a round each.
        tol: Change per noise.

    Returns:
        The solver.

    Source: Lu, Zhu and Hou, ICLR 2025. What differs here: the noises of the samples are those of the sequential
    sampler, and rows are filled when they enter the window, from the newest prediction, not all at once from that
    after the preconditioning steps.
    """
    return Solver(
        window=Preconditioned(steps, Sliding(window)),
        slopes=Increments(),
        guess=Coast(),
        stop=LocalChange(tol),
        verify=0,
    )


def wavefront(blocks: int, sweeps: int) -> Solver:
    """The wavefront: the blocks of PIADM all in flight, each one Picard sweep behind the block before it.

    For the paper's setting use ``Exponential(form=Form.SCORE, stochasticity=1)`` on the grid ``shrinking``. Rounds are
    N + J - 1, against N J for blocks one after the other; the theorem asks for J of the order N + log d, so for a
    number of rounds of the order log d. With J = M - N + 1, M the nodes of the whole chain, the answer is the
    sequential sampler's. All rows are held in memory.

    Args:
        blocks: N.
        sweeps: J, of every block.

    Returns:
        The solver.

    Source: Zhou and Sugiyama, ICML 2025, arXiv 2412.07435, Algorithm 2; see :mod:`paradrift.solvers.wavefront` for the
    one difference, in how blocks are filled at first.
    """
    return Solver(window=Wavefront(blocks), slopes=Zero(Form.SCORE), guess=Repeat(), stop=Sweeps(sweeps), verify=0)


def autospeculative(window: int = 64, seed: int = 0) -> Solver:
    """Autospeculation: drafts with a frozen data prediction, verified so that the law is the sequential sampler's.

    All rows of a window are drafted with the last prediction that is known, evaluated in one batch, and settled up to
    the first that falls; then all is drafted anew. The prediction that is frozen is that of the last settled node,
    which has been evaluated anyway; the published method evaluates the next one first, a round more each time.

    Args:
        window: Width of the window.
        seed: Seed of the uniforms that decide; give the noise the same.

    Returns:
        The solver, for samplers with noise at every step.

    Source: Hu, Das, Sadigh, Anari 2025, arXiv 2505.03983.
    """
    return Solver(
        window=Sliding(window), slopes=Zero(Form.DATA), guess=Coast(), stop=Exact(seed, refine=False), verify=0
    )
