"""Programs that look at values: checks that fail over guesses, loops as long as values say, numbers that are lost."""

import pytest
import torch
from torch import nn

import paradrift as pd


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


class Losing(Net):
    """Loses its numbers half way."""

    def forward(self, x, timestep):
        t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, 1)
        return torch.where(t > 0.5, super().forward(x, timestep) * float("nan"), super().forward(x, timestep))


class Pulling(Net):
    """Draws every state to zero; a guess goes past it and away."""

    def forward(self, x, timestep):
        return x + 0.001 * super().forward(x, timestep)


class Scheduler:
    """Something that a program changes."""

    def __init__(self):
        self.count, self.history = 0, []


def untouched(net, scheduler=None):
    return "forward" not in vars(net) and (scheduler is None or vars(scheduler) == {"count": 0, "history": []})


def loop(net, steps=24, check=lambda x, step: x):
    def program():
        x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
        for step in range(steps):
            x = check(x - 0.3 * net(x, torch.tensor(step / steps)), step)
        return x

    return program


def trajectory(net, steps=24):
    states = []
    loop(net, steps, lambda x, step: states.append(x) or x)()
    return states


@pytest.mark.parametrize("window", [None, 1, 8, 64])
@pytest.mark.parametrize("kind", [ValueError, AssertionError, RuntimeError, FloatingPointError])
def test_a_check_that_only_guesses_fail_is_never_seen(kind, window):
    """States must be where the true ones are, to a thousandth: no first guess is."""
    net = Net()
    true = trajectory(net)
    failed = []

    def check(x, step):
        if float((x - true[step]).abs().max()) > 1e-3:
            failed.append(step)
            raise kind("a state that should not be")
        return x

    found, stats = pd.replay(loop(net, check=check), {"net": net}, tol=0.0, single=True, window=window, strict=True)
    assert torch.equal(found, true[-1])
    assert (stats.fallback, stats.settled, stats.calls) == (None, 24, 24)
    assert bool(failed) == (window not in (1, None))  # planned, calls that are evaluated alone come one by one
    assert stats.rounds <= 24
    assert untouched(net)
    if window is not None and window > 1:
        assert stats.plan == f"one call after the other: the program raised {kind.__name__} over guesses again"
        assert stats.untaped == f"the program raised {kind.__name__} over its first guesses"


def test_a_network_that_cannot_take_a_batch_of_some_round_is_called_as_plainly_from_there_on():
    """Memory runs out after a while, say: what is settled stays so, and nobody is told about random sources."""

    class Full(Net):
        calls = 0

        def forward(self, x, timestep):
            self.calls += 1
            if self.calls > 8 and len(x) > 4:
                raise MemoryError("no room for this batch")
            return super().forward(x, timestep)

    plain = loop(Net(), 60)()
    net = Full()
    found, stats = pd.replay(loop(net, 60), {"net": net}, tol=1e-4, window=8, strict=True)
    assert float((found - plain).norm() / plain.norm()) < 1e-3
    assert stats.plan == "one call after the other: the program raised MemoryError over guesses again"
    assert stats.settled == stats.calls == 60
    assert untouched(net)


def test_a_check_without_a_look_at_numbers_from_outside_is_passed_too():
    """torch's own assertions leave no trace on the host, but for the exception."""
    net = Net()
    true = trajectory(net)

    def check(x, step):
        torch._assert_async((x - true[step]).abs().max() < 1e-3)
        return x

    found, stats = pd.replay(loop(net, check=check), {"net": net}, tol=0.0, single=True, window=64, strict=True)
    assert torch.equal(found, true[-1])
    assert stats.settled == 24


@pytest.mark.parametrize("window", [None, 1, 8, 64])
@pytest.mark.parametrize("when", [0, 3, 23])
def test_a_check_that_true_values_fail_comes_out_and_everything_is_as_before(when, window):
    net, scheduler, generator = Net(), Scheduler(), torch.Generator().manual_seed(5)
    before, seeded = torch.get_rng_state(), generator.get_state()

    def check(x, step):
        scheduler.count += 1
        scheduler.history.append(step)
        x = x + 0.01 * torch.randn_like(x) + 0.01 * torch.randn(2, 6, generator=generator)
        if step == when:
            raise ValueError(f"its own, at {step}")
        return x

    with pytest.raises(ValueError, match=f"its own, at {when}"):
        pd.replay(
            loop(net, check=check),
            {"net": net},
            objects=[scheduler],
            generators=[generator],
            window=window,
            strict=True,
        )
    assert untouched(net, scheduler)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(generator.get_state(), seeded)


def halving(net, goal=0.02, most=60):
    """As many steps as it takes."""

    def program():
        x, step = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)), 0
        while float(x.norm()) > goal and step < most:
            x = x - 0.3 * net(x, torch.tensor(step / most))
            step += 1
        return x, step

    return program


def shrinking(net):
    """The step depends on the error, as in adaptive solvers; what is refused is tried again."""

    def program():
        x, time, width, tries = torch.ones(2, 6), 0.0, 0.4, 0
        while time < 1.0 and tries < 200:
            width, tries = min(width, 1.0 - time), tries + 1
            first = net(x, torch.tensor(time))
            second = net(x - width * first, torch.tensor(time + width))
            gap = float((second - first).abs().max()) * width
            if gap < 0.002:
                x, time = x - width * 0.5 * (first + second), time + width
            width *= min(2.0, max(0.3, 0.9 * (0.002 / max(gap, 1e-9)) ** 0.5))
        return x, tries

    return program


@pytest.mark.parametrize("window", [None, 1, 4, 64])
@pytest.mark.parametrize("make", [halving, shrinking])
def test_programs_as_long_as_their_values_say_are_as_long_as_plainly(make, window):
    net = Pulling() if make is halving else Net()
    plain, count = make(net)()
    assert 10 < count < 60
    (found, tries), stats = pd.replay(make(net), {"net": net}, tol=0.0, single=True, window=window, strict=True)
    assert torch.equal(found, plain)
    assert tries == count
    assert stats.calls == stats.settled == count * (2 if make is shrinking else 1)
    assert stats.rounds <= stats.calls
    assert stats.error_bound == 0.0
    assert untouched(net)


@pytest.mark.parametrize("untaped", [False, True])
@pytest.mark.parametrize("window", [None, 1, 8, 64])
def test_numbers_that_a_network_loses_are_lost_as_plainly(untaped, window):
    net = Losing()

    def check(x, step):
        if untaped:
            float(x.sum())
        return x

    plain = loop(net, check=check)()
    assert bool(plain.isnan().all())
    found, stats = pd.replay(loop(net, check=check), {"net": net}, tol=1e-3, window=window, strict=True)
    assert bool(found.isnan().all())
    assert stats.settled == stats.calls == 24
    assert stats.rounds <= 2 * 24  # what is lost is looked at twice


def test_a_program_that_checks_for_lost_numbers_gets_to_say_so():
    net = Losing()

    def check(x, step):
        if bool(x.isnan().any()):
            raise FloatingPointError(f"lost at {step}")
        return x

    with pytest.raises(FloatingPointError, match="lost at 13"):
        pd.replay(loop(net, check=check), {"net": net}, window=8, strict=True)
    assert untouched(net)


def test_a_refusal_in_the_middle_leads_to_the_plain_run_with_everything_put_back():
    net, scheduler = Net(), Scheduler()
    executions = []

    def check(x, step):
        if step == 0:
            executions.append(1)
        scheduler.count += 1
        return x + 0.01 * torch.randn_like(x) + (0.1 * len(executions) if step == 2 else 0.0)  # nobody puts that back

    torch.manual_seed(3)
    with pytest.warns(UserWarning, match="paradrift runs this plainly: expected the arguments of call"):
        found, stats = pd.replay(loop(net, check=check), {"net": net}, objects=[scheduler], tol=1e-3, window=8)
    assert "draws from a source that is not put back" in stats.fallback
    assert str(stats) == f"run plainly: {stats.fallback}"
    assert scheduler.count == 24  # those of the plain run alone
    count = len(executions)
    executions[:] = [1] * (count - 1)
    torch.manual_seed(3)
    assert torch.equal(found, loop(net, check=check)())
