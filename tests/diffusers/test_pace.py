"""The planned window: the least predicted time, from what rounds have cost, remembered with the network."""

import gc
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import paradrift as pd
from paradrift.diffusers import evaluation, pace, rehearsal
from paradrift.diffusers.calls import Cell, signature
from paradrift.diffusers.pace import TRIAL, WIDTHS, Pace

ALONE = "one call after the other: no window promised to be faster"


class Net(nn.Module):
    """A small smooth network of a state and a time."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(7, 16), nn.Linear(16, 6)
        self.requires_grad_(False)

    def forward(self, x, timestep):
        t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, 1).expand(len(x), 1)
        return self.outer(torch.tanh(self.inner(torch.cat([x, t], 1))))


class Clock:
    """A clock that stands still but for what networks and devices are said to take."""

    def __init__(self):
        self.now, self.queued = 0.0, 0.0

    def perf_counter(self):
        return self.now

    def synchronize(self, device):
        self.now, self.queued = self.now + self.queued, 0.0


class Timed(Net):
    """A network that takes a known time; on a device that runs behind, once somebody waits for it."""

    def __init__(self, clock, cost, behind=False):
        super().__init__()
        self.clock, self.cost, self.behind, self.forwards = clock, cost, behind, 0

    def forward(self, x, timestep):
        self.forwards += 1
        if self.behind:
            self.clock.queued += self.cost(len(x))
        else:
            self.clock.now += self.cost(len(x))
        return super().forward(x, timestep)


class Sleeping(Net):
    """A network that takes time."""

    def __init__(self, cost):
        super().__init__()
        self.cost = cost

    def forward(self, x, timestep):
        time.sleep(self.cost(len(x)))
        return super().forward(x, timestep)


def flat(rows):
    return 3e-3


def proportional(rows):
    return 3e-3 * rows


def loop(net, steps=40):
    def program():
        x = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
        for step in range(steps):
            x = x - 0.3 * net(x, torch.tensor(step / steps))
        return x

    return program


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    for module in (evaluation, rehearsal):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=found.perf_counter))
    monkeypatch.setattr(evaluation, "synchronize", found.synchronize)
    return found


KIND = signature("net", [torch.zeros(1, 6)], None)
OTHER = signature("net", [torch.zeros(2, 6)], None)


def paced(costs, net=None, **options):
    net = Net() if net is None else net
    found = Pace(modules={"net": net}, **options)
    for calls, seconds in costs.items():
        found.measured(KIND, calls, seconds)
    return found


@pytest.mark.parametrize("knee", [4, 8, 16, 32, 64])
def test_the_window_is_where_batches_begin_to_cost(monkeypatch, knee):
    """Free up to some size, three times as expensive at twice of it; every round settles the whole window."""
    monkeypatch.setattr(pace, "rounds_of", lambda width, calls: calls / width)
    costs = {1: 1.0, 4: 1.0, knee: 1.0, 2 * knee: 3.0, 4 * knee: 7.0}
    assert paced(costs).width({KIND: 1.0}, 5000) == knee


def test_a_flat_cost_asks_for_a_wide_window_and_a_proportional_one_for_none():
    wide = paced({1: 1.0, 4: 1.0, 64: 1.0})
    assert wide.width({KIND: 1.0}, 1000) == max(WIDTHS)
    assert wide.plan.startswith(f"window {max(WIDTHS)}: predicted ")
    assert wide.plan.endswith(" times faster than plainly")
    none = paced({calls: float(calls) for calls in (1, 4, 64)})
    assert none.width({KIND: 1.0}, 1000) == 1
    assert none.plan == ALONE


def test_the_predicted_factor_is_that_of_the_prediction(monkeypatch):
    """Flat costs and ideal rounds: 8 calls a round are 8 times faster, and 6 with a third of a call for the tape."""
    monkeypatch.setattr(pace, "rounds_of", lambda width, calls: calls / width)
    monkeypatch.setattr(pace, "WIDTHS", (4, 8))
    found = paced({1: 1.0, 8: 1.0})
    assert found.width({KIND: 1.0}, 800) == 8
    assert found.plan == "window 8: predicted 8.0 times faster than plainly"
    found.played(8, 8 / 24)
    assert found.width({KIND: 1.0}, 800) == 8
    assert found.plan == "window 8: predicted 6.0 times faster than plainly"
    found = paced({1: 1.0, 8: 1.0})
    found.played(8, 800.0)  # playing the tape is what takes the time
    assert found.width({KIND: 1.0}, 800) == 1


def test_a_small_gain_is_no_reason(monkeypatch):
    """A window must promise a fifth less time: the replay itself is not free."""
    monkeypatch.setattr(pace, "rounds_of", lambda width, calls: calls / width)
    for share in (0.9, 0.82, 0.78, 0.6):
        width = paced({1: 1.0, 4: 4 * share, 64: 64 * share}).width({KIND: 1.0}, 100_000)
        assert (width > 1) == (share < 0.8)


@pytest.mark.parametrize("costs", [{}, {1: 1.0}])
@pytest.mark.parametrize(("narrowest", "expected"), [(1, TRIAL), (16, 16)])
def test_where_no_batch_was_timed_a_few_calls_are_tried(costs, narrowest, expected):
    found = paced(costs, narrowest=narrowest)
    assert found.width({KIND: 1.0}, 1000) == expected
    assert found.plan == f"window {expected}, to try"
    assert found.width({OTHER: 1.0}, 1000) == expected


@pytest.mark.parametrize("narrowest", [6, 16, 48])
def test_no_window_is_narrower_than_batches_are_filled_up_to(narrowest):
    knee = paced({1: 1.0, 4: 1.0, narrowest: 1.5, 64: 60.0}, narrowest=narrowest)
    assert knee.width({KIND: 1.0}, 1000) == narrowest
    assert knee.width({KIND: 1.0}, narrowest - 1) in (1, narrowest - 1)
    assert paced({1: 1.0, narrowest: float(narrowest)}, narrowest=narrowest).width({KIND: 1.0}, 1000) == 1


@pytest.mark.parametrize("remaining", [1, 2, 3])
def test_the_last_calls_are_one_window(remaining):
    assert paced({1: 1.0, 4: 1.0}).width({KIND: 1.0}, remaining) == remaining


def test_no_window_is_wider_than_what_is_left():
    found = paced({1: 1.0, 64: 1.0})
    for remaining in range(TRIAL, 70):
        assert found.width({KIND: 1.0}, remaining) <= remaining


def test_a_window_that_was_asked_for_is_taken():
    found = paced({1: 1.0, 4: 4.0}, window=7)
    assert found.width({KIND: 1.0}, 1000) == found.width({KIND: 1.0}, 2) == 7
    assert found.plan == "window 7 as asked"


def test_the_plan_is_about_most_of_the_calls_and_not_about_the_last():
    found = paced({1: 1.0, 4: 1.0, 64: 1.0})
    found.width({KIND: 1.0}, 200)
    said = found.plan
    for remaining in (90, 20, 5, 2):
        found.width({KIND: 1.0}, remaining)
    assert found.plan == said


def test_costs_are_remembered_with_the_network_its_shapes_and_the_threads():
    net, threads = Net(), torch.get_num_threads()
    paced({1: 1.0, 4: 4.0, 64: 64.0}, net)
    later = Pace(modules={"other name": net, "net": net})
    assert later.width({KIND: 1.0}, 1000) == 1
    assert later.width({OTHER: 1.0}, 1000) == TRIAL
    assert Pace(modules={"net": Net()}).width({KIND: 1.0}, 1000) == TRIAL
    try:
        torch.set_num_threads(threads + 1)
        assert later.width({KIND: 1.0}, 1000) == TRIAL
    finally:
        torch.set_num_threads(threads)
    assert later.width({KIND: 1.0}, 1000) == 1


def test_costs_are_forgotten_with_the_network():
    net = Net()
    pd.replay(loop(net), {"net": net}, strict=True)
    assert net in pace._remembered
    watched = weakref.ref(net)
    del net
    gc.collect()
    assert watched() is None


def test_the_sequential_time_is_that_of_single_calls_of_each_kind():
    found = paced({1: 2.0, 4: 3.0})
    cells = [Cell(signature=KIND, leaves=[])] * 5
    assert found.sequential(cells) == 10.0
    assert found.sequential([*cells, Cell(signature=OTHER, leaves=[])]) is None
    found.measured(OTHER, 1, 0.5)
    assert found.sequential([*cells, Cell(signature=OTHER, leaves=[])]) == 10.5
    assert Pace(modules={"net": Net()}).sequential(cells) is None


def test_a_flat_network_gets_a_wide_window_in_every_run(clock):
    net = Timed(clock, flat)
    plain = loop(net)()
    for _ in range(3):
        begin = clock.now
        found, stats = pd.replay(loop(net), {"net": net}, tol=1e-3, strict=True)
        assert float((found - plain).norm() / plain.norm()) < 2e-3
        assert stats.window >= 8
        assert stats.plan.startswith("window ")
        assert stats.sequential_seconds == pytest.approx(40 * 3e-3)
        assert stats.model_seconds == pytest.approx(clock.now - begin)
        assert stats.model_seconds < 0.5 * stats.sequential_seconds
        assert ", to try" not in stats.plan
        assert f"; plainly they would take {stats.sequential_seconds:.2f} s (predicted)" in str(stats)


def test_a_network_that_gains_nothing_by_batches_is_called_as_plainly_from_the_second_run_on(clock):
    net = Timed(clock, proportional)
    plain = loop(net)()
    first = pd.replay(loop(net), {"net": net}, tol=1e-3, strict=True)[1]
    assert first.evaluations < 60  # it had to try
    for _ in range(2):
        net.forwards = 0
        found, stats = pd.replay(loop(net), {"net": net}, tol=1e-3, strict=True)
        assert torch.equal(found, plain)
        assert (stats.evaluations, stats.rounds, stats.executions, stats.window) == (40, 40, 1, 1)
        assert stats.plan == ALONE
        assert stats.error_bound == 0.0
        assert stats.model_seconds == pytest.approx(41 * 3e-3)  # the first twice: is it a function?
        assert net.forwards == 41


def test_a_device_that_runs_behind_is_waited_for(clock):
    """A call that returns before its work is done has not cost nothing."""
    net = Timed(clock, proportional, behind=True)
    for _ in range(2):
        _, stats = pd.replay(loop(net), {"net": net}, tol=1e-3, strict=True)
        assert stats.sequential_seconds == pytest.approx(40 * 3e-3)
    assert stats.plan == ALONE
    assert stats.evaluations == 40


def test_a_round_of_several_batches_is_timed_by_the_batch(clock):
    net = Timed(clock, lambda rows: 1.0 + 0.1 * rows)
    pd.replay(loop(net), {"net": net}, tol=0.0, window=12, max_rows=4, strict=True)
    (costs,) = pace._remembered[net][torch.get_num_threads()].values()
    assert costs[4] == pytest.approx(1.4, rel=0.05)  # the last batch of a round may be a smaller one
    assert costs[1] == pytest.approx(1.1)


@pytest.mark.parametrize("most", [2, 4])
def test_windows_are_not_wider_than_what_batches_may_hold_where_that_costs(clock, most):
    """Flat up to the limit, and proportional beyond it: several batches take several times as long."""
    net = Timed(clock, flat)
    for _ in range(2):
        _, stats = pd.replay(loop(net, 80), {"net": net}, tol=1e-3, max_rows=most, strict=True)
    assert stats.model_seconds < 1.1 * stats.sequential_seconds


@pytest.mark.parametrize(("cost", "alone"), [(flat, False), (proportional, True)])
def test_networks_that_sleep_are_told_apart(cost, alone):
    """With a real clock, on a machine that may be busy: one of three networks must do."""
    plans = []
    for _ in range(3):
        net = Sleeping(cost)
        for _ in range(2):
            stats = pd.replay(loop(net, 24), {"net": net}, tol=1e-3, strict=True)[1]
        plans.append(stats.plan)
        if alone == (stats.plan == ALONE):
            assert (stats.evaluations == 24) == alone
            return
    raise AssertionError(plans)


class Second(Timed):
    """Takes what another network gives."""

    def forward(self, x, timestep, residual):
        return super().forward(x + residual, timestep)


@pytest.mark.parametrize(("one", "other"), [(flat, proportional), (proportional, flat)])
def test_two_networks_are_planned_together(clock, one, other):
    a, b = Timed(clock, one), Second(clock, other)

    def program():
        x = torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
        for step in range(24):
            t = torch.tensor(step / 24)
            x = x - 0.3 * b(x, t, a(x, t))
        return x

    for _ in range(3):
        _, stats = pd.replay(program, {"a": a, "b": b}, tol=1e-3, strict=True)
    assert stats.model_seconds <= 1.05 * stats.sequential_seconds
    assert (stats.window == 1) == (stats.plan == ALONE)


def test_calls_that_are_evaluated_alone_need_no_window(clock):
    net = Timed(clock, proportional)
    stats = pd.replay(loop(net), {"net": net}, tol=0.0, single=True, strict=True)[1]
    assert stats.plan == "one call after the other: each is to be evaluated alone"
    assert (stats.evaluations, stats.rounds, stats.executions) == (40, 40, 1)
