"""What one network hands to the next goes there within a round: two networks take the rounds of one made of both."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import paradrift as pd
from paradrift.diffusers.tape import Tape

_spec = importlib.util.spec_from_file_location("pipelines_stable", Path(__file__).with_name("pipelines_stable.py"))
_pipelines = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pipelines)

STEPS = 20


class Net(nn.Module):
    """A small smooth network of a state, a time and what another network found."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.outer = nn.Linear(7, 16), nn.Linear(16, 6)
        self.requires_grad_(False)
        self.rounds = []

    def forward(self, x, timestep, residual=None):
        t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, 1).expand(len(x), 1)
        x = x if residual is None else x + residual
        return self.outer(torch.tanh(self.inner(torch.cat([x, t], 1))))


class Fused(nn.Module):
    """Two networks as one."""

    def __init__(self, control, main, scale=1.0):
        super().__init__()
        self.control, self.main, self.scale = control, main, scale

    def forward(self, x, timestep):
        return self.main(x, timestep, self.scale * self.control(x, timestep))


def one(net):
    def program():
        x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
        for step in range(STEPS):
            x = x - 0.3 * net(x, torch.tensor(step / STEPS))
        return x

    return program


def two(control, main, change=lambda residual: residual):
    def program():
        x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
        for step in range(STEPS):
            time = torch.tensor(step / STEPS)
            residual = change(control(x, time))
            x = x - 0.3 * main(x, time, residual)
        return x

    return program


def rounds_of(program, modules, tol, **options):
    plain = program()
    found, stats = pd.replay(program, modules, tol=tol, window=64, strict=True, **options)
    assert float((found - plain).norm() / plain.norm()) <= max(3e-6, 3 * tol)
    assert stats.untaped is None
    return stats.rounds


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 0.0])
@pytest.mark.parametrize("single", [False, True])
def test_two_networks_take_one_round_more_than_one_made_of_both_and_not_many(monkeypatch, tol, single):
    control, main = Net(1), Net(2)
    both = {"control": control, "main": main}
    program, fused = two(control, main), Fused(control, main)
    # One more: the first call of each network is evaluated by itself.
    assert rounds_of(program, both, tol, single=single) <= rounds_of(one(fused), {"net": fused}, tol, single=single) + 1
    forwarded = rounds_of(program, both, tol, single=single)
    monkeypatch.setattr(Tape, "source", lambda self, call: {})
    assert rounds_of(program, both, tol, single=single) > forwarded


def test_answers_go_through_a_chain_of_networks_in_one_round(monkeypatch):
    first, second, third = Net(1), Net(2), Net(3)

    def program():
        x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
        for step in range(STEPS):
            time = torch.tensor(step / STEPS)
            x = x - 0.3 * third(x, time, second(x, time, first(x, time)))
        return x

    modules = {"first": first, "second": second, "third": third}
    forwarded = rounds_of(program, modules, 1e-3)
    monkeypatch.setattr(Tape, "source", lambda self, call: {})
    assert rounds_of(program, modules, 1e-3) > forwarded + 2


def halved(residual):
    return 0.5 * residual


def halved_in_place(residual):
    return residual.mul_(0.5)


def halved_in_part(residual):
    residual[:, :3].mul_(0.5)
    return residual


@pytest.mark.parametrize("change", [halved_in_place, halved_in_part])
def test_what_is_changed_on_the_way_is_not_forwarded_as_it_was(change):
    """A residual scaled in place is the program's own: forwarding the unscaled one would spoil every round."""
    control, main = Net(1), Net(2)
    modules = {"control": control, "main": main}
    out_of_place = rounds_of(two(control, main, halved), modules, 1e-3)
    assert rounds_of(two(control, main, change), modules, 1e-3) <= out_of_place + 1


def test_rounds_never_exceed_calls_also_where_networks_see_each_other():
    control, main = Net(1), Net(2)
    for tol, window in ((0.0, 1), (0.0, 2), (0.0, 5), (1e-3, 3)):
        _, stats = pd.replay(two(control, main), {"a": control, "b": main}, tol=tol, window=window, strict=True)
        assert stats.calls == 2 * STEPS
        assert stats.rounds <= stats.calls


@pytest.mark.filterwarnings("ignore")
def test_a_controlnet_costs_no_rounds_of_its_own(monkeypatch):
    pipe, call = _pipelines.STABLE["sd-controlnet"]()
    plain, rounds = call(pipe), []
    for _ in range(2):
        with pd.parallelize(pipe, tol=1e-4, window=64, strict=True) as run:
            found = call(pipe)
        assert np.abs(found - plain).max() < 1e-3
        assert run.stats.untaped is None
        rounds.append(run.stats.rounds)
        monkeypatch.setattr(Tape, "source", lambda self, call: {})
    forwarded, switched_off = rounds
    assert forwarded < switched_off
    assert forwarded <= run.stats.calls // 2  # a step, with both its networks, in each round at least
