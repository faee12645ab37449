"""The analytic models against automatic differentiation, Monte Carlo and each other, in float64."""

import math

import numpy as np
import pytest
import torch

from paradrift.analytic import Gaussian, GaussianMixture, Mixture, PointMass
from paradrift.denoisers import Denoiser, Reform
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.schedules import EDM, VP, Flow, Schedule

FORMS = [form for form in Form if form is not Form.VALUE]
SHAPE = (2, 3)


def _covariance(size: int) -> torch.Tensor:
    root = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)


def _models(schedule: Schedule, form: Form = Form.DATA) -> dict[str, Mixture]:
    generator = torch.Generator().manual_seed(2)
    mean = torch.randn(SHAPE, dtype=torch.float64, generator=generator)
    spread = torch.rand(SHAPE, dtype=torch.float64, generator=generator) + 0.05
    means = torch.randn(4, *SHAPE, dtype=torch.float64, generator=generator)
    spreads = torch.rand(4, *SHAPE, dtype=torch.float64, generator=generator) + 0.05
    weights = [0.1, 0.2, 0.3, 0.4]
    return {
        "point": PointMass(mean, schedule, form=form),
        "isotropic": Gaussian(mean, 0.7, schedule, form=form),
        "diagonal": Gaussian(mean, spread, schedule, form=form),
        "full": Gaussian(mean, _covariance(6), schedule, form=form),
        "mixture, one variance": GaussianMixture(weights, means, 0.2, schedule, form=form),
        "mixture, isotropic": GaussianMixture(weights, means, [0.2, 0.1, 0.5, 0.3], schedule, form=form),
        "mixture, diagonal": GaussianMixture(weights, means, spreads, schedule, form=form),
    }


NAMES = list(_models(Flow()))
TIMES = {VP: [0.05, 0.4, 1.0], EDM: [0.1, 1.0, 30.0], Flow: [0.1, 0.5, 0.97]}


@pytest.fixture(params=[VP, EDM, Flow], ids=lambda kind: kind.__name__)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return request.param()


@pytest.fixture
def t(schedule: Schedule) -> torch.Tensor:
    return torch.tensor(TIMES[type(schedule)], dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_the_gradient_of_the_log_density(name: str, schedule: Schedule, t: torch.Tensor) -> None:
    model = _models(schedule, Form.SCORE)[name]
    x = torch.randn(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(model.log_density(x, t).sum(), x)[0]
    torch.testing.assert_close(model(x, t), gradient, rtol=1e-10, atol=1e-10)


def test_log_densities_are_those_of_torch(schedule: Schedule, t: torch.Tensor) -> None:
    alpha, sigma = torch.from_numpy(schedule.alpha(t.numpy())), torch.from_numpy(schedule.sigma(t.numpy()))
    x, eye = torch.randn(3, 6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    means, spreads = torch.randn(2, 6, dtype=torch.float64), torch.rand(2, 6, dtype=torch.float64) + 0.1
    mixture, full = GaussianMixture([0.3, 0.7], means, spreads, schedule), Gaussian(means[0], _covariance(6), schedule)
    isotropic = GaussianMixture([0.3, 0.7], means, [0.5, 2.0], schedule)
    for row in range(3):

        def of(mean: torch.Tensor, covariance: torch.Tensor, row: int = row) -> torch.Tensor:
            spread = alpha[row] ** 2 * covariance + sigma[row] ** 2 * eye
            return torch.distributions.MultivariateNormal(alpha[row] * mean, spread).log_prob(x[row])

        def mix(*covariances: torch.Tensor) -> torch.Tensor:
            return (0.3 * of(means[0], covariances[0]).exp() + 0.7 * of(means[1], covariances[1]).exp()).log()

        torch.testing.assert_close(full.log_density(x, t)[row], of(means[0], _covariance(6)))
        torch.testing.assert_close(mixture.log_density(x, t)[row], mix(spreads[0].diag(), spreads[1].diag()))
        torch.testing.assert_close(isotropic.log_density(x, t)[row], mix(0.5 * eye, 2 * eye))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_every_form_agrees_with_the_hub(name: str, form: Form, schedule: Schedule, t: torch.Tensor) -> None:
    x, sample = torch.randn(3, *SHAPE, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    direct = _models(schedule, form)[name](x, t)
    through_hub = Reform(_models(schedule)[name], form)(x, t, sample)
    torch.testing.assert_close(direct, through_hub, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_jacobians_are_derivatives_of_the_output(name: str, form: Form, schedule: Schedule, t: torch.Tensor) -> None:
    model = _models(schedule, form)[name]
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    by_autograd = torch.autograd.functional.jacobian(lambda state: model(state, t), x).reshape(3, 6, 3, 6)
    expected = torch.stack([by_autograd[row, :, row] for row in range(3)])
    torch.testing.assert_close(model.jacobian(x, t), expected, rtol=1e-10, atol=1e-10)


def test_a_gaussian_has_the_linear_data_prediction(schedule: Schedule, t: torch.Tensor) -> None:
    mean, covariance = torch.arange(6.0, dtype=torch.float64), _covariance(6)
    x = torch.randn(3, 6, dtype=torch.float64)
    alpha, sigma = torch.from_numpy(schedule.alpha(t.numpy())), torch.from_numpy(schedule.sigma(t.numpy()))
    for row in range(3):
        spread = alpha[row] ** 2 * covariance + sigma[row] ** 2 * torch.eye(6, dtype=torch.float64)
        expected = mean + alpha[row] * covariance @ torch.linalg.solve(spread, x[row] - alpha[row] * mean)
        found = Gaussian(mean, covariance, schedule)(x, t)[row]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_a_point_mass_predicts_its_point(schedule: Schedule, t: torch.Tensor) -> None:
    model = PointMass([1.0, -2.0], schedule)
    x = 100 * torch.randn(3, 2, dtype=torch.float64)
    assert torch.equal(model(x, t), torch.tensor([1.0, -2.0], dtype=torch.float64).expand(3, 2))
    assert model.variance is None


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_law(name: str) -> None:
    """Mean and covariance of 20000 draws, x_t included, within 6 standard errors: error rate below 1e-6 an entry."""
    model, count = _models(Flow())[name], 20_000
    alpha = 1 - 0.3
    data = model.sample(count, torch.Generator().manual_seed(3)).flatten(1)
    x = alpha * data + 0.3 * torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mean, covariance = (moment[0] for moment in model.law(torch.tensor([0.3], dtype=torch.float64)))
    error = (x.mean(0) - mean.flatten()) / (covariance.diagonal() / count).sqrt()
    assert error.abs().max() < 6
    products = ((x - mean.flatten())[:, :, None] * (x - mean.flatten())[:, None, :]).flatten(1)
    errors = (products.mean(0) - covariance.flatten()) / (products.std(0) / math.sqrt(count))
    assert errors.abs().max() < 6


def test_variance_is_the_mean_eigenvalue_of_the_data() -> None:
    for name, model in _models(Flow()).items():
        covariance = model.law(torch.tensor([0.0], dtype=torch.float64))[1][0]
        assert (model.variance or 0.0) == pytest.approx(float(covariance.diagonal().mean()), rel=1e-12), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_depend_on_its_batch(name: str, dtype: torch.dtype) -> None:
    model = _models(VP())[name]
    x, t = torch.randn(37, *SHAPE, dtype=dtype), torch.linspace(0.01, 1, 37, dtype=torch.float64)
    together = model(x, t)
    assert together.dtype == dtype
    for row in range(37):
        assert torch.equal(model(x[row : row + 1], t[row : row + 1])[0], together[row])
    order = torch.randperm(37)
    assert torch.equal(model(x[order], t[order]), together[order])


def test_a_row_does_not_depend_on_its_batch_in_many_dimensions() -> None:
    model = GaussianMixture([0.5, 0.25, 0.25], torch.randn(3, 1031), 0.3, VP())
    x, t = torch.randn(9, 1031), torch.linspace(0.01, 1, 9, dtype=torch.float64)
    together = model(x, t)
    assert all(torch.equal(model(x[row : row + 1], t[row : row + 1])[0], together[row]) for row in range(9))


def test_data_ends_and_noise_ends_are_exact() -> None:
    model = Gaussian([0.5, -0.5], 0.3, Flow())
    x, ends = torch.randn(2, 2, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(model(x, ends)[0], x[0])
    torch.testing.assert_close(model(x, ends)[1], torch.tensor([0.5, -0.5], dtype=torch.float64))


def test_analytic_models_are_denoisers() -> None:
    model = Gaussian([0.0], 1.0, VP())
    assert isinstance(model, Denoiser)
    assert np.isclose(model.variance or 0, 1.0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Gaussian([0.0, 1.0], [1.0, 2.0, 3.0], VP()),
            r"expected a variance that is one number, of shape \(2,\)",
        ),
        (lambda: Gaussian([0.0, 1.0], [[1.0, 2.0], [0.0, 1.0]], VP()), "expected a symmetric covariance"),
        (lambda: Gaussian([0.0], -1.0, VP()), "expected variances of at least 0, found -1.0"),
        (lambda: GaussianMixture([0.5, 0.5], [[0.0]], 1.0, VP()), "expected K positive weights"),
        (lambda: GaussianMixture([0.5, -0.5], [[0.0], [1.0]], 1.0, VP()), "expected K positive weights"),
        (lambda: GaussianMixture([0.5, 0.5], [[0.0], [1.0]], [1.0] * 3, VP()), "expected variances of shape"),
        (lambda: PointMass([0.0], VP(), form=Form.VALUE), "expected a form tied to a noise schedule"),
        (lambda: PointMass([0.0], VP())(torch.zeros(2, 3), torch.ones(2)), r"expected states of shape \(2, 1\)"),
    ],
)
def test_wrong_models_are_refused_in_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        make()  # pyright: ignore[reportCallIssue]
