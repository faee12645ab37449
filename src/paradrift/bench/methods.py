"""The catalogue: every parallel sampler that is compared, as its paper uses it, and the one number that it is tuned by.

A method is asked at several *knobs*, from loose to strict, and at several *widths*, rows of a sample in a round: a
method that would evaluate 50 rows at once is no rival of one that has 16. What is compared are the errors that came
out, so it does not matter that tolerances of different methods mean different things.

To add a method, add an :class:`Entry`. Rivals get the choices that their papers recommend, the starting point and stop
of their own, and no verification round; neither do ours here. DEER with whole Jacobians is not among them: it asks for
a product for each element in every row, many times the rows of any width. Where a paper leaves a choice, the one that
did best on the problem set is taken; see ``docs/comparison.md``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import paradrift as pd
from paradrift import prepare
from paradrift.bench.problems import Problem
from paradrift.guesses import Repeat
from paradrift.slopes import Zero
from paradrift.solvers.chords import PUBLISHED
from paradrift.solvers.fixed_point import FixedPoint
from paradrift.solvers.jacobians import Diagonal
from paradrift.solvers.method import Method
from paradrift.solvers.preconditioning import Preconditioned
from paradrift.tableau import Tableau
from paradrift.windows import Window

Making = Callable[[float, int | None, Problem], pd.Solver | Method]
Fitting = Callable[[Problem, int | None], bool]

TOLS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)
CHANGES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
COUNTS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 24.0, 32.0, 48.0)


def always(problem: Problem, width: int | None) -> bool:
    """Every problem and width.

    Args:
        problem: The problem.
        width: Rows of a sample in a round; None for the whole chain.

    Returns:
        True.
    """
    return True


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A method of the catalogue.

    Args:
        name: Word for legends, tables and the command line.
        paper: Where it comes from.
        make: The method at a knob, with so many rows of a sample in a round (None: as many as the chain has).
        ladder: Knobs from loose to strict; a comparison climbs until the error is small enough.
        knob: What they are.
        ours: Whether it is the library's own rather than a rival.
        fits: Whether it can solve a problem with so many rows.
        law: Whether it is exact in law only: its answers are not those of the same noises, so only rounds count.
        planned: The method at a knob with a planned window, without verification, which rivals do not have either; None
            for those that do not plan.
    """

    name: str
    paper: str
    make: Making
    ladder: tuple[float, ...]
    knob: str = "tolerance"
    ours: bool = False
    fits: Fitting = always
    law: bool = False
    planned: Callable[[float], pd.Solver | Method] | None = None


def window(width: int | None) -> Window:
    """So many rows of a sample in a round.

    Args:
        width: Rows; None for the whole chain.

    Returns:
        A sliding window, or the whole chain.
    """
    return pd.Whole() if width is None else pd.Sliding(width)


def table(problem: Problem) -> Tableau:
    """The sequential sampler's own table.

    Args:
        problem: The problem.

    Returns:
        The table.
    """
    return prepare.own_table(problem.denoiser(1), problem.sampler, None, problem.times)


def _one_step(problem: Problem, width: int | None) -> bool:
    own = table(problem)
    return own.reach == 1 and own.nodes == own.rows - 1


def _noisy(problem: Problem, width: int | None) -> bool:
    return _one_step(problem, width) and bool(table(problem).noisy)


FITTED = 500  # answers that moments are fitted on
_moments: dict[str, pd.Moments] = {}


def _calibrated(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    """The default, guessing from moments of answers to other noises, of the same sampler with about 50 steps."""
    if problem.name not in _moments:
        thinned = problem.times[:: max(1, problem.steps // 50)]
        times = thinned if thinned[-1] == problem.times[-1] else [*thinned, problem.times[-1]]
        known = pd.sample(
            problem.denoiser(FITTED),
            (FITTED, *problem.shape),
            sampler=problem.sampler,
            times=times,
            solver=pd.sequential(),
            seed=99,
            dtype=problem.dtype,
        )
        _moments[problem.name] = pd.Moments.fit(known.samples)
    return dataclasses.replace(pd.default(knob, window(width), verify=0), guess=pd.Calibrated(_moments[problem.name]))


def _picard(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    stop = pd.LocalChange(knob)
    return pd.Solver(window=window(width), slopes=Zero(), guess=Repeat(), stop=stop, verify=0)


def _paradigms(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    return dataclasses.replace(pd.paradigms(1, knob), window=window(width))


def _parasolver(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    steps = max(1, problem.steps // 200)  # 5 of 1000, as published
    return dataclasses.replace(pd.parasolver(1, steps, knob), window=Preconditioned(steps, window(width)))


def _parataa(order: int, memory: int) -> Making:
    def make(knob: float, width: int | None, problem: Problem) -> FixedPoint:
        return pd.parataa(order=order, memory=memory, window=width, tol=knob * 1e-2, share=knob)

    return make


def _anderson(knob: float, width: int | None, problem: Problem) -> FixedPoint:
    return dataclasses.replace(pd.anderson(memory=5, tol=knob), window=window(width))


def _relaxed(knob: float, width: int | None, problem: Problem) -> FixedPoint:
    return dataclasses.replace(pd.relaxed(0.8, knob), window=window(width))


def _blocks(problem: Problem, width: int | None) -> int:
    """Blocks of parareal: the root of the steps, fewer where one walk in each and one more would need more rows."""
    root = max(2, math.isqrt(problem.steps))
    return root if width is None else min(root, width - 1)


def _srds(knob: float, width: int | None, problem: Problem) -> Method:
    return pd.srds(blocks=_blocks(problem, width), tol=knob)


def starts(steps: int, cores: int) -> tuple[int, ...]:
    """Steps at which the cores of CHORDS start: those published for 8 cores and 50 steps, in proportion.

    Args:
        steps: Steps of the chain.
        cores: Cores, at most 8 of the published.

    Returns:
        Ascending steps from 0; fewer cores where two would start at the same step.
    """
    scaled = {round(start * steps / 50) for start in PUBLISHED[:cores]}
    return tuple(sorted(start for start in scaled if start < steps))


def _newton(knob: float, width: int | None, problem: Problem) -> Method:
    rows = None if width is None else max(1, width // 2)  # a product with a tangent costs as much as a row
    return pd.newton(Diagonal(), window=rows, tol=knob)


def _chords(knob: float, width: int | None, problem: Problem) -> Method:
    return pd.chords(starts=starts(problem.steps, 8), tol=0.0, arrivals=round(knob))


def _chords_fits(problem: Problem, width: int | None) -> bool:
    return _one_step(problem, width) and not table(problem).noisy and (width is None or width >= 8)


def _piadm(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    blocks = 1 if width is None else math.ceil(problem.steps / width)
    return dataclasses.replace(pd.piadm_sde(blocks, round(knob)), slopes=Zero())


def _wavefront(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    blocks = max(2, round(2 * math.log2(problem.steps) / 3))
    return dataclasses.replace(pd.wavefront(blocks, round(knob)), slopes=Zero())


def _autospeculative(knob: float, width: int | None, problem: Problem) -> pd.Solver:
    return dataclasses.replace(pd.autospeculative(1), window=window(width))


CATALOGUE: tuple[Entry, ...] = (
    Entry(
        name="default",
        paper="this library",
        make=lambda knob, width, problem: pd.default(knob, window(width), verify=0),
        ladder=TOLS,
        ours=True,
        planned=lambda knob: pd.default(knob, verify=0),
    ),
    Entry(
        name="calibrated",
        paper="this library, moments fitted on 500 answers",
        make=_calibrated,
        ladder=TOLS,
        ours=True,
    ),
    Entry(name="ParaDiGMS", paper="Shih et al. 2023", make=_paradigms, ladder=CHANGES, fits=_one_step),
    Entry(name="ParaTAA", paper="Tang et al. 2024", make=_parataa(20, 3), ladder=CHANGES[2:]),
    Entry(name="Picard", paper="sampler's own form, stop of ParaDiGMS", make=_picard, ladder=CHANGES),
    Entry(name="Anderson", paper="Pokle, Geng, Kolter 2022", make=_anderson, ladder=CHANGES[3:]),
    Entry(name="SRDS", paper="Selvam, Merchant, Ermon 2024", make=_srds, ladder=CHANGES[2:], fits=_one_step),
    Entry(
        name="CHORDS",
        paper="Han et al. 2025",
        make=_chords,
        ladder=tuple(float(count) for count in range(1, 8)),
        knob="arrivals waited for",
        fits=_chords_fits,
    ),
    Entry(name="ParaSolver", paper="Lu, Zhu, Hou 2025", make=_parasolver, ladder=CHANGES, fits=_one_step),
    Entry(name="relaxed", paper="Krasnosel'skii-Mann, as ParaFlow", make=_relaxed, ladder=CHANGES[3:]),
    Entry(
        name="quasi-DEER",
        paper="Gonzalez et al. 2024, Hutchinson diagonals",
        make=_newton,
        ladder=CHANGES[3:],
    ),
    Entry(name="PIADM", paper="Chen et al. 2024", make=_piadm, ladder=COUNTS, knob="sweeps of a block"),
    Entry(
        name="wavefront",
        paper="Zhou, Sugiyama 2025",
        make=_wavefront,
        ladder=COUNTS[1:],
        knob="sweeps of a block",
        fits=lambda problem, width: width is None,
    ),
    Entry(
        name="autospeculation",
        paper="Hu et al. 2025",
        make=_autospeculative,
        ladder=(0.0,),
        knob="none",
        fits=_noisy,
        law=True,
    ),
)
