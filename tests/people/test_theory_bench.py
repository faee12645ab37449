"""The study that runs the theorems: its budgets are kept, its claims hold where they are cheap, and it can go on."""

import dataclasses
import functools
import math

import matplotlib.image
import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.bench import records, suites, theory, theory_ode, theory_plots, theory_tables, theory_terms, theory_words
from paradrift.bench.records import Record, measured
from paradrift.bench.theory_dimension import METHODS, fewest, points, solve, solvers
from paradrift.bench.theory_setting import SHARES, Setting, flow, pilot, product, truncation
from paradrift.cli import main
from paradrift.forms import Form

ONE = Setting(dim=64, nats=1.0, form=Form.RESIDUAL, careful=True)


@functools.cache
def study(dims: tuple[int, ...]) -> tuple[Record, ...]:
    """Every method in every dimension, at one nat, with the theorem's horizon."""
    settings = [dataclasses.replace(ONE, dim=dim) for dim in dims]
    return tuple(measured(point) for point in points(settings))


def rounds(dims, method):
    return [record.rounds_mean for record in study(dims) if record.method == method]


def test_the_product_is_a_mixture_in_each_coordinate():
    schedule = pd.OU(horizon=3.0, last=0.1)
    model = product(schedule)
    means = torch.tensor(model.means, dtype=torch.float64)[:, None]
    one = pd.GaussianMixture(model.weights, means, model.variances, schedule, form=Form.SCORE)
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.linspace(0.1, 3, 40, dtype=torch.float64)
    expected = torch.stack([one(x[:, i : i + 1], t)[:, 0] for i in range(5)], 1)
    torch.testing.assert_close(model(x, t), expected, rtol=1e-12, atol=1e-12)
    assert model.variance == pytest.approx(1)
    tilted = dataclasses.replace(model, tilt=0.1)
    torch.testing.assert_close(tilted(x, t) - model(x, t), 0.1 * (2 * x).sin())


def test_truncation_falls_with_the_fourth_cumulant():
    """Unit variance and symmetry leave the fourth cumulant: KL = kappa^2 exp(-4 T) / 48 to leading order."""
    cumulant = -2 * 0.8**2
    for horizon in (3.0, 4.0):
        expected = cumulant**2 * math.exp(-4 * horizon) / 48
        assert truncation(horizon) == pytest.approx((expected, expected), rel=0.1)


def test_the_flow_is_that_of_a_fine_grid():
    schedule, start = pd.OU(horizon=3.0, last=0.1), torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
    gaps = []
    for steps in (100, 200):
        times = pd.grids.shrinking(schedule, steps)
        method = dict(sampler=theory_ode.ODE, times=times, solver=pd.sequential(), dtype=torch.float64)
        gaps.append(pd.sample(product(schedule), (7, 1), start=start, **method).samples - flow(schedule, start))
    assert float(gaps[0].abs().max()) < 0.02
    moved = [0, 1, 2, 4, 5, 6]  # the middle stays where it is
    torch.testing.assert_close(gaps[0][moved] / gaps[1][moved], torch.full((6, 1), 2.0).double(), rtol=0.05, atol=0)


@pytest.mark.slow
def test_horizon_and_steps_are_the_fewest_that_fit():
    shortest, share = Setting(dim=64, nats=1.0).schedule.horizon, SHARES["truncation"] / 64
    assert max(truncation(shortest)) <= share < max(truncation(shortest - 1e-6))
    cost = [64 * pilot(ONE.form, ONE.schedule, steps) for steps in (ONE.steps - 1, ONE.steps)]
    assert cost[1] <= SHARES["discretisation"] < cost[0]
    assert ONE.schedule.horizon == pytest.approx(math.log(4 * 64))


@pytest.mark.parametrize("name", ["PIADM-SDE", "wavefront", "Picard, residual form"])
def test_sweeps_are_the_fewest_that_fit(name):
    sweeps, found = fewest(ONE, name)
    assert float(found.nats.mean()) <= SHARES["parallel"]
    assert float(solve(ONE, solvers(ONE)[name](sweeps - 1)).nats.mean()) > SHARES["parallel"]


def test_budgets_are_kept_by_every_method():
    for record in study((16, 64)):
        assert record.extra["parallel"] <= SHARES["parallel"]
        if record.method.endswith("stop=KL"):
            assert record.extra["parallel_worst"] <= SHARES["parallel"]
        if record.extra["drift"] is not None:  # truncation, discretisation and parallel, all measured together
            assert record.extra["drift"] + record.extra["truncation_reverse"] <= 1


def test_rounds_hardly_grow_and_steps_grow_like_the_dimension():
    dims = (16, 64)
    assert [record.method for record in study(dims)] == [*METHODS, *METHODS]
    assert 1 < theory_words.exponent(dims, rounds(dims, "sequential")) < 1.4
    few, more = rounds(dims, "default, stop=KL")
    assert (few, more) <= (2, 3)  # as measured
    assert more <= 3
    for method in ("PIADM-SDE", "wavefront", "Picard, score form"):
        assert rounds(dims, method)[1] > 3 * more


@pytest.mark.slow
def test_sixteen_times_the_dimension_costs_at_most_twice_the_rounds():
    dims = (16, 64, 256)
    assert 1 < theory_words.exponent(dims, rounds(dims, "sequential")) < 1.3
    default, piadm = rounds(dims, "default, stop=KL"), rounds(dims, "PIADM-SDE")
    assert default[2] <= 2 * default[0]
    assert piadm[2] > 4 * piadm[0]  # both factors of log^2 d


@pytest.mark.parametrize("name", theory_ode.METHODS)
def test_the_ode_keeps_its_distance(name):
    found = {key: measure for key, measure in theory_ode.points((16,))}[f"ode/theorem/16/{name}"]()
    assert found.extra["parallel"] <= theory_ode.SHARE
    assert found.extra["discretisation"] <= theory_ode.SHARE
    assert found.rounds_max <= found.steps


def term(name, *sizes):
    found = {key: measure for key, measure in theory_terms.points(False)}
    return [found[f"terms/{name}/{size:g}"]().extra for size in sizes]


def test_exact_terms_have_the_theorems_shapes():
    few, many = term("truncation/Gaussian", 6, 8)
    assert math.log(few["truncation"] / many["truncation"]) == pytest.approx(2, abs=0.02)  # exp(-T)
    coarse, fine = term("discretisation/Gaussian", 256, 512)
    ratio = {name: coarse[name] / fine[name] for name in theory_words.quantities(Record(**BASE, extra=coarse))}
    assert ratio["SDE, paths"] == pytest.approx(2, abs=0.05)  # the step
    assert ratio["ODE, squared distance"] == pytest.approx(4, abs=0.05)  # its square
    assert ratio["SDE, answers"] == pytest.approx(4, abs=0.1)  # not what the theorem bounds, and far smaller
    small, large = term("score/Gaussian", 0.025, 0.05)
    assert large["SDE, paths"] / small["SDE, paths"] == pytest.approx(4, rel=0.06)
    early, late = term("picard/Gaussian", 17, 18)
    assert early["SDE, score form"] / late["SDE, score form"] > math.e**2  # faster than exp(-K)


@pytest.mark.slow
def test_sampled_terms_have_the_theorems_shapes():
    """4096 coordinates; the standard errors are below 2 percent, so 10 percent is beyond five of them."""
    coarse, fine = term("discretisation/mixture", 32, 64)
    assert coarse["SDE, paths"] / fine["SDE, paths"] == pytest.approx(2.1, rel=0.1)
    small, large = term("score/mixture", 0.1, 0.2)
    assert large["SDE, paths"] / small["SDE, paths"] == pytest.approx(4, rel=0.1)


@pytest.mark.slow
def test_small_tables():
    found = [measured(point) for point in theory_tables.points(True)]
    by_method = {r.method: r.rounds_max for r in found if r.extra.get("stochasticity") == 1 and "blocks" not in r.extra}
    assert by_method["secant"] <= by_method["Gaussian reference"] <= by_method["Picard, score form"] < 24
    one, two = (r.rounds_max for r in found if r.extra["part"] == "blocks" and r.method == "Picard, score form")
    assert one == by_method["Picard, score form"] <= two
    for record in found:
        if record.extra["part"] == "certificate":  # four standard errors
            off = abs(record.extra["sampled"] - record.extra["exact"])
            assert off < 4 * record.extra["standard_error"] < 0.3 * record.extra["exact"]


@pytest.mark.slow
def test_pictures_and_tables(tmp_path):
    found = [*study((16, 64)), *(measured(p) for p in theory_terms.points(True) if "mixture" not in p[0])]
    found += [measured(p) for p in theory_ode.points((16, 64)) if "alone" in p[0]]
    paths = theory_plots.draw(tmp_path, found)
    assert [path.name for path in paths] == ["theory-rounds.png", "theory-memory.png", "theory-terms.png"]
    for path in paths:
        assert np.std(matplotlib.image.imread(path)[..., :3]) > 0.02
    text = theory_words.tables(found)
    assert "| default, stop=KL | 2 | 3 | 1.50 | 0.72 |" in text
    assert "**Error terms**" in text
    assert "**ODE**" in text


BASE = dict(problem="p", method="m", sampler="s", steps=1, window="w", tol=None, samples=1, rounds_mean=1.0)
BASE |= dict(rounds_max=1, evaluations=1, seconds=0.0)


def test_a_study_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, capsys):
    made = []

    def point(key):
        def measure():
            made.append(key)
            return Record(**BASE)

        return key, measure

    monkeypatch.setattr(suites, "POINTS", {"theory": lambda quick: map(point, "abc")})
    monkeypatch.setattr(suites, "SUITES", {"theory": lambda quick: (measured(point(key)) for key in "ab")})
    assert main(["bench", "theory", "--resume", "--out", str(tmp_path)]) == 0
    assert made == ["a", "b"]  # no file yet
    assert main(["bench", "theory", "--resume", "--out", str(tmp_path)]) == 0
    assert made == ["a", "b", "c"]
    assert [record.extra["key"] for record in records.load(tmp_path / "theory.jsonl")] == ["a", "b", "c"]
    capsys.readouterr()


def test_names_of_points_are_different():
    keys = [key for key, _ in theory.points(False)]
    assert len(set(keys)) == len(keys) > 200
