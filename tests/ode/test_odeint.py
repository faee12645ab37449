"""odeint: torchdiffeq's own answers and gradients, in fewer rounds."""

import math

import pytest
import torch
import torchdiffeq
from torch import nn

import paradrift as pd
from paradrift.ode.schemes import METHODS, scheme

REAL = torch.float64


class Problem:
    """One of torchdiffeq's test problems: a right side of a scalar time and one state, and where it starts."""

    def __init__(self, f, start):
        self.f, self.start = f, torch.as_tensor(start, dtype=REAL)


def linear():
    skew = 0.3 * torch.randn(6, 6, dtype=REAL, generator=torch.Generator().manual_seed(1))
    matrix = skew - skew.T
    return Problem(lambda t, y: matrix @ y, torch.ones(6))


PROBLEMS = {
    "constant": Problem(lambda t, y: 0.2 + (y - (0.2 * t + 3.0)) ** 5, [3.2, 3.3]),
    "linear": linear(),
    "sine": Problem(lambda t, y: 2 * y / t + t**4 * torch.sin(2 * t) - t**2 + 4 * t**3, [math.pi - 2.5]),
    "exponential": Problem(lambda t, y: -0.1 * (y - 4.0 * t) + 2 * torch.cos(3 * t), [[1.0, 2.0], [-1.0, 0.5]]),
}
GRIDS = {
    "even": torch.linspace(1, 3, 17, dtype=REAL),
    "uneven": 1 + 2 * torch.linspace(0, 1, 16, dtype=REAL) ** 1.5,
    "backward": torch.linspace(3, 1, 15, dtype=REAL),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_method_gives_torchdiffeqs_answer_on_every_grid(problem, method, grid):
    f, start, t = PROBLEMS[problem].f, PROBLEMS[problem].start, GRIDS[grid]
    if problem == "constant":
        start = start + 0.2 * (t[0] - 1)  # on its line, from which it would run away
    expected = torchdiffeq.odeint(f, start, t, method=method)
    torch.testing.assert_close(pd.odeint(f, start, t, method=method), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("t", [GRIDS["uneven"], GRIDS["backward"]], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "options",
    [
        {"step_size": 0.07},
        {"step_size": 0.25},
        {
            "grid_constructor": lambda f, y, t: torch.cat(
                [t[:1], t[0] + (t[-1] - t[0]) * t.new_tensor([0.2, 0.7]), t[-1:]]
            )
        },
    ],
    ids=["steps that do not fit", "steps that fit", "constructor"],
)
def test_steps_on_another_grid_are_interpolated_as_torchdiffeq_does(options, t):
    f, start = PROBLEMS["exponential"].f, PROBLEMS["exponential"].start
    expected = torchdiffeq.odeint(f, start, t, method="rk4", options=options)
    found = pd.odeint(f, start, t, method="rk4", options=options)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_tuples_of_tensors_come_back_as_tuples():
    def f(t, y):
        position, momentum, _ = y
        return momentum, -position * t, (momentum**2).sum()

    start = (torch.ones(2, 3, dtype=REAL), torch.zeros(2, 3, dtype=REAL), torch.tensor(0.5, dtype=REAL))
    t = torch.linspace(0, 3, 20, dtype=REAL)
    found = pd.odeint(f, start, t, method="heun3")
    expected = torchdiffeq.odeint(f, start, t, method="heun3")
    assert isinstance(found, tuple)
    assert [part.shape for part in found] == [(20, 2, 3), (20, 2, 3), (20,)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_batched_function_sees_rows_and_gives_the_same_answer():
    seen = []

    def f(t, y):
        seen.append((t.shape, y.shape))
        return torch.cos(t)[:, None, None] * y

    start, t = torch.rand(2, 3, dtype=REAL), GRIDS["even"]
    found = pd.odeint(f, start, t, method="midpoint", batched=True)
    expected = torchdiffeq.odeint(lambda t, y: torch.cos(t) * y, start, t, method="midpoint")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert seen[0] == ((32,), (32, 2, 3))


def test_a_batched_function_of_a_tuple_sees_a_tuple_of_rows():
    start = (torch.ones(2, dtype=REAL), torch.tensor(1.0, dtype=REAL))
    t = GRIDS["even"]
    found = pd.odeint(lambda t, y: (y[1][:, None] - y[0], -t * y[1]), start, t, method="rk4", batched=True)
    expected = torchdiffeq.odeint(lambda t, y: (y[1] - y[0], -t * y[1]), start, t, method="rk4")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_function_that_cannot_be_mapped_is_called_in_a_loop():
    def f(t, y):
        return -y if float(t) < 2 else -2 * y

    start, t = torch.ones(2, dtype=REAL), GRIDS["even"]
    expected = torchdiffeq.odeint(f, start, t, method="rk4")
    torch.testing.assert_close(pd.odeint(f, start, t, method="rk4"), expected, rtol=1e-10, atol=1e-10)


def test_guesses_outside_the_domain_of_a_function_are_survived():
    seen = []

    def f(t, y):
        seen.append(y.detach())
        return torch.sqrt(1 - y**2)  # the sine, and not a number above 1

    start, t = torch.zeros(1, dtype=REAL), torch.linspace(0, 1.5, 33, dtype=REAL)
    expected = torchdiffeq.odeint(lambda t, y: torch.sqrt(1 - y**2), start, t, method="euler")
    found = pd.odeint(f, start, t, method="euler", batched=True)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert max(float(y.max()) for y in seen) > 1


def test_mistakes_of_a_function_are_its_own():
    with pytest.raises(ZeroDivisionError):
        pd.odeint(lambda t, y: y / 0 if y.ndim else 1 / 0, torch.tensor(1.0), torch.tensor([0.0, 1.0]), method="euler")


def test_rows_are_limited_in_every_call_gradients_included():
    seen = []
    rate = torch.tensor(0.5, dtype=REAL, requires_grad=True)

    def f(t, y):
        seen.append(len(t))
        return -rate * y

    start, t = torch.ones(2, dtype=REAL), GRIDS["even"]
    pd.odeint(f, start, t, method="rk4", batched=True, max_rows=10)[-1].sum().backward()
    assert max(seen) == 10
    expected = torch.autograd.grad(torchdiffeq.odeint(lambda t, y: -rate * y, start, t, method="rk4")[-1].sum(), rate)
    torch.testing.assert_close(rate.grad, expected[0], rtol=1e-10, atol=1e-10)


def test_a_function_may_differentiate_inside_itself():
    def f(t, y):
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            (slope,) = torch.autograd.grad((y**4 / 4 + y**2 / 2).sum(), y)
        return -slope

    start, t = torch.tensor([1.0, -0.5], dtype=REAL), GRIDS["even"]
    expected = torchdiffeq.odeint(f, start, t, method="rk4")
    torch.testing.assert_close(pd.odeint(f, start, t, method="rk4"), expected, rtol=1e-10, atol=1e-10)


def test_single_precision_is_solved_to_its_own_round_off():
    start, t = torch.ones(3), torch.linspace(0, 2, 40)
    found = pd.odeint(lambda t, y: torch.sin(y + t), start, t, method="rk4")
    expected = torchdiffeq.odeint(lambda t, y: torch.sin(y + t), start, t, method="rk4")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class Network(nn.Module):
    """A small right side with parameters, which depends on time."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).to(REAL)

    def forward(self, t, y):
        return self.layers(torch.cat([y, t[None]]))


def gradients(solve, network, options):
    start = torch.tensor([0.7, -0.4], dtype=REAL, requires_grad=True)
    t = (torch.linspace(0, 1, 9, dtype=REAL) ** 2 * 2).requires_grad_()
    solution = solve(network, start, t, options=options)
    weights = torch.linspace(-1, 1, solution.numel(), dtype=REAL).view_as(solution)
    return torch.autograd.grad((weights * solution.sin()).sum(), [start, t, *network.parameters()])


@pytest.mark.parametrize(
    ("method", "options"), [*((method, None) for method in METHODS), ("midpoint", {"step_size": 0.125})]
)
def test_gradients_of_start_times_and_parameters_are_those_of_torchdiffeq(method, options):
    network = Network()

    def sequential(f, y0, t, options):
        return torchdiffeq.odeint(f, y0, t, method=method, options=options)

    def parallel(f, y0, t, options):
        return pd.odeint(f, y0, t, method=method, options=options)

    for one, other in zip(gradients(parallel, network, options), gradients(sequential, network, options), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_gradients_of_tuples_and_batched_functions_are_those_of_torchdiffeq():
    rate = torch.tensor(0.3, dtype=REAL, requires_grad=True)
    start = torch.tensor([1.0, 2.0], dtype=REAL, requires_grad=True)
    t, other = GRIDS["backward"], torch.tensor(0.2, dtype=REAL)

    def loss(solution):
        return (solution[0][-1] ** 2).sum() + solution[1].sum()

    found = pd.odeint(
        lambda t, y: (-rate * y[0] * y[1][:, None], y[0].prod(-1)), (start, other), t, method="rk4", batched=True
    )
    expected = torchdiffeq.odeint(lambda t, y: (-rate * y[0] * y[1], y[0].prod(-1)), (start, other), t, method="rk4")
    for one, two in zip(
        torch.autograd.grad(loss(found), [rate, start]), torch.autograd.grad(loss(expected), [rate, start]), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


def test_gradients_take_rounds_not_steps():
    calls = []
    rate = torch.tensor(0.7, dtype=REAL, requires_grad=True)

    def f(t, y):
        calls.append(len(t))
        return rate * torch.stack([y[:, 1], -y[:, 0]], 1)

    t = torch.linspace(0, 3, 49, dtype=REAL)
    solution = pd.odeint(f, torch.tensor([1.0, 0.0], dtype=REAL), t, method="rk4", batched=True)
    forward = len(calls)
    solution[-1, 0].backward()
    assert rate.grad == pytest.approx(-3 * math.sin(0.7 * 3), abs=1e-5)
    assert forward < 50
    assert len(calls) - forward < 50


def test_without_gradients_nothing_is_attached():
    start, t = torch.ones(2, dtype=REAL), GRIDS["even"]
    assert not pd.odeint(lambda t, y: -y, start, t, method="euler").requires_grad
    with torch.no_grad():
        assert not pd.odeint(Network(), start, t, method="euler").requires_grad
    assert pd.odeint(Network(), start, t, method="euler").requires_grad


def test_gradients_of_gradients_are_refused():
    start = torch.ones(2, dtype=REAL, requires_grad=True)
    solution = pd.odeint(lambda t, y: -y * y, start, GRIDS["even"], method="rk4")
    with pytest.raises(pd.SpecError, match="expected a first derivative, found create_graph=True"):
        torch.autograd.grad(solution[-1].sum(), start, create_graph=True)


def test_the_solution_says_what_it_cost():
    def f(t, y):
        return torch.stack([y[1], -y[0]])

    start, t = torch.tensor([1.0, 0.0], dtype=REAL), torch.linspace(0, 5, 65, dtype=REAL)
    solution = pd.odeint_solution(f, start, t, method="rk4")
    assert solution.converged
    assert solution.stats.nodes == 4 * 64
    assert solution.stats.rounds < 40
    assert solution.stats.evaluations < 40 * 256
    assert solution.samples.shape == (1, 65, 2)
    assert torch.equal(solution.samples[0], pd.odeint(f, start, t, method="rk4"))


def test_one_step_at_a_time_is_the_sequential_method():
    solution = pd.odeint_solution(
        lambda t, y: -y, torch.ones(2, dtype=REAL), GRIDS["even"], method="heun2", window=pd.Sliding(1)
    )
    assert solution.stats.rounds == solution.stats.evaluations == solution.stats.nodes == 32


def test_too_few_rounds_raise_with_the_solution_so_far():
    start, t = torch.ones(2, dtype=REAL), GRIDS["even"]
    with pytest.raises(pd.SolveError, match="budget exhausted after 2 rounds") as caught:
        pd.odeint(lambda t, y: torch.sin(3 * y + t), start, t, method="rk4", max_rounds=2)
    samples = caught.value.solution.samples
    assert samples.shape == (1, 17, 2)
    assert torch.equal(samples[0, 0], start)


def test_a_gradient_that_does_not_converge_raises():
    start = torch.tensor([0.1, 0.2], dtype=REAL, requires_grad=True)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=REAL)
    solution = pd.odeint(lambda t, y: t + 0 * y, start, GRIDS["even"], method="rk4", max_rounds=3)
    assert torch.equal(torch.autograd.grad(solution[-1].sum(), start)[0], torch.ones(2, dtype=REAL))

    def f(t, y):  # a state that stays at zero is solved at once, its gradient is not
        return y @ turn

    solution = pd.odeint(f, 0 * start, GRIDS["even"], method="rk4", max_rounds=3)
    with pytest.raises(pd.SolveError, match="expected the gradient to converge"):
        solution[-1, 0].backward()


def test_a_right_side_that_is_not_finite_raises():
    with pytest.raises(pd.SolveError, match="non-finite"):
        pd.odeint(lambda t, y: y / (t - 1), torch.ones(1, dtype=REAL), GRIDS["even"], method="euler")


def test_an_adams_table_has_as_many_columns_as_torchdiffeq_keeps():
    steps = scheme("explicit_adams", 20)
    assert max(len(steps.weights[steps.used == row]) for row in steps.points) == 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "dopri5"}, "one of euler, midpoint, heun2, heun3, rk4, explicit_adams, found 'dopri5'"),
        ({"options": {"perturb": True}}, "expected step_size or grid_constructor as the only option, found perturb"),
        ({"options": {"step_size": 0.1, "grid_constructor": None}}, "as the only option, found grid_constructor, step"),
        ({"options": {"step_size": -0.1}}, "expected a positive step_size, found -0.1"),
        ({"options": {"grid_constructor": lambda f, y, t: t[1:]}}, "expected a grid from t\\[0\\]=1"),
        ({"t": torch.tensor([0.0, 1.0, 0.5])}, "expected t to be strictly increasing or decreasing"),
        ({"t": torch.tensor([0.0])}, "expected t to be a vector of at least 2 floating-point times"),
        ({"y0": torch.ones(2, dtype=torch.complex64)}, "expected y0 in float32 or float64"),
        ({"y0": [1.0]}, "expected y0 to be a tensor or a tuple of tensors, found list"),
        ({"func": lambda t, y: y[:1]}, "expected f to return what it was given, of shape"),
    ],
)
def test_requests_that_cannot_be_carried_out_are_refused_in_one_sentence(change, message):
    request = {"func": lambda t, y: -y, "y0": torch.ones(2, dtype=REAL), "t": GRIDS["even"], "method": "rk4"} | change
    with pytest.raises(pd.SpecError, match=message):
        pd.odeint(**request)
