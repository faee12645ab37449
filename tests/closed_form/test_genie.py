"""GENIE: the derivative along the flow in closed form, its order, and its answers in parallel."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift import grids
from paradrift.denoisers import GENIE
from paradrift.errors import SpecError
from paradrift.forms import Form

# torch, when it first loads its forward-mode rules
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

VALUE, MEAN = 2.5, 0.7


@dataclass(frozen=True)
class Smooth:
    """The analytic Gaussian on a VP schedule of linear rate, in torch operations of x and t throughout."""

    form: Form
    schedule: pd.VP = pd.VP()
    variance: float = VALUE

    def __call__(self, x, t, sample):
        rate = 0.1 * t + (20.0 - 0.1) * t**2 / 2  # VP's integral of beta
        alpha, sigma = torch.exp(-rate / 2)[:, None], torch.sqrt(-torch.expm1(-rate))[:, None]
        data = MEAN + alpha * VALUE * (x - alpha * MEAN) / (alpha**2 * VALUE + sigma**2)
        return data if self.form is Form.DATA else (x - alpha * data) / sigma


def exact(schedule, x, times):
    """The flow of Gaussian data from the first time to the last, by closed form."""
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    spread = np.sqrt(alpha**2 * VALUE + sigma**2)
    return alpha[-1] * MEAN + spread[-1] / spread[0] * (x - alpha[0] * MEAN)


def models(schedule, times):
    gaussian = pd.Gaussian([MEAN], VALUE, schedule)
    yield GENIE(gaussian, tuple(times), probe=1e-4)
    if isinstance(schedule, pd.VP):
        for form in (Form.DATA, Form.NOISE):
            yield GENIE(Smooth(form), tuple(times), "forward", probe=1e-4)


@pytest.mark.parametrize("schedule", [pd.VP(), pd.EDM()], ids=["VP", "EDM"])
def test_the_derivative_is_that_of_the_gaussian_flow(schedule):
    """On the flow, eps = -sigma s moves as gamma / (gamma^2 + v) times a constant: its derivative is known."""
    times = grids.log_snr(schedule, 10)[1:8]
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    gamma = sigma / alpha
    start = np.array([[0.4]])
    for model in models(schedule, times):
        for node in (1, 3):
            x, t = torch.from_numpy(alpha[node] * start), torch.tensor([times[node]], dtype=torch.float64)
            found = model(x, t, torch.zeros(1, dtype=torch.int64)).item()
            square = gamma[node] ** 2 + VALUE
            noise = gamma[node] * (0.4 - MEAN) / square
            # d/dgamma of gamma (xbar - mean) / (gamma^2 + v) with dxbar = noise dgamma
            slope = (0.4 - MEAN) * (1 / square - 2 * gamma[node] ** 2 / square**2) + gamma[node] / square * noise
            expected = noise + (gamma[node + 1] - gamma[node]) / 2 * slope
            np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("schedule", [pd.VP(), pd.EDM()], ids=["VP", "EDM"])
def test_ddim_becomes_a_method_of_second_order(schedule):
    ladder = [32, 45, 64, 91]
    found = {}
    for steps in ladder:
        times = schedule.time(np.linspace(-2.0, 1.0, steps + 1))
        start = torch.full((1, 1), 0.4 * schedule.alpha(times[:1])[0] + 0.9, dtype=torch.float64)
        request = dict(sampler=pd.DDIM(), times=times, solver=pd.sequential(), start=start, dtype=torch.float64)
        truth = exact(schedule, start.item(), times)
        plain = pd.Gaussian([MEAN], VALUE, schedule)
        for name, model in enumerate([plain, *models(schedule, times)]):
            answer = pd.sample(model, (1, 1), **request).samples.item()
            found.setdefault(name, []).append(abs(answer - truth))
    orders = [-np.polyfit(np.log(ladder), np.log(errors), 1)[0] for errors in found.values()]
    assert orders[0] == pytest.approx(1, abs=0.2)
    assert orders[1:] == pytest.approx([2] * (len(orders) - 1), abs=0.2)


def test_parallel_is_sequential_to_the_bit():
    times = grids.log_snr(pd.VP(), 16)
    mixture = pd.GaussianMixture([0.4, 0.6], [[1.0, 0.5], [-1.0, 0.2]], 0.1, pd.VP(), form=Form.V)
    model = GENIE(mixture, tuple(times))
    request = dict(sampler=pd.DDIM(), times=times, seed=2, dtype=torch.float64)
    one = pd.sample(model, (2, 2), **request, solver=pd.sequential())
    two = pd.sample(model, (2, 2), **request, window=pd.Sliding(5), tol=0.0)
    assert torch.equal(one.samples, two.samples)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: GENIE(model, (0.9, 0.1)), "expected at least 3 times"),
        (lambda model: GENIE(model, (0.9, 0.5, 0.1), "backward"), "expected derivative 'difference' or 'forward'"),
        (lambda model: GENIE(pd.Gaussian([0.0], 1.0, pd.Flow()), (1.0, 0.5, 0.1)), "the first with signal"),
        (
            lambda model: GENIE(model, (0.9, 0.5, 0.1))(torch.ones(1, 1), torch.tensor([0.4]), torch.zeros(1).long()),
            "expected times among the 2 nodes",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SpecError, match=message):
        make(pd.Gaussian([MEAN], VALUE, pd.VP()))
