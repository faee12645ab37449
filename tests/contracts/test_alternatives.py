"""UniPC, DEIS and the accelerated samplers: twins, algorithms written out, every schedule, and parallel in time."""

import numpy as np
import pytest
import torch
from diffusers import DEISMultistepScheduler, UniPCMultistepScheduler

import paradrift as pd
from paradrift import grids
from paradrift.errors import SpecError
from paradrift.forms import Form
from paradrift.samplers import DDIM, DEIS, AcceleratedODE, AcceleratedSDE, UniPC
from paradrift.schedules import EDM, OU, VE, VP, Cosine, Discrete, Flow

# inside diffusers: NumPy 2 asks torch tensors for a keyword that they do not have
TORCH = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SCHEDULES = [VP(), Cosine(), OU(), VE(), EDM(), Flow(), Discrete.linear()]
SIGNAL = [VP(), Cosine(), OU(), VE(), EDM(), Discrete.linear()]
SPACINGS = ["leading", "trailing", "linspace"]
NONE = np.zeros((0, 3))  # noises of samplers that draw none
CLOSE = dict(rtol=2e-6, atol=2e-6)  # levels of float32 on their side; answers are of size 1


def by_name(value):
    return type(value).__name__


def replay(scheduler, schedule, start, denoised):
    """Diffusers' loop on the toy, which predicts the data."""
    x = torch.from_numpy(start)[None]
    times = scheduler.timesteps
    # its weights are differences of logarithms: in float32 they lose 4 digits at 200 steps, in float64 none
    scheduler.sigmas = scheduler.sigmas.double()
    for t, alpha, sigma in zip(times, schedule.alpha(times), schedule.sigma(times), strict=True):
        x = scheduler.step(torch.from_numpy(denoised(x.numpy(), alpha, sigma)), t, x).prev_sample
    return x[0].numpy()


@TORCH
@pytest.mark.parametrize("count", [2, 7, 50])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [2, 3])
def test_unipc_is_the_scheduler_of_diffusers(order, variant, spacing, count, walk, denoised, start):
    # The oracle's trap: to a noiseless end its "bh1" multiplies an infinite step by an empty sum, which is NaN.
    for end in ["sigma_min", "zero"] if variant == "bh2" else ["sigma_min"]:
        for settling in [True] if end == "zero" else [True, False]:
            scheduler = UniPCMultistepScheduler(
                beta_schedule="scaled_linear",
                timestep_spacing=spacing,
                prediction_type="sample",
                solver_order=order,
                solver_type=variant,
                final_sigmas_type=end,
                lower_order_final=settling,
            )
            products = scheduler.alphas_cumprod.double().tolist()
            schedule = Discrete(products, final=1.0 if end == "zero" else products[0])
            scheduler.set_timesteps(count)
            times = grids.custom(schedule, scheduler.timesteps.numpy())
            sampler = UniPC(order=order, variant=variant, lower_order_final=settling)
            ours = walk(sampler.tableau(schedule, times), start, NONE, denoised)[-1]
            np.testing.assert_allclose(ours, replay(scheduler, schedule, start, denoised), **CLOSE)


@TORCH
@pytest.mark.parametrize("count", [2, 7, 60])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_deis_is_the_scheduler_of_diffusers(order, spacing, count, walk, denoised, start):
    for short in (15, 0):
        scheduler = DEISMultistepScheduler(
            beta_schedule="scaled_linear",
            timestep_spacing=spacing,
            prediction_type="sample",
            solver_order=order + 1,
            lower_order_final=short > 0,
        )
        products = scheduler.alphas_cumprod.double().tolist()
        schedule = Discrete(products, final=products[0])  # it always ends with the noise of time 0
        scheduler.set_timesteps(count)
        times = grids.custom(schedule, scheduler.timesteps.numpy())
        ours = walk(DEIS(order=order, short=short).tableau(schedule, times), start, NONE, denoised)[-1]
        np.testing.assert_allclose(ours, replay(scheduler, schedule, start, denoised), **CLOSE)


@pytest.mark.parametrize("variable", ["log-rho", "rho", "time"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=by_name)
def test_deis_of_order_zero_is_ddim(schedule, variable):
    times = grids.default(schedule, 12)
    one, two = DEIS(order=0, variable=variable).tableau(schedule, times), DDIM().tableau(schedule, times)
    np.testing.assert_allclose(one.a, two.a, rtol=1e-14)
    np.testing.assert_allclose(one.b, two.b, rtol=1e-14)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("variable", ["log-rho", "rho", "time"])
def test_deis_integrates_polynomials_in_its_variable(variable, order):
    """Noise predictions w^k, k up to the order, against the integral over rho from an independent quadrature."""
    schedule = VP()
    times = np.array([0.9, 0.8, 0.62, 0.5, 0.35])
    table = DEIS(order=order, variable=variable, short=0).tableau(schedule, times).reform(Form.NOISE)

    def place(rho):
        t = schedule.time(-np.log(rho))
        return {"log-rho": np.log(rho), "rho": rho, "time": t}[variable]

    relative = schedule.sigma(times) / schedule.alpha(times)
    points, shares = np.polynomial.legendre.leggauss(60)
    half, middle = (relative[3] - relative[4]) / 2, (relative[3] + relative[4]) / 2
    for power in range(order + 2):
        exact = -table.alpha[-1] * half * (shares @ place(middle + half * points) ** power)
        error = abs(table.b[-1, :-1] @ place(relative[:-1]) ** power - exact)
        assert (error < 1e-10) == (power <= order), (power, error)
    np.testing.assert_allclose(table.a[-1, :-2], 0, atol=1e-13)  # in noise form one state is used, the last
    np.testing.assert_allclose(table.a[-1, -2], table.alpha[-1] / table.alpha[-2], rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=by_name)
@pytest.mark.parametrize("settling", [True, False])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [2, 3])
def test_unipc_holds_on_every_schedule(order, variant, settling, schedule):
    times = grids.default(schedule, 20)
    table = UniPC(order=order, variant=variant, lower_order_final=settling).tableau(schedule, times)
    assert (table.rows, table.nodes, table.reach) == (21, 20, order + 1)
    # a clean point stays clean: where the data are one point x0, every row moves along alpha x0 + sigma eps
    u, outputs, _ = table.gains()
    np.testing.assert_allclose(u * table.alpha[0] + outputs.sum(axis=1), table.alpha, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(u * table.sigma[0], table.sigma, rtol=1e-9, atol=1e-9)


def test_variants_of_unipc_differ_only_where_one_difference_is_left():
    """Order 3 after its start: predictors and correctors integrate the same polynomial, whatever B is."""
    times = np.geomspace(10.0, 0.1, 12)
    one, two = (UniPC(order=3, variant=v, lower_order_final=False).tableau(EDM(), times).b for v in ("bh1", "bh2"))
    apart = np.flatnonzero(np.abs(one - two).max(axis=1) > 1e-12)
    # row 2 has the first correction (order 1) and the second prediction (order 2), row 3 takes that prediction back
    assert apart.tolist() == [2, 3]


def test_unipc_is_its_algorithm_written_as_a_loop(walk, denoised, start):
    """Order 2, "bh2", line by line on EDM: the corrector uses the output at the prediction, and steps from x^c."""
    t = np.geomspace(20.0, 0.5, 9)
    lam = -np.log(t)
    x, outputs = 20 * start, [denoised(20 * start, 1.0, t[0])]
    for i in range(8):
        h = lam[i + 1] - lam[i]
        gain = -np.expm1(-h)
        base = t[i + 1] / t[i] * x + gain * outputs[-1]
        r = (lam[i - 1] - lam[i]) / h if i > 0 else np.nan
        slope = (outputs[-2] - outputs[-1]) / r if i > 0 else 0 * x
        predicted = base + gain / 2 * slope
        if i == 7:
            break
        new = denoised(predicted, 1.0, t[i + 1])
        if i == 0:
            x = base + gain / 2 * (new - outputs[-1])
        else:
            fine = (np.arange(20000) + 0.5) / 20000  # moments by the midpoint rule: 1e-9 here
            m1, m2 = (np.mean(np.exp(-h * (1 - fine)) * fine**k) * h for k in (1, 2))
            y_old, y_new = np.linalg.solve([[1, 1], [r, 1]], [m1, m2])
            x = base + y_old * slope + y_new * (new - outputs[-1])
        outputs.append(new)
    table = UniPC(lower_order_final=False).tableau(EDM(), t)
    np.testing.assert_allclose(walk(table, 20 * start, NONE, denoised)[-1], predicted, rtol=1e-7)


def chain(schedule, steps):
    """A variance-preserving grid, its products and the per-step alphas (index 0 is the last step)."""
    times = np.linspace(0.9, 0.05, steps + 1)
    products = schedule.alpha(times) ** 2
    return times, products, products[:-1] / products[1:]


def score(denoised, x, product):
    alpha, sigma = np.sqrt(product), np.sqrt(1 - product)
    return (alpha * denoised(x, alpha, sigma) - x) / sigma**2


def test_accelerated_sde_is_its_chain_in_alphas(walk, denoised, start, noises):
    times, products, steps = chain(VP(), 30)
    x, drawn = start, iter(noises)
    for i, alpha in enumerate(steps):
        raised = x + np.sqrt((1 - alpha) / 2) * next(drawn)
        pulled = raised + (1 - alpha) * score(denoised, raised, products[i])
        x = (pulled + np.sqrt((1 - alpha) / 2) * next(drawn)) / np.sqrt(alpha)
    table = AcceleratedSDE().tableau(VP(), times)
    np.testing.assert_allclose(walk(table, start, noises, denoised)[-1], x, rtol=1e-9)
    assert (table.rows, table.nodes, table.draws.sum(), table.reach) == (61, 30, 60, 1)


def test_accelerated_ode_is_its_chain_in_alphas_up_to_higher_order(walk, denoised, start):
    """With alphas in the correction instead of lengths in v: apart by the third order a step, the second in all."""
    apart = []
    for count in (100, 200, 400):
        times, products, steps = chain(VP(), count)
        x = start
        for i, alpha in enumerate(steps):
            here = score(denoised, x, products[i])
            pulled = x + (1 - alpha) / 2 * here
            if i > 0:
                before = steps[i - 1]
                back = np.sqrt(before) * (x - (1 - before) / 2 * here)
                bend = here - np.sqrt(before) * score(denoised, back, products[i - 1])
                pulled += (1 - alpha) ** 2 / (4 * (1 - before)) * bend
            x = pulled / np.sqrt(alpha)
        table = AcceleratedODE().tableau(VP(), times)
        assert (table.rows, table.nodes, table.reach) == (2 * count, 2 * count - 1, 2)
        apart.append(np.abs(walk(table, start, NONE, denoised)[-1] - x).max())
    assert np.log2(apart[0] / apart[2]) / 2 == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("schedule", SIGNAL, ids=by_name)
@pytest.mark.parametrize("sampler", [AcceleratedODE(), AcceleratedSDE()], ids=repr)
def test_accelerated_samplers_hold_on_every_schedule(sampler, schedule):
    times = grids.default(schedule, 20)
    table = sampler.tableau(schedule, times)
    assert np.array_equal(table.alpha, schedule.alpha(table.t))
    assert np.array_equal(table.sigma, schedule.sigma(table.t))
    assert table.form is Form.SCORE
    assert table.t[-1] == times[-1]
    # without any force the mean follows alpha, and the noise adds up to what the forward diffusion has added
    u, _, noise = table.gains()
    np.testing.assert_allclose(u * table.alpha[0], table.alpha, rtol=1e-9)
    if table.noisy:
        lost = (table.sigma[0] / table.alpha[0]) ** 2 - (table.sigma[-1] / table.alpha[-1]) ** 2
        np.testing.assert_allclose((noise[-1] ** 2).sum(), table.alpha[-1] ** 2 * lost, rtol=1e-9)


PARALLEL = [
    UniPC(),
    UniPC(order=3, variant="bh1", lower_order_final=False),
    DEIS(),
    DEIS(order=3, variable="rho"),
    DEIS(order=1, variable="time", short=0),
    AcceleratedODE(),
    AcceleratedSDE(),
]


@pytest.mark.parametrize("window", [pd.Whole(), pd.Sliding(1), pd.Sliding(5), pd.Blocks(3)], ids=repr)
@pytest.mark.parametrize("sampler", PARALLEL, ids=repr)
def test_parallel_is_sequential_to_the_bit(sampler, window):
    schedule = VP()
    model = pd.GaussianMixture([0.4, 0.6], [[1.0, 0.5], [-1.0, 0.2]], 0.05, schedule, form=Form.NOISE)
    request = dict(sampler=sampler, steps=18, seed=3, dtype=torch.float64)
    one = pd.sample(model, (2, 2), **request, solver=pd.sequential())
    two = pd.sample(model, (2, 2), **request, window=window, tol=0.0)
    assert torch.equal(one.samples, two.samples)


@pytest.mark.parametrize("sampler", PARALLEL, ids=repr)
def test_parallel_needs_fewer_rounds(sampler):
    model = pd.GaussianMixture([0.4, 0.6], [[1.0, 0.5], [-1.0, 0.2]], 0.3, VP())
    request = dict(sampler=sampler, steps=40, seed=3, dtype=torch.float64)
    one = pd.sample(model, (2, 2), **request, solver=pd.sequential())
    two = pd.sample(model, (2, 2), **request, window=pd.Whole(), tol=1e-3)
    assert float((two.samples - one.samples).abs().max()) < 1e-3 * model.variance**0.5
    assert two.stats.rounds <= one.stats.rounds / 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniPC(order=1), "expected order 2 or 3, found 1"),
        (lambda: UniPC(variant="bh3"), "expected variant 'bh1' or 'bh2', found 'bh3'"),
        (lambda: DEIS(order=4), "expected an order from 0 to 3, found 4"),
        (lambda: DEIS(variable="snr"), "expected variable 'log-rho', 'rho' or 'time', found 'snr'"),
        (lambda: AcceleratedODE().tableau(Flow(), [1.0, 0.5]), "found alpha = 0 at t=1.0: start the grid later"),
        (lambda: AcceleratedSDE().tableau(Flow(), [1.0, 0.5]), "found alpha = 0 at t=1.0: start the grid later"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SpecError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sampler", PARALLEL, ids=repr)
def test_repr_round_trip(sampler):
    assert eval(repr(sampler)) == sampler
    assert hash(eval(repr(sampler))) == hash(sampler)
