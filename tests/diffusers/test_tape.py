"""The tape: played with other answers it says what the program would have computed, bit by bit, or that it cannot."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import paradrift as pd
from paradrift.diffusers import tape as tapes
from paradrift.diffusers.tape import Tape

SHAPE = (2, 4, 4)
INDEX = torch.tensor([2, 0, 1, 3])
MASK = torch.arange(16).reshape(4, 4) % 3 == 0
FACTOR = torch.linspace(0.5, 1.5, 32).reshape(SHAPE)


class Net(nn.Module):
    """A small smooth network of a state and a time, for states of any shape with rows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Parameter(torch.randn(16, 16) / 4, requires_grad=False)

    def forward(self, x, timestep):
        t = torch.as_tensor(timestep, dtype=x.dtype).reshape(-1, 1).expand(len(x), 1)
        return torch.tanh(x.reshape(len(x), -1) @ self.mix + t).reshape(x.shape)


def flipped(a, b, draw):
    return torch.cat(a.chunk(2, 1)[::-1], 1) + 0.1 * b


def transposed(a, b, draw):
    return a.transpose(1, 2) - 0.5 * b


def viewed_and_changed(a, b, draw):
    fresh = a * 1.5
    fresh.view(2, -1)[:, 3:9].mul_(0.25)
    fresh[:, :2] += b[:, 2:]
    return fresh


def changed_through_a_transpose(a, b, draw):
    fresh = a.clone()
    fresh.transpose(1, 2)[:, 1] = b[:, 0]
    return fresh


def like_noise(a, b, draw):
    return a + 0.1 * torch.randn_like(b)


def drawn(a, b, draw):
    return a + 0.1 * torch.randn(SHAPE, generator=draw)


def drawn_in_place(a, b, draw):
    return b + 0.1 * torch.empty_like(a).normal_(generator=draw)


def filled_in_place(a, b, draw):
    fresh = torch.zeros_like(a)
    fresh.copy_(b).clamp_(-1, 1)
    return fresh.add_(a, alpha=0.5)


def chosen(a, b, draw):
    return torch.where(a > b, a, 0.5 * b)


def clamped(a, b, draw):
    return torch.clamp(a, -0.8, 0.8) + b.clip(min=0) * 0.1


def interpolated(a, b, draw):
    smaller = F.interpolate(a, scale_factor=0.5, mode="linear")
    return F.interpolate(smaller, size=4, mode="nearest") + 0.1 * b


def indexed(a, b, draw):
    return a[:, INDEX] * FACTOR + 0.1 * b[..., INDEX]


def index_put(a, b, draw):
    fresh = a.clone()
    fresh[:, INDEX[:2]] = b[:, :2]
    fresh[:, MASK] = 0.0
    return fresh


def in_another_precision(a, b, draw):
    return (a.double().sin() + b.half()).float()


def rescaled(a, b, draw):
    return a * (b.std((1, 2), keepdim=True) + 0.1) / (a.std((1, 2), keepdim=True) + 0.1)


def unbound(a, b, draw):
    first, *others = a.unbind(1)
    return torch.stack([*others, torch.lerp(first, b[:, 0], 0.3)], 1)


def sorted_and_split(a, b, draw):
    low, high = a.sort(-1).values.split(2, 2)
    return torch.cat([high, low], -1) + 0.1 * torch.cumsum(b, 1)


def contracted(a, b, draw):
    return torch.einsum("nij,njk->nik", a, b.softmax(-1))


def with_a_complex_middle(a, b, draw):
    spectrum = torch.fft.fft2(a)
    return torch.fft.ifft2(spectrum * FACTOR).real + 0.1 * b


STEPS = (
    flipped,
    transposed,
    viewed_and_changed,
    changed_through_a_transpose,
    like_noise,
    drawn,
    drawn_in_place,
    filled_in_place,
    chosen,
    clamped,
    interpolated,
    indexed,
    index_put,
    in_another_precision,
    rescaled,
    unbound,
    sorted_and_split,
    contracted,
    with_a_complex_middle,
)
CHAINS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), max_size=4), st.booleans()
    ),
    min_size=1,
    max_size=4,
)


def written_out(chain):
    """A program of a network from a list of steps; tensors of earlier calls are used too, as multistep formulas do."""

    def program(net):
        torch.manual_seed(3)
        draw = torch.Generator().manual_seed(4)
        state, pool = torch.randn(SHAPE, generator=draw), []
        for number, (steps, changes) in enumerate(chain):
            answer = net(pool[-1] if pool else state, number / len(chain))
            if changes:  # the answer belongs to the program
                answer.mul_(0.5)
            pool.append((pool[-1] if pool else state) - 0.3 * answer)
            for function, first, second in steps:
                found = function(pool[-1 - first % len(pool)], pool[-1 - second % len(pool)], draw)
                pool.append(found + 0.5 * pool[-1])  # so that it depends on the answer, whatever was chosen
            del pool[:-4]
        return pool[-1]

    return program


def answers_for(program, seed):
    """Some answers to each call of a program, and the program's arguments and result over them."""
    random, seen, given = torch.Generator().manual_seed(seed), [], []

    def net(x, _):
        seen.append(x.clone())
        given.append(torch.randn(x.shape, generator=random))
        return given[-1].clone()

    result = program(net)
    return given, seen, result


def recorded(program, answers):
    """The tape of a program over some answers."""
    tape, calls = Tape(0), iter(answers)

    def net(*args):
        tape.called(list(args), [arg.clone() if isinstance(arg, torch.Tensor) else arg for arg in args])
        answer = next(calls).clone()
        tape.answered([answer])
        return answer

    with tape:
        result = program(net)
        tape.finished([result])
    tape.wind_up()
    return tape


def played(tape, answers):
    """The states that a tape gives to calls 1, 2, ... and the result."""
    values = {}
    return [tape.play(values, number, [answer.clone()])[0] for number, answer in enumerate(answers)], values


@given(chain=CHAINS)
def test_a_tape_played_with_other_answers_is_the_program_run_with_them(chain):
    program = written_out(chain)
    tape = recorded(program, answers_for(program, 5)[0])
    assert tape.broken is None
    assert not tape.stale()
    answers, seen, result = answers_for(program, 6)
    torch.manual_seed(99)  # what is drawn was drawn when the tape was recorded
    found, values = played(tape, answers)
    for one, other in zip(found, [*seen[1:], result], strict=True):
        assert torch.equal(one, other)
    assert values == {}


@given(chain=CHAINS)
@hypothesis_settings(max_examples=15)
def test_programs_of_many_kinds_keep_their_bits_and_their_tape(chain):
    net, program = Net(), written_out(chain)
    plain = program(net)
    found, stats = pd.replay(lambda: program(net), {"net": net}, tol=0.0, single=True, window=8, strict=True)
    assert torch.equal(found, plain)
    assert stats.untaped is None
    assert stats.executions <= 3


@pytest.mark.parametrize("function", STEPS)
def test_each_operation_alone_is_played_as_it_is_run(function):
    program = written_out([([(function, 0, 1)], False), ([(function, 1, 0)], True)])
    tape = recorded(program, answers_for(program, 5)[0])
    answers, seen, result = answers_for(program, 6)
    (first, last), _ = played(tape, answers)
    assert torch.equal(first, seen[1])
    assert torch.equal(last, result)


def stepping(change, steps=20, start=None):
    """A loop that does something of its own with each state, which may also look at a list that it keeps."""

    def program(net):
        kept = [] if start is None else [start.clone()]
        x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
        for step in range(steps):
            x = change(x - 0.3 * net(x, step / steps), kept)
        return x

    return program


def reads_a_number(x, kept):
    return x * (1.0 if float(x.sum()) < 1e9 else 0.5)


def branches(x, kept):
    return x * 0.99 if x[0, 0, 0] > 0 else x


def compares(x, kept):
    return x * 2 if torch.equal(x, FACTOR) else x


def changes_an_older_one(x, kept):
    if len(kept) > 4:  # so that it was made on the tape, as the ones before it were not
        kept[-1].add_(x)
        x = x + 0.01 * kept[-1]
    kept.append(x * 0.5)
    return x


def changes_a_view_of_an_older_one(x, kept):
    if len(kept) > 4:
        kept[-1][:, :2] += x[:, :2]
        x = x + 0.01 * kept[-1]
    kept.append(x * 0.5)
    return x


def writes_into_a_buffer(x, kept):
    if not kept:
        kept.append(torch.zeros(SHAPE))
    kept[0].copy_(x)
    return kept[0] * 0.9


def names_its_output(x, kept):
    if not kept:
        kept.append(torch.zeros(SHAPE))
    torch.mul(x, 0.9, out=kept[0])
    return kept[0].clone()


def changes_a_constant(x, kept):
    if not kept:
        kept.append(FACTOR.clone())
    kept[0].mul_(0.99)
    return x * kept[0]


def goes_through_numpy(x, kept):
    return torch.from_numpy(np.tanh(x.numpy()))


def goes_through_a_list(x, kept):
    return torch.tensor((x * 0.9).tolist())


def draws_around_values(x, kept):
    torch.manual_seed(len(kept))
    kept.append(None)
    return torch.normal(x, 0.1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (reads_a_number, "reads a value out of a tensor"),
        (branches, "reads a value out of a tensor"),
        (compares, "reads a value out of a tensor"),
        (changes_an_older_one, "changes a tensor in place that is older than the last call"),
        (changes_a_view_of_an_older_one, "changes a tensor in place that is older than the last call"),
        (writes_into_a_buffer, "changes a tensor in place that did not depend on the networks"),
        (names_its_output, "was given a tensor by name"),
        (changes_a_constant, "the program changes a constant of its tape in place"),
        (goes_through_numpy, "the program computes other arguments than its tape"),
        (goes_through_a_list, "the program computes other arguments than its tape"),
        (draws_around_values, "the program computes other arguments than its tape"),
    ],
)
def test_what_no_tape_can_hold_is_found_out_and_the_result_is_right(change, reason):
    net, program = Net(), stepping(change)
    plain = program(net)
    found, stats = pd.replay(lambda: program(net), {"net": net}, tol=0.0, single=True, window=8, strict=True)
    assert torch.equal(found, plain)
    assert reason in stats.untaped
    assert stats.settled == stats.calls == 20
    assert f"because {stats.untaped}" in str(stats)


def test_a_tape_breaks_where_the_program_does_it_and_not_before():
    def program(net):
        x = torch.ones(SHAPE)
        for step in range(4):
            x = x - 0.3 * net(x, step)
            if step == 2:
                x = reads_a_number(x, [])
        return x

    answers, seen, _ = answers_for(program, 6)
    tape = recorded(program, answers_for(program, 5)[0])
    assert "_local_scalar_dense" in tape.broken
    values = {}
    for number in range(2):
        assert torch.equal(tape.play(values, number, [answers[number].clone()])[0], seen[number + 1])


def test_a_constant_changed_in_place_makes_a_tape_stale_also_through_a_view():
    constant = FACTOR.clone()

    def program(net):
        x = torch.ones(SHAPE)
        for step in range(3):
            x = x - constant * net(x, step)
        return x

    tape = recorded(program, answers_for(program, 5)[0])
    assert not tape.stale()
    constant.view(-1)[3] = 2.0
    assert tape.stale()


def test_noise_drawn_in_the_loop_is_that_of_the_first_run():
    def program(net):
        x = torch.ones(SHAPE)
        for step in range(3):
            x = x - 0.3 * net(x, step) + torch.randn_like(x) + torch.empty_like(x).uniform_()
        return x

    first, second = answers_for(program, 5)[0], answers_for(program, 6)[0]
    torch.manual_seed(7)
    tape = recorded(program, first)
    torch.manual_seed(8)
    (*_, other), _ = played(tape, second)
    torch.manual_seed(7)
    expected = answers_for(program, 6)[2]
    assert torch.equal(other, expected)
    torch.manual_seed(8)
    assert not torch.equal(other, answers_for(program, 6)[2])


@pytest.mark.parametrize(("order", "most"), [(1, 1), (2, 2), (4, 4)])
def test_values_are_let_go_of_after_their_last_use(order, most):
    """A multistep formula of some order keeps the state and order - 1 answers, and nothing else."""

    def program(net):
        x, before = torch.ones(SHAPE), []
        for step in range(12):
            before = [*before, net(x, step)][-order:]
            x = x - 0.1 * sum(before)
        return x

    answers = answers_for(program, 5)[0]
    tape, values, kept = recorded(program, answers), {}, []
    for number, answer in enumerate(answers):
        tape.play(values, number, [answer])
        kept.append(len(values))
    assert max(kept) == kept[6] == most
    assert kept[-1] == 0


def test_a_tape_that_holds_too_many_constants_is_cut_and_the_run_goes_on(monkeypatch):
    net, program = Net(), stepping(lambda x, kept: x + 0.01 * torch.randn(SHAPE), steps=24)
    torch.manual_seed(2)
    plain = program(net)
    whole, cut = [], []
    for rounds in (whole, cut):
        if rounds is cut:
            monkeypatch.setattr(tapes, "BYTES", 5 * FACTOR.nbytes)
        torch.manual_seed(2)
        found, stats = pd.replay(lambda: program(net), {"net": net}, tol=0.0, single=True, window=6, strict=True)
        assert torch.equal(found, plain)
        assert stats.untaped is None
        rounds += [stats.rounds, stats.executions]
    assert cut[1] > whole[1]  # a tape for each piece
    assert cut[0] <= 24


def test_what_is_handed_on_as_it_is_has_its_source():
    def program(net):
        x = torch.ones(SHAPE)
        for step in range(3):
            kept = net(x, step)
            x = net(x + 0.0, kept)
        return x

    tape = recorded(program, answers_for(program, 5)[0])
    assert tape.source(0) == {}
    assert tape.source(1) == {1: (0, 0)}
    assert tape.source(2) == {0: (1, 0)}
    assert tape.source(99) == {}


@pytest.mark.parametrize("part", [slice(None), slice(0, 2)])
def test_what_is_changed_before_it_is_handed_on_has_no_source(part):
    def program(net):
        x = torch.ones(SHAPE)
        for step in range(3):
            kept = net(x, step)
            kept[:, part].mul_(0.5)
            x = x + net(x, kept)
        return x

    tape = recorded(program, answers_for(program, 5)[0])
    assert tape.broken is None
    assert tape.source(1) == {}


def test_a_program_in_inference_mode_is_taped_too():
    net, program = Net(), stepping(lambda x, kept: x + 0.1 * torch.randn_like(x) * FACTOR.clone())
    with torch.inference_mode():
        torch.manual_seed(2)
        plain = program(net)
        torch.manual_seed(2)
        found, stats = pd.replay(lambda: program(net), {"net": net}, tol=0.0, single=True, window=8, strict=True)
    assert torch.equal(found, plain)
    assert stats.untaped is None
    assert stats.executions <= 3


def test_other_states_than_the_ones_on_the_tape_are_never_accepted():
    """Half of the arithmetic is hidden from the tape: what it says is wrong, and the run that checks it says so."""
    net, program = Net(), stepping(lambda x, kept: 0.5 * x + 0.5 * goes_through_numpy(x, kept))
    plain = program(net)
    found, stats = pd.replay(lambda: program(net), {"net": net}, tol=1e-5, window=8, strict=True)
    assert float((found - plain).norm() / plain.norm()) < 1e-4
    assert stats.untaped == "the program computes other arguments than its tape"


def test_a_late_break_of_a_long_tape_costs_rounds_and_nothing_else():
    """The arguments of most calls were let go of when the tape had them: they are looked at again."""

    def change(x, kept):
        kept.append(None)
        return reads_a_number(x, kept) if len(kept) > 45 else x

    net, program = Net(), stepping(change, steps=60)
    plain = program(net)
    found, stats = pd.replay(lambda: program(net), {"net": net}, tol=0.0, single=True, window=8, strict=True)
    assert torch.equal(found, plain)
    assert "reads a value out of a tensor" in stats.untaped
    assert stats.window == 8
    assert stats.rounds < 60


def test_a_tape_holds_the_programs_operations_and_none_of_the_replays_own(monkeypatch):
    """Copies of arguments and comparisons with earlier ones are made while the tape runs, and are not on it."""
    lengths, wind_up = [], Tape.wind_up
    monkeypatch.setattr(
        Tape,
        "wind_up",
        lambda self: lengths.append([len(segment.operations) for segment in self._segments]) or wind_up(self),
    )
    net = Net()

    def program():
        x = torch.ones(SHAPE)
        for step in range(12):
            x = x - 0.3 * net(x, step / 12)
        return x

    pd.replay(program, {"net": net}, tol=1e-3, window=8, strict=True)
    assert lengths == [[2] * 11]  # a product and a difference after each call but the first, which is exact


def test_numbers_filled_into_a_fresh_buffer_are_found_out_too():
    def change(x, kept):
        fresh = torch.zeros(SHAPE)
        fresh[:, :2] = x[:, :2]
        return 0.5 * x + 0.5 * fresh

    net, program = Net(), stepping(change)
    plain = program(net)
    found, stats = pd.replay(lambda: program(net), {"net": net}, tol=0.0, single=True, window=8, strict=True)
    assert torch.equal(found, plain)
    assert "changes a tensor in place" in stats.untaped
