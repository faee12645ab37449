"""The planner: what it promises from given costs, and what solves teach it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import pytest
import torch

import paradrift as pd
from paradrift import grids, planner, report
from paradrift.experience import ENGINE, FAILING, STEPPING, Experience, cost_of, experience_of, learn, rounds_of
from paradrift.planner import GAIN, MARGIN, choose
from paradrift.solvers.base import Request
from paradrift.solvers.lowered import lower
from paradrift.windows import Auto

FLAT = {1: 10e-3, 4: 10e-3, 16: 10e-3, 64: 10e-3, 128: 10e-3}  # a device with room to spare
STEEP = {1: 10e-3, 4: 40e-3, 16: 160e-3, 64: 640e-3}  # one that is full with a single row
CHEAP = {1: 10e-6, 4: 10e-6, 16: 10e-6, 64: 10e-6}  # a model that costs less than the solver


def test_where_rows_are_free_the_widest_windows_are_planned() -> None:
    choice = choose(Auto(), FLAT, samples=1, nodes=1000, verified=64)
    assert choice.window.width == 128
    assert choice.sequential_seconds == pytest.approx(10.0)
    rounds = rounds_of(128, 1000)
    assert choice.seconds == pytest.approx(rounds * (cost_of(128 + 64 / rounds, FLAT) + ENGINE[0] + ENGINE[1] * 128))


@pytest.mark.parametrize("costs", [STEEP, CHEAP], ids=["full device", "cheap model"])
def test_where_batches_or_the_solver_cost_more_than_they_save_the_plan_is_sequential(costs: dict[int, float]) -> None:
    choice = choose(Auto(), costs, samples=1, nodes=1000, verified=64)
    assert choice.window.width == 1
    assert choice.words.startswith("sequential")


def test_a_model_that_takes_few_rounds_is_promised_them_the_next_time() -> None:
    costs = {1: 10e-3, 4: 24e-3, 16: 75e-3, 64: 300e-3}
    first = choose(Auto(), costs, samples=1, nodes=50, verified=0)
    easier = choose(Auto(), costs, samples=1, nodes=50, verified=0, known=Experience(rounds=0.5))
    assert first.window.width == 1
    assert easier.window.width > 1
    assert easier.seconds < 0.5


def test_what_is_learned_is_the_models_own_and_bounded() -> None:
    model, other = torch.nn.Identity(), torch.nn.Identity()
    taught = dict(nodes=100, samples=2, width=16, verified=32, costs={2: 1e-3, 72: 4e-3, 144: 8e-3})
    learn(model, "noisy", **taught, rounds=1, evaluations=72, model_seconds=6e-3, engine_seconds=3e-3)
    known = experience_of(model, "noisy")
    assert known.rounds == 0.5  # one round of an expected fifteen is not believed
    assert known.rows == pytest.approx(72 / (2 * (16 + 32)))
    assert known.engine == pytest.approx((3e-3 / (ENGINE[0] + ENGINE[1] * 16)) ** 0.5)  # of times, half is believed
    assert known.calls == pytest.approx(1.5**0.5)
    assert known.step == 1
    assert experience_of(other, "noisy") == Experience()
    assert experience_of(model, "without noise") == Experience()


def test_a_sequential_solve_teaches_what_a_step_takes_and_nothing_about_windows() -> None:
    model = torch.nn.Identity()
    taught = dict(nodes=100, samples=1, verified=0, costs={1: 1e-3, 16: 8e-3})
    windows = Experience(rounds=0.5, rows=0.5, engine=0.5**0.5, calls=0.5**0.5, solved=True)
    learn(model, "chain", **taught, width=16, rounds=1, evaluations=1, model_seconds=0, engine_seconds=0)
    assert experience_of(model, "chain") == windows
    for seconds, step in ((0.11, 1.2**0.5), (0.05, 1.2**0.25), (10.0, (1.2**0.25 * 1.4) ** 0.5)):  # bounded, and halved
        learn(
            model, "chain", **taught, width=1, rounds=100, evaluations=100, model_seconds=seconds, engine_seconds=0.01
        )
        known = experience_of(model, "chain")
        assert known.step == pytest.approx(step)
        assert dataclasses.replace(known, step=1.0) == windows


def test_calls_that_take_longer_in_a_solve_than_when_measured_change_the_plan() -> None:
    costs = {1: 10e-3, 4: 24e-3, 16: 40e-3, 64: 160e-3}
    plan = functools.partial(choose, Auto(), costs, samples=1, nodes=50, verified=0)
    tried = functools.partial(Experience, solved=True)
    measured = plan(known=tried())
    assert plan(known=tried(step=1.4)).sequential_seconds == pytest.approx(1.4 * measured.sequential_seconds)
    assert measured.window.width > 1
    assert plan(known=tried(calls=2.0)).window.width == 1
    assert plan(known=tried(calls=2.0, step=1.4, rounds=0.6)).window.width > 1
    # what no solve has shown must promise more: here it is a sixth
    assert MARGIN < measured.seconds / measured.sequential_seconds < GAIN
    assert plan().window.width == 1


@pytest.mark.parametrize("nodes", [10, 50, 100, 1000])
def test_a_wider_window_is_never_predicted_to_take_more_rounds(nodes: int) -> None:
    rounds = [rounds_of(width, nodes) for width in range(1, 2 * nodes)]
    assert rounds[0] == nodes
    assert all(after <= before for before, after in itertools.pairwise(rounds))
    assert rounds[-1] > 4


def test_a_first_call_that_was_slow_is_no_call_of_the_sequential_sampler() -> None:
    choice = choose(Auto(), {1: 30e-3, 4: 12e-3, 16: 48e-3}, samples=1, nodes=50, verified=0)
    assert choice.sequential_seconds == pytest.approx(50 * 12e-3)


def test_a_planned_solve_teaches_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = pd.Gaussian(torch.zeros(4), 1.0, pd.Discrete.linear(1000))
    monkeypatch.setattr("paradrift.solving.measure_costs", lambda *args: dict(FLAT))
    told: list[Experience] = []

    def choosing(*args: Any) -> planner.Choice:
        told.append(args[5])
        return choose(*args)

    monkeypatch.setattr("paradrift.solving.choose", choosing)
    first = pd.sample(toy, (1, 4), steps=100)
    again = pd.sample(toy, (1, 4), steps=100)
    pd.sample(toy, (1, 4), steps=100, sampler=pd.DDIM())
    before, after, other = told
    width = choose(Auto(), FLAT, samples=1, nodes=100, verified=64).window.width
    assert before == Experience() == other  # a chain without noise is another chain
    assert after.rounds == pytest.approx(max(0.5, first.stats.rounds / rounds_of(width, 100)))
    assert after.rounds < 1  # Gaussian data are easy
    torch.testing.assert_close(again.samples, first.samples, rtol=0, atol=2e-2)


class Clocked:
    """An executor whose calls take what they should, on a clock of its own."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.now, self.seconds, self.denoiser = 0.0, seconds, torch.nn.Identity()
        self.asked: list[int] = []

    def evaluate(self, request: Request) -> torch.Tensor:
        self.asked.append(len(request.t))
        self.now += cost_of(len(request.t), self.seconds)
        return request.x

    def measure(self, monkeypatch: pytest.MonkeyPatch, nodes: int) -> dict[int, float]:
        schedule = pd.Discrete.linear(1000)
        table = pd.DDIM().tableau(schedule, pd.grids.default(schedule, nodes))
        monkeypatch.setattr(planner.time, "perf_counter", lambda: self.now)
        return dict(planner.measure_costs(self, table, (4,), 1, 128, torch.zeros(1)))  # type: ignore[arg-type]


def test_windows_that_cannot_pay_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = Clocked({1: 3e-4, 128: 3e-4})  # even free rows cannot pay for the solver's own two milliseconds a round
    costs = cheap.measure(monkeypatch, nodes=50)
    assert cheap.asked == [1, 1]
    assert choose(Auto(), costs, samples=1, nodes=50, verified=0).window.width == 1
    dear = Clocked({1: 10e-3, 128: 10e-3})
    costs = dear.measure(monkeypatch, nodes=50)
    assert len(costs) > 1
    assert choose(Auto(), costs, samples=1, nodes=50, verified=0).window.width > 1


@pytest.mark.parametrize("cost", [3e-4, 1e-3, 3e-3, 10e-3, 0.1])
@pytest.mark.parametrize("rows", [0.0, 0.1, 1.0])
def test_after_a_few_solves_of_a_model_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, cost: float, rows: float
) -> None:
    executor = Clocked({1: cost, 129: cost * (1 + 128 * rows)})
    for solve in range(5):
        executor.now = 0.0
        executor.measure(monkeypatch, nodes=50)
        # two calls of one row in the first, a quarter for batches, which are called twice
        assert executor.now <= (0.54 if solve == 0 else 0.5) * 50 * cost
    assert executor.now == 0.0


def test_a_busy_spell_does_not_make_a_batch_dearer_than_a_larger_one() -> None:
    costs = {1: 10e-3, 16: 31e-3, 32: 26e-3}
    assert cost_of(16, costs) == pytest.approx(26e-3)
    assert cost_of(1, costs) == pytest.approx(10e-3)
    assert cost_of(64, costs) == pytest.approx(52e-3)


def test_rows_that_a_window_spares_are_not_paid_for() -> None:
    costs = {1: 10e-3, 8: 18e-3, 16: 30e-3, 32: 60e-3}
    full = choose(Auto(), costs, samples=1, nodes=50, verified=50)
    spared = choose(Auto(), costs, samples=1, nodes=50, verified=50, known=Experience(rows=0.6))
    assert spared.seconds < full.seconds


@pytest.mark.parametrize(
    ("nodes", "verify", "verified"), [(50, 64, 50), (100, 64, 50), (1000, 64, 63), (100, 0, 0), (1, 64, 1)]
)
def test_the_planner_expects_as_many_verified_nodes_as_a_solve_has(nodes: int, verify: int, verified: int) -> None:
    assert pd.default(verify=verify).verified(nodes) == verified
    table = pd.DDPM().tableau(pd.Discrete.linear(1000), grids.default(pd.Discrete.linear(1000), nodes))
    lowered = lower(table, pd.Zero(), 1.0, verify, 1, torch.float32, torch.device("cpu"), lawful=False)
    assert int(lowered.marks[1].sum()) == verified


def test_a_thinned_chain_is_planned_by_the_nodes_that_it_asks() -> None:
    def asked(width: int) -> tuple[int, int]:
        return 16, 15

    choice = choose(Auto(), FLAT, samples=1, nodes=50, verified=50, asked=asked)
    assert choice.window.width >= 16
    assert choice.words.startswith(f"Sliding({choice.window.width}) on 16 of 50 nodes")
    assert choice.seconds < choose(Auto(), FLAT, samples=1, nodes=50, verified=50).seconds
    assert not choice.thinned


@pytest.mark.parametrize("costs", [STEEP, CHEAP], ids=["full device", "cheap model"])
def test_where_rows_are_dear_a_thinned_chain_is_stepped_through(costs: dict[int, float]) -> None:
    def asked(width: int) -> tuple[int, int]:
        return (16, 15) if width > 1 else (12, 0)

    choice = choose(Auto(), costs, samples=1, nodes=100, verified=50, asked=asked)
    assert choice.thinned == (costs is STEEP)  # the cheap model is done before anything is thinned
    assert choice.window.width == 1


def test_what_fails_now_and_then_and_takes_the_solver_long_is_not_stepped_through() -> None:
    """A chain of 40 nodes of 100 that one time in three is followed by all of them saves a fourth, not 60 %."""

    def plan(cost: float, known: Experience) -> planner.Choice:
        costs = {size: cost * size for size in (1, 4, 16, 64)}
        return choose(Auto(), costs, samples=1, nodes=100, verified=0, known=known, asked=lambda width: (40, 0))

    sure, seldom = plan(10e-3, Experience(failing=0.0)), plan(10e-3, Experience(failing=1 / 3))
    assert sure.seconds == pytest.approx(0.4 + ENGINE[0] + 40 * STEPPING + 10e-3)  # and one call to check
    assert seldom.seconds == pytest.approx(sure.seconds + 100 / 3 * 10e-3)
    assert sure.thinned
    assert seldom.thinned
    assert not plan(10e-3, Experience(failing=0.6)).thinned
    assert not plan(3e-4, Experience(failing=0.0)).thinned  # the solver takes as long as the calls
    assert plan(3e-4, Experience(failing=0.0, stepping=0.5)).thinned


def test_stepping_through_few_nodes_teaches_how_often_it_fails_and_how_long_the_solver_takes() -> None:
    model = torch.nn.Identity()
    taught = dict(nodes=40, samples=1, width=1, verified=0, costs={1: 1e-3}, evaluations=40, model_seconds=0.04)
    slow = 2 * (ENGINE[0] + STEPPING * 40)
    learn(model, "chain", **taught, rounds=41, engine_seconds=slow, stepped=True)
    assert experience_of(model, "chain") == Experience(failing=0.75 * FAILING, stepping=2**0.5)
    learn(model, "chain", **taught, rounds=140, engine_seconds=1.0, stepped=True)
    known = experience_of(model, "chain")
    assert known == Experience(failing=pytest.approx(0.25 + 0.75**2 * FAILING), stepping=2**0.5)


def test_a_planned_chain_that_is_stepped_through_at_few_nodes_stays_within_the_tolerance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy = pd.GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [0.8, -0.2]], 0.05, pd.Discrete.linear(1000))
    monkeypatch.setattr("paradrift.solving.measure_costs", lambda *args: dict(STEEP))
    options = dict(sampler=pd.DDIM(), steps=100, seed=0)
    plain = pd.sample(toy, (4, 2), solver=pd.sequential(), **options)
    found = pd.sample(toy, (4, 2), tol=0.1, **options)
    assert found.stats.choice.startswith("Sliding(1) on ")
    assert found.stats.evaluations < 0.6 * plain.stats.evaluations
    assert float(report.distance(found.samples, plain.samples, toy.variance).max()) < 0.1


def test_a_thinned_chain_that_did_not_do_is_not_stepped_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that jump with time: all nodes follow the few, once; the next plan knows."""

    class Restless(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return 0.8 * x + 0.5 * torch.sin(1e3 * t)[:, None]

    model = pd.denoiser(Restless(), predicts="noise", schedule=pd.Discrete.linear(1000))
    monkeypatch.setattr("paradrift.solving.measure_costs", lambda *args: dict(STEEP))
    options = dict(sampler=pd.DDIM(), steps=100, tol=0.1, seed=0)
    first, second = (pd.sample(model, (2, 3), **options) for _ in range(2))
    assert first.stats.choice.startswith("Sliding(1) on 20 of 100 nodes")
    assert 100 < first.stats.rounds <= 120
    assert not second.stats.choice.startswith("Sliding(1) on")
    assert second.stats.rounds <= 100
