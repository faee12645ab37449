"""Conversions, guidance, clipping and counting, against their formulas and diffusers' schedulers."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given
from torch import Tensor

from paradrift.adapters import denoiser
from paradrift.analytic import Gaussian, GaussianMixture
from paradrift.denoisers import Clipped, Counted, Denoiser, Guided, Reform, modules
from paradrift.errors import SpecError
from paradrift.forms import Form, convert, from_data
from paradrift.schedules import EDM, VP, Discrete, Flow

FORMS = [form for form in Form if form is not Form.VALUE]
SCHEDULE = Discrete.linear(100)
LEVELS = st.floats(0.05, 1.0), st.floats(0.05, 3.0)


@given(st.lists(st.sampled_from(FORMS), min_size=1, max_size=8), *LEVELS, st.floats(-3, 3), st.floats(-3, 3))
def test_conversions_round_trip_through_any_forms(
    path: list[Form], alpha: float, sigma: float, x: float, data: float
) -> None:
    value, form = np.array([data]), Form.DATA
    for target in [*path, Form.DATA]:
        p, q = convert(form, target, np.array([alpha]), np.array([sigma]))
        value, form = p * x + q * value, target
        expected = from_data(form, np.array([alpha]), np.array([sigma]))
        scale = 1e3 * (1 + 1 / sigma**2) / alpha
        np.testing.assert_allclose(value, expected.p * x + expected.q * data, atol=1e-13 * scale * len(path))


@given(*LEVELS, st.floats(-3, 3), st.floats(-3, 3))
def test_forms_mean_what_the_table_says(alpha: float, sigma: float, data: float, noise: float) -> None:
    x = alpha * data + sigma * noise
    meanings = {
        Form.DATA: data,
        Form.NOISE: noise,
        Form.V: alpha * noise - sigma * data,
        Form.FLOW: noise - data,
        Form.SCORE: -noise / sigma,
        Form.RESIDUAL: x - noise / sigma,
    }
    for form, expected in meanings.items():
        p, q = from_data(form, np.array([alpha]), np.array([sigma]))
        np.testing.assert_allclose(p * x + q * data, expected, atol=1e-11 / sigma**2)


@pytest.mark.parametrize("schedule", [VP(), EDM(), Flow(), Discrete.linear()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("form", FORMS)
def test_reform_there_and_back_is_the_same_model(form: Form, schedule: object) -> None:
    model = Gaussian([0.3, -0.7, 1.0], [0.1, 0.5, 2.0], schedule)  # pyright: ignore[reportArgumentType]
    first = {EDM: 5.0, Discrete: 700.0}.get(type(schedule), 0.9)
    t = torch.linspace(first / 10, first, 7, dtype=torch.float64)
    x, sample = torch.randn(7, 3, dtype=torch.float64), torch.zeros(7, dtype=torch.int64)
    there = Reform(model, form)
    assert (there.form, there.schedule, there.variance) == (form, schedule, model.variance)
    torch.testing.assert_close(Reform(there, Form.DATA)(x, t, sample), model(x, t), rtol=1e-9, atol=1e-9)


def test_reform_keeps_the_dtype_and_each_row_its_own() -> None:
    model = Reform(Gaussian(torch.zeros(2, 3), 0.5, VP()), Form.NOISE)
    x, t, sample = torch.randn(9, 2, 3), torch.linspace(0.05, 1, 9, dtype=torch.float64), torch.zeros(9).long()
    together = model(x, t, sample)
    assert together.dtype == torch.float32
    for row in range(9):
        assert torch.equal(model(x[row : row + 1], t[row : row + 1], sample[:1])[0], together[row])


def _tell(x: Tensor, t: Tensor, label: Tensor, tone: Tensor) -> Tensor:
    """A network whose output shows its conditioning."""
    return x * t[:, None] + label[:, None] + tone


LABELS = {"label": torch.tensor([1.0, 2.0, 3.0]), "tone": torch.tensor([[0.1, 0.2]])}
NULLS = {"label": torch.tensor([-5.0])}


def _guidable() -> Denoiser:
    return denoiser(_tell, predicts="noise", schedule=VP(), conditioning=LABELS, unconditional=NULLS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_are_kept_are_those_computed_anew(dtype: torch.dtype) -> None:
    model = Gaussian(torch.ones(3), 0.5, SCHEDULE, form=Form.NOISE)
    kept, generator = Reform(model, Form.V), torch.Generator().manual_seed(0)
    for rows in (1, 4):
        for time in (5.0, 50.0, 5.0):
            x, t = torch.randn(rows, 3, dtype=dtype, generator=generator), torch.full((1,), time).expand(rows)
            for mode in (True, False):
                with torch.inference_mode(mode):
                    p, q = convert(
                        Form.NOISE, Form.V, *(level(t.numpy()) for level in (SCHEDULE.alpha, SCHEDULE.sigma))
                    )
                    weights = [torch.from_numpy(weight).to(dtype)[:, None] for weight in (p, q)]
                    expected = model(x, t) * weights[1] + weights[0] * x
                    assert torch.equal(kept(x, t, torch.zeros(rows, dtype=torch.int64)), expected)


def test_weights_of_a_schedule_that_may_change_are_not_kept() -> None:
    class Moving:
        """A schedule whose levels can be set."""

        first, last, level = 1.0, 0.0, 0.6

        def alpha(self, t: np.ndarray) -> np.ndarray:
            return np.full_like(t, np.sqrt(1 - self.level**2))

        def sigma(self, t: np.ndarray) -> np.ndarray:
            return np.full_like(t, self.level)

    schedule = Moving()
    model = Reform(denoiser(lambda x, t: x, predicts="noise", schedule=schedule), Form.DATA)  # type: ignore[arg-type]
    x, t, sample = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1), torch.tensor([0])
    assert float(model(x, t, sample)) == pytest.approx(0.4 / 0.8)
    schedule.level = 0.8
    assert float(model(x, t, sample)) == pytest.approx(0.2 / 0.6)


def test_guidance_is_two_calls_in_one() -> None:
    counted = Counted(_guidable())
    x, t, sample = torch.randn(5, 2), torch.rand(5), torch.tensor([0, 2, 1, 1, 0])
    found = Guided(counted, 3.5)(x, t, sample)
    conditional = _tell(x, t, LABELS["label"][sample], LABELS["tone"])
    unconditional = _tell(x, t, NULLS["label"].expand(5), LABELS["tone"])
    torch.testing.assert_close(found, unconditional + 3.5 * (conditional - unconditional))
    assert (counted.calls, counted.rows) == (1, 10)


def test_guidance_of_scale_one_is_the_conditional_model() -> None:
    x, t, sample = torch.randn(5, 2), torch.rand(5), torch.tensor([0, 2, 1, 1, 0])
    torch.testing.assert_close(Guided(_guidable(), 1.0)(x, t, sample), _guidable()(x, t, sample))


def test_guidance_commutes_with_every_form() -> None:
    x, t, sample = torch.randn(3, 2, dtype=torch.float64), torch.rand(3).double() / 2 + 0.3, torch.arange(3)
    for form in FORMS:
        outside, inside = Reform(Guided(_guidable(), 2.0), form), Guided(Reform(_guidable(), form), 2.0)
        torch.testing.assert_close(outside(x, t, sample), inside(x, t, sample), rtol=1e-9, atol=1e-9)


def test_rescaled_guidance_has_the_spread_of_the_conditional_half() -> None:
    def net(x: Tensor, t: Tensor, w: Tensor) -> Tensor:
        return x * w[:, None, None]

    entries = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.5])}
    model = denoiser(net, predicts="v", schedule=VP(), conditioning=entries[0], unconditional=entries[1])
    x, t, sample = torch.randn(2, 4, 6), torch.rand(2), torch.arange(2)
    conditional, plain = model(x, t, sample), Guided(model, 4.0)(x, t, sample)
    full = Guided(model, 4.0, rescale=1.0)(x, t, sample)
    torch.testing.assert_close(full.std((1, 2)), conditional.std((1, 2)))
    torch.testing.assert_close(Guided(model, 4.0, rescale=0.7)(x, t, sample), 0.7 * full + 0.3 * plain)


CLIPS = {
    "static": ({"clip_sample": True, "clip_sample_range": 0.8}, {"bound": 0.8}),
    "dynamic": (
        {"thresholding": True, "clip_sample": False, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
        {"quantile": 0.9, "ceiling": 1.5},
    ),
}


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize(("form", "name"), [(Form.NOISE, "epsilon"), (Form.DATA, "sample"), (Form.V, "v_prediction")])
def test_clipped_in_the_data_form_is_diffusers_clipping_ddpm(form: Form, name: str, clip: str) -> None:
    """One DDPM step, its posterior mean written with the data prediction: Ho et al. 2020, equation 7."""
    theirs, ours = CLIPS[clip]
    scheduler = DDPMScheduler(prediction_type=name, **theirs)
    products = scheduler.alphas_cumprod.double()
    schedule = Discrete(products.tolist())
    model = denoiser(lambda x, t: 2 * torch.sin(3 * x), predicts=form, schedule=schedule)
    x = 2 * torch.randn(4, 1, 5, 5, dtype=torch.float64)
    t = torch.tensor([999, 500, 100, 1])
    data = Clipped(model, **ours)(x, t.double(), torch.zeros(4, dtype=torch.int64))
    for row, time in enumerate(t.tolist()):
        state = x[row : row + 1]
        stepped = scheduler.step(2 * torch.sin(3 * state), time, state, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(data[row : row + 1], stepped.pred_original_sample, rtol=1e-4, atol=1e-4)
        now, before = products[time], products[time - 1]
        rate = 1 - now / before
        mean = before.sqrt() * rate / (1 - now) * data[row] + (1 - rate).sqrt() * (1 - before) / (1 - now) * x[row]
        noise = torch.randn(state.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        spread = float(scheduler._get_variance(time)) ** 0.5
        torch.testing.assert_close(mean + spread * noise[0], stepped.prev_sample[0], rtol=1e-4, atol=1e-4)


def test_clipping_acts_and_is_per_row() -> None:
    model = denoiser(lambda x, t: x, predicts="data", schedule=VP())
    x = torch.tensor([[3.0, -0.5, 0.25, 1.5], [0.3, 0.2, 0.1, 0.0]])
    t, sample = torch.ones(2), torch.zeros(2, dtype=torch.int64)
    assert torch.equal(Clipped(model, 2.0)(x, t, sample)[0], torch.tensor([2.0, -0.5, 0.25, 1.5]))
    dynamic = Clipped(model, quantile=1.0)(x, t, sample)
    torch.testing.assert_close(dynamic, torch.stack([x[0] / 3, x[1]]))
    torch.testing.assert_close(Clipped(model, quantile=1.0, ceiling=2.0)(x, t, sample)[0], x[0].clamp(-2, 2) / 2)


def test_counted_counts_and_wrappers_pass_on_the_rest() -> None:
    module = torch.nn.Identity()
    inner = denoiser(lambda x, t: module(x), predicts="data", schedule=VP(), variance=0.25)
    assert modules(inner) == ()
    net = torch.nn.Bilinear(2, 1, 2)
    inner = denoiser(net, predicts="data", schedule=VP(), variance=0.25)
    assert modules(inner) == (net,)
    for outer in (Reform(inner, Form.V), Guided(inner, 2.0), Clipped(inner), Counted(inner)):
        assert isinstance(outer, Denoiser)
        assert outer.modules == (net,)
        assert (outer.schedule, outer.variance) == (VP(), 0.25)
    assert modules(Gaussian([0.0], 1.0, VP())) == ()


def test_counted_is_the_model() -> None:
    model = GaussianMixture([0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]], 0.1, VP(), form=Form.SCORE)
    counted = Counted(model)
    x, t, sample = torch.randn(3, 2), torch.rand(3) + 0.1, torch.zeros(3, dtype=torch.int64)
    assert torch.equal(counted(x, t, sample), model(x, t))
    counted(x[:1], t[:1], sample[:1])
    assert (counted.calls, counted.rows, counted.form) == (2, 4, Form.SCORE)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Guided(_guidable(), 2.0, rescale=1.5), "expected rescale between 0 and 1, found 1.5"),
        (lambda: Clipped(_guidable(), 0.0), "expected a positive bound, found 0.0"),
        (lambda: Clipped(_guidable(), quantile=99.5), "expected a quantile above 0 and at most 1, found 99.5"),
        (lambda: Clipped(_guidable(), 2.0, 0.9, 1.0), "expected a ceiling of at least the bound 2.0, found 1.0"),
        (
            lambda: Reform(denoiser(_tell, predicts="value", schedule=None), Form.DATA),
            "expected a denoiser with a schedule to turn value into data",
        ),
    ],
)
def test_wrong_wrappers_are_refused_in_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        make()  # pyright: ignore[reportCallIssue]
