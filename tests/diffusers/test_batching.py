"""Batches: of one size where that is asked for, never larger than allowed, and with the answers of single calls."""

import math

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import paradrift as pd
from paradrift.diffusers.batching import Batcher
from paradrift.diffusers.calls import Cell, signature

ROWS = 2


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


class Counting(Net):
    """Writes down how many rows each forward sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, timestep):
        self.seen.append(len(x))
        return super().forward(x, timestep)


class Branching(Counting):
    """Reads its time as a number: no way of batching can work."""

    def forward(self, x, timestep):
        return super().forward(x, timestep) * (0.5 if float(timestep) > 0.5 else 1.0)


def loop(net, steps=21):
    def program():
        x = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(1))
        for step in range(steps):
            x = x - 0.3 * net(x, torch.tensor(step / steps))
        return x

    return program


def replayed(net, **options):
    """Rows of all forwards of a replay, its result and stats."""
    if hasattr(net, "seen"):
        net.seen.clear()
    found, stats = pd.replay(loop(net), {"net": net}, strict=True, **options)
    return set(getattr(net, "seen", ())), found, stats


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"max_rows": 4, "window": 6}, 4),  # every round ends in a ragged tail
        ({"max_rows": 5, "window": 64}, 5),
        ({"window": 6}, 6),
        ({"window": 6, "max_rows": 9}, 9),
        ({}, 16),
    ],
)
@pytest.mark.parametrize("tol", [0.0, 1e-2])
def test_padded_batches_all_have_one_size(options, size, tol):
    net = Counting()
    plain = loop(net)()
    seen, found, stats = replayed(net, tol=tol, pad=True, **options)
    assert seen <= {ROWS, ROWS * size}
    assert ROWS * size in seen
    assert float((found - plain).norm() / plain.norm()) <= max(3e-6, 2 * tol)
    assert stats.unbatchable == ()
    if "window" in options:
        assert len(replayed(net, tol=tol, **options)[0]) > 2  # they are not by themselves


@pytest.mark.parametrize("tol", [0.0, 1e-3])
def test_padding_changes_no_result_and_no_count(tol):
    net, runs = Counting(), []
    for pad in (False, True):
        _, found, stats = replayed(net, tol=tol, window=8, max_rows=3, pad=pad)
        runs.append((found, stats.rounds, stats.evaluations, stats.executions))
    assert torch.allclose(runs[0][0], runs[1][0], rtol=0, atol=2e-6)
    assert runs[0][1:] == runs[1][1:]


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_no_batch_has_more_calls_than_allowed(most):
    net = Counting()
    plain = loop(net)()
    seen, found, _ = replayed(net, tol=0.0, max_rows=most, window=12)
    assert max(seen) == ROWS * most
    assert torch.allclose(found, plain, rtol=0, atol=2e-6)


@pytest.mark.parametrize("pad", [False, True])
def test_one_call_after_the_other_is_the_plain_run_bit_by_bit(pad):
    """A call by itself is no batch, whatever the settings: also the second, when no way of batching is known yet."""
    net = Counting()
    plain = loop(net)()
    seen, found, stats = replayed(net, tol=0.0, window=1, pad=pad)
    assert torch.equal(found, plain)
    assert seen == {ROWS}
    assert (stats.evaluations, stats.executions, stats.error_bound) == (21, 1, 0.0)


def cells_for(net, count):
    """Calls at different states and times."""
    cells = []
    for number in range(count):
        leaves, structure = pytree.tree_flatten(((torch.randn(ROWS, 6), torch.tensor(number / count)), {}))
        cells.append(Cell(signature=signature("net", leaves, structure), leaves=leaves))
    kind = cells[0].signature
    return [Cell(signature=kind, leaves=cell.leaves) for cell in cells]


@pytest.mark.parametrize("count", range(1, 10))
@pytest.mark.parametrize("options", [{}, {"max_rows": 1}, {"max_rows": 3}, {"fill": 4}, {"max_rows": 3, "fill": 3}])
def test_ragged_tails_lose_no_call_and_get_the_answers_of_single_ones(count, options):
    net = Counting()
    batcher, cells = Batcher(net, **options), cells_for(net, count + 1)
    batcher.alone(cells[0])
    net.seen.clear()
    for attempt in range(2):  # first the way is tried beside a known call, then it is taken
        answers = batcher.together(cells[1:])
        assert len(answers) == count
        for (found, _), cell in zip(answers, cells[1:], strict=True):
            torch.testing.assert_close(found[0], net(*cell.leaves), rtol=0, atol=1e-6)
        net.seen.clear()
        if attempt:
            batcher.together(cells[1:])
            size = batcher.size(count)
            assert len(net.seen) == math.ceil(count / size)
            assert max(net.seen) == ROWS * size


@pytest.mark.parametrize(
    ("options", "calls", "size"),
    [
        ({}, 5, 5),
        ({"max_rows": 3}, 5, 3),
        ({"max_rows": 3}, 2, 2),
        ({"fill": 4}, 2, 4),
        ({"fill": 4}, 9, 4),
        ({"fill": 4}, 1, 1),
    ],
)
def test_the_size_of_a_batch_is_what_the_network_will_see(options, calls, size):
    assert Batcher(Net(), **options).size(calls) == size


def test_a_network_that_nothing_can_batch_is_evaluated_call_by_call_and_named():
    net = Branching()
    plain = loop(net)()
    seen, found, stats = replayed(net, tol=0.0, window=8)
    assert torch.equal(found, plain)
    assert seen <= {ROWS, ROWS * 2, ROWS * 8, ROWS * 9}  # what was tried once, and single calls
    assert stats.unbatchable == ("net",)
    assert "evaluated one by one, because no way of batching fits: net" in str(stats)


def test_the_noise_of_batching_is_the_largest_gap_that_was_seen():
    """A network that is a little wrong in batches, by a known amount."""

    class Noisy(Net):
        def forward(self, x, timestep):
            return super().forward(x, timestep) * (1.0 if len(x) == ROWS else 1.0 + 2.0**-16)

    net = Noisy()
    batcher, cells = Batcher(net), cells_for(net, 6)
    batcher.alone(cells[0])
    batcher.together(cells[1:])
    assert batcher.noise == pytest.approx(2.0**-16, rel=0.05)
    assert batcher.ways[cells[0].signature] is not None

    class Wrong(Noisy):
        def forward(self, x, timestep):
            return Net.forward(self, x, timestep) * (1.0 if len(x) == ROWS else 1.001)

    batcher = Batcher(Wrong())
    batcher.alone(cells[0])
    batcher.together(cells[1:])
    assert batcher.ways[cells[0].signature].__name__ == "_mapped"  # whose rows are those of one call


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_compile_for_two_shapes(in_place):
    shapes = []

    def backend(graph, inputs):
        shapes.append([tuple(value.shape) for value in inputs if value.ndim == 2 and value.shape[1] == 6])
        return graph.forward

    torch._dynamo.reset()
    net = Net()
    plain = loop(Net())()
    if in_place:
        net.compile(backend=backend, dynamic=False)
    else:
        net = torch.compile(net, backend=backend, dynamic=False)
    with torch.no_grad():
        _, found, stats = replayed(net, tol=0.0, max_rows=5, window=5)
        assert torch.allclose(found, plain, rtol=0, atol=2e-6)
        assert stats.rounds < 21
        assert len(shapes) == 2
        assert {shape for group in shapes for shape in group} == {(ROWS, 6), (ROWS * 5, 6)}
        assert torch.equal(loop(net)(), plain)  # and it is as it was
    assert len(shapes) == 2
    torch._dynamo.reset()
