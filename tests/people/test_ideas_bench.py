"""The laboratory of slopes: its chain is the library's, its laws are exact where theory says so, its scripts run."""

import dataclasses
import importlib
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import paradrift as pd
from paradrift import grids
from paradrift.bench.problems import Problem, mixture
from paradrift.bench.records import load

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCHEDULE = pd.EDM(sigma_min=0.02, sigma_max=80.0)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # forward mode
BOTH = pytest.mark.parametrize("sampler", [pd.Euler(), pd.Ancestral()], ids=["ODE", "SDE"])


@pytest.fixture(scope="module")
def ideas():
    sys.path.insert(0, str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield importlib.import_module("ideas")
    torch.set_num_threads(threads)
    sys.path.remove(str(BENCHMARKS))


def gaussian(sampler, variances=(0.25, 0.25), mean=0.0, steps=12) -> Problem:
    model = pd.Gaussian([mean] * len(variances), list(variances), SCHEDULE)
    times = grids.karras(SCHEDULE, steps)
    return Problem(
        name="Gaussian",
        denoiser=lambda samples: model,
        shape=(len(variances),),
        sampler=sampler,
        times=times,
        dtype=torch.float64,
    )


def rounds(ideas, problem, idea, level=1e-9, variance=None):
    """Rounds to a level, of the slowest of three samples; with a prior variance other than the model's."""
    with torch.no_grad():
        chain, known = ideas.Chain(problem, 3), ideas.Chain(problem, 40, seed=99).sequential()
        chain.v0 = variance or chain.v0
        errors = ideas.solve(chain, idea, known, chain.sequential().y[-1], enough=level)
    return int(ideas.rounds_to(errors, level).max())


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_chain_is_the_sequential_sampler_of_the_library(ideas, stochastic):
    problem = mixture(stochastic)
    with torch.no_grad():
        found = ideas.Chain(problem, 3).sequential().y
    wanted = problem.solve(3, pd.sequential()).samples
    assert torch.allclose(found[-1], wanted, rtol=0, atol=1e-9)


@BOTH
def test_isotropic_gaussian_data_need_one_round_and_none_once_calibrated(ideas, sampler):
    """Slopes are known, one evaluation finds the mean; trajectories that are known tell it beforehand."""
    problem = gaussian(sampler, mean=3.0)
    for name, idea in ideas.IDEAS.items():
        assert rounds(ideas, problem, idea) == (0 if name.startswith("calibrated") else 1), name


@BOTH
def test_slopes_that_are_learned_need_one_round_more(ideas, sampler):
    """With a wrong prior variance; the derivative itself needs no second evaluation, other nodes' slopes mislead."""
    problem = gaussian(sampler, mean=3.0)
    assert rounds(ideas, problem, ideas.IDEAS["Newton"], variance=1.0) == 1
    assert rounds(ideas, problem, ideas.IDEAS["secant"], variance=1.0) == 2
    assert rounds(ideas, problem, ideas.IDEAS["pooled over 1 node before"], variance=1.0) > 2


@BOTH
def test_two_variances_need_as_many_changes_as_each_law_has_unknowns(ideas, sampler):
    """A derivative with the eigenvalues of two elements: exact at once, after one change of each element, after two."""
    problem = gaussian(sampler, variances=(0.1, 4.0), mean=1.0)
    alone = ideas.Idea(partial(ideas.elements, shrink=1e-12, pooled=1))
    two = ideas.Idea(partial(ideas.several, rank=2, ridge=1e-14))
    assert rounds(ideas, problem, ideas.IDEAS["Newton"]) == 1
    assert rounds(ideas, problem, alone) == 2
    assert rounds(ideas, problem, two, level=1e-6) == 3
    assert rounds(ideas, problem, ideas.IDEAS["secant"], level=1e-6) > 3


def test_every_idea_ends_at_the_sequential_answer(ideas):
    problem = mixture(stochastic=True)
    problem = dataclasses.replace(problem, times=problem.times[::5])
    for name, idea in ideas.IDEAS.items():
        assert rounds(ideas, problem, idea, level=1e-9) <= 10 + idea.memory, name


def test_two_iterates_combined_solve_a_linear_equation(ideas):
    """y = q y + 2 in one dimension, q another for each sample: the combination is the secant method."""
    q = torch.tensor([0.5, -0.9, 3.0], dtype=torch.float64)[None, :, None]
    past = [ideas.Nodes(q * y + 2, q * y + 2 - y) for y in (torch.zeros_like(q), torch.ones_like(q))]
    assert torch.allclose(ideas.combine(past[-1].y, past, ridge=0.0), 2 / (1 - q))
    assert ideas.combine(past[0].y, past[:1]) is past[0].y


def test_rounds_count_until_the_error_stays_below(ideas):
    errors = torch.tensor([[1.0, 0.01, 1.0], [0.05, 0.01, 1.0], [0.2, 0.01, 1.0], [0.01, 0.01, math.nan]])
    assert ideas.rounds_to(errors, 0.1).tolist() == [3, 0, 4]


def test_rounds_and_evaluations_are_shared_among_the_parts_of_a_chain(ideas):
    """A width that changes with the front: 4 nodes at first, 9 towards the end, never beyond it."""
    windows = importlib.import_module("growing_windows")
    window = windows.Growing(4, 9)
    assert window.limit(torch.tensor([0, 20, 49]), 50).tolist() == [4, 26, 50]
    record, spent = windows.solve(mixture(stochastic=True), 3, window)
    assert spent[0].sum().item() == pytest.approx(record.rounds_mean)
    assert spent[1].sum().item() == pytest.approx(record.evaluations / 3)
    assert bool((spent > 0).all())
    assert record.error_worst < 1e-2
    assert record.extra["calls, k = 8"] == pytest.approx(record.rounds_mean + record.evaluations / 3 / 8, abs=0.01)


def run(ideas, tmp_path, *words):
    result = CliRunner().invoke(ideas.app, ["--quick", "--out", str(tmp_path / "o.jsonl"), *words])
    assert result.exit_code == 0, result.output
    return result.output, load(tmp_path / "o.jsonl")


def check(ideas, records):
    for record in records:
        needed = [record.extra[f"mean to {level:.0e}"] for level in ideas.LEVELS]
        assert needed == sorted(needed)
        assert 0 < record.rounds_mean == needed[1] <= record.rounds_max <= record.extra["rounds made"]
        assert record.error_worst <= ideas.ENOUGH
        assert record.extra["unmet"] == 0


def test_a_quick_run_measures_every_idea(ideas, tmp_path):
    output, records = run(ideas, tmp_path, "--only", "mixture-64 ODE")
    assert [record.method for record in records] == [name for name in ideas.IDEAS if not name.endswith("label")]
    assert all(record.method in output for record in records)
    check(ideas, records)


@pytest.mark.slow
def test_a_quick_run_measures_every_problem(ideas, tmp_path):
    _, records = run(ideas, tmp_path)
    assert len(records) == 5 * len(ideas.IDEAS) - 4
    assert len({(record.problem, record.method) for record in records}) == len(records)
    check(ideas, records)
