"""Noise is a function of its address: known answers, distribution, and bitwise independence of everything else.

Statistical tests use fixed seeds, so they cannot flicker; their thresholds would be crossed by a correct generator with
a probability below 1e-6 each.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
import torchsde
from diffusers import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor

from paradrift.errors import SpecError
from paradrift.noise import Brownian, Buffered, Drawn, Given, Noise, Philox
from paradrift.noise.counter import normals, philox

RARE = 1e-6


def _index(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _window(low: int, high: int, samples: int) -> torch.Tensor:
    return torch.arange(low, high).expand(samples, -1)


# --- Philox: the words


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
@pytest.mark.parametrize("tensor_key", [False, True])
def test_philox_gives_the_known_answers(counter: str, key: str, answer: str, tensor_key: bool) -> None:
    """The vectors published with Random123 for philox4x32-10."""
    words = tuple(torch.tensor([int(word, 16)]) for word in counter.split())
    keys = tuple(int(word, 16) for word in key.split())
    found = philox(words, tuple(torch.tensor([word]) for word in keys) if tensor_key else keys)
    assert [int(word) for word in found] == [int(word, 16) for word in answer.split()]


def test_normals_are_box_and_mullers() -> None:
    words = tuple(torch.randint(0, 2**32, (5000,)) for _ in range(4))
    extremes = tuple(torch.tensor([0, 2**32 - 1, 2**31, 1]) for _ in range(4))
    for given in (words, extremes):
        found = normals(given).double().numpy()
        for radial, angular, pair in ((0, 1, found[:, :2]), (2, 3, found[:, 2:])):
            radius = np.sqrt(-2 * np.log((given[radial].numpy() + 0.5) / 2**32))
            angle = ((given[angular].numpy() >> 2) + 0.5) / 2**30 * np.pi / 2
            expected = np.abs(np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1))
            np.testing.assert_allclose(np.abs(pair), expected, atol=1e-11)
            bits = given[angular].numpy()
            np.testing.assert_array_equal(np.signbit(pair[:, 0]), bits % 2 == 1)
            np.testing.assert_array_equal(np.signbit(pair[:, 1]), bits // 2 % 2 == 1)


# --- Philox: the distribution


def test_normals_have_the_normal_distribution() -> None:
    drawn = Philox(seed=1, shape=(50, 25), dtype=torch.float64).draw(torch.arange(8), _window(0, 50, 8)).flatten()
    assert scipy.stats.kstest(drawn.numpy(), "norm").pvalue > RARE
    for power, moment in enumerate([0.0, 1.0, 0.0, 3.0, 0.0, 15.0], start=1):
        values = drawn**power
        assert abs(float((values.mean() - moment) / values.std()) * len(drawn) ** 0.5) < 5
    tail = float((drawn.abs() > 4).double().mean())
    assert scipy.stats.binomtest(round(tail * len(drawn)), len(drawn), 2 * scipy.stats.norm.sf(4)).pvalue > RARE


def test_four_hundred_streams_are_each_normal() -> None:
    """Kolmogorov's distance of each of 400 streams of 256 values; the smallest p-value, corrected for the number."""
    drawn = Philox(seed=2, shape=(256,), dtype=torch.float64).draw(torch.arange(400), _window(3, 4, 400))[:, 0]
    smallest = min(scipy.stats.kstest(stream, "norm").pvalue for stream in drawn.numpy())
    assert smallest * 400 > RARE


def test_seeds_samples_columns_and_elements_are_uncorrelated() -> None:
    """Correlations of 4096-element streams are normal with deviation 1/64: none of 1128 pairs beyond 7 deviations."""
    sources = [Philox(seed=seed, shape=(4096,), dtype=torch.float64) for seed in (0, 1, 2**32, 2**63)]
    streams = torch.cat([source.draw(_index(0, 1, 2), _window(-1, 3, 3)).flatten(0, 1) for source in sources])
    correlations = torch.corrcoef(streams) * 64
    assert len(streams) == 48
    assert correlations.fill_diagonal_(0).abs().max() < 7
    for lag in (1, 2, 3, 4):  # neighbours share a block of four
        products = streams[:, :-lag] * streams[:, lag:]
        assert abs(float(products.mean() / products.std())) * products.numel() ** 0.5 < 5
        squares = (streams[:, :-lag] ** 2 - 1) * (streams[:, lag:] ** 2 - 1)  # the pair shares its radius and angle
        assert abs(float(squares.mean() / squares.std())) * squares.numel() ** 0.5 < 5


# --- Philox: the address


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (3, 5, 7)])
@pytest.mark.parametrize("seed", [7, [7, 8, 9, 10, 11]])
def test_noise_depends_on_its_address_alone(seed: int | list[int], shape: tuple[int, ...], dtype: torch.dtype) -> None:
    noise = Philox(seed=seed, shape=shape, dtype=dtype)
    everything = noise.draw(torch.arange(5), _window(0, 9, 5))
    assert everything.shape == (5, 9, *shape)
    assert everything.dtype == dtype
    for sample in range(5):
        for column in range(9):
            alone = noise.draw(_index(sample), _index(column)[None])
            assert torch.equal(alone[0, 0], everything[sample, column])
    samples, columns = torch.randint(0, 5, (6,)), torch.randint(0, 9, (6, 4))
    assert torch.equal(noise.draw(samples, columns), everything[samples[:, None], columns])
    assert torch.equal(noise.start(_index(3)), noise.draw(_index(3), _index(-1)[None])[:, 0])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Philox(seed=3, shape=(10,), dtype=torch.float64)
    whole = noise.draw(torch.arange(4), _window(0, 13, 4))
    monkeypatch.setattr("paradrift.noise.philox._CHUNK", 7)
    assert torch.equal(noise.draw(torch.arange(4), _window(0, 13, 4)), whole)


def test_single_precision_is_double_precision_rounded() -> None:
    double = Philox(seed=3, shape=(100,), dtype=torch.float64).start(torch.arange(9))
    assert torch.equal(Philox(seed=3, shape=(100,)).start(torch.arange(9)), double.float())


def test_a_sample_can_be_redrawn_alone_from_its_seed() -> None:
    together = Philox(seed=[5, 2**40 + 1, 5], shape=(6,))
    alone = Philox(seed=2**40 + 1, shape=(6,))
    assert torch.equal(together.draw(_index(1), _index(4)[None]), alone.draw(_index(0), _index(4)[None]))
    assert torch.equal(together.start(_index(0)), together.start(_index(2)))


def test_a_buffer_changes_no_value_and_does_not_grow() -> None:
    noise = Philox(seed=4, shape=(900,))
    buffered = Buffered(noise, samples=8, columns=10_000)
    fronts = torch.zeros(8, dtype=torch.int64)
    sizes = []
    for _ in range(60):
        fronts = fronts + torch.randint(0, 7, (8,))
        samples = torch.randperm(8)[:5]
        columns = fronts[samples, None] + torch.arange(12)
        assert torch.equal(buffered.draw(samples, columns), noise.draw(samples, columns))
        buffered.release(int(fronts.min()))
        spread = int(fronts.max() - fronts.min()) + 12
        sizes.append(len(buffered._pages) * buffered._width <= spread + 2 * buffered._width)
    assert all(sizes)
    assert torch.equal(buffered.start(_index(2)), noise.start(_index(2)))


def test_a_buffer_that_is_never_released_stays_bounded_and_forgets_nothing() -> None:
    """Pages beyond the newest 64 go, and are made again, with the same values, where they are asked for again."""
    noise = Philox(seed=4, shape=(70_000,))  # a page is one column
    buffered = Buffered(noise, samples=1, columns=200)
    for first in range(0, 120, 8):
        buffered.draw(_index(0), (first + torch.arange(8))[None])
    assert len(buffered._pages) <= 65
    again = torch.tensor([[3, 119]])
    assert torch.equal(buffered.draw(_index(0), again), noise.draw(_index(0), again))


# --- Drawn: the sequential loop


def _generators(count: int) -> torch.Generator | list[torch.Generator]:
    if count == 0:
        return torch.Generator().manual_seed(11)
    return [torch.Generator().manual_seed(11 + sample) for sample in range(count)]


def _states(generators: torch.Generator | list[torch.Generator]) -> list[torch.Tensor]:
    return [one.get_state() for one in (generators if isinstance(generators, list) else [generators])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("count", [0, 3])
def test_drawn_noise_is_that_of_diffusers(count: int, dtype: torch.dtype) -> None:
    """Start, then one noise a step but the last, as a pipeline with DDPMScheduler takes them."""
    draws = np.array([False, True, True, False, True, False])
    theirs, ours = _generators(count), _generators(count)
    start = randn_tensor((3, 2, 5), generator=theirs, dtype=dtype)
    loop = {n: randn_tensor((3, 2, 5), generator=theirs, dtype=dtype) for n in np.flatnonzero(draws)}
    noise = Drawn(ours, draws, samples=3, shape=(2, 5), dtype=dtype)
    assert torch.equal(noise.start(torch.arange(3)), start)
    columns = torch.tensor([[0, 1, 2], [2, 3, 4], [1, 5, 3]])
    found = noise.draw(torch.arange(3), columns)
    for sample in range(3):
        for place, column in enumerate(columns[sample].tolist()):
            expected = loop.get(column, torch.zeros(3, 2, 5, dtype=dtype))[sample]
            assert torch.equal(found[sample, place], expected)
    noise.finish()
    assert all(map(torch.equal, _states(ours), _states(theirs)))


@pytest.mark.parametrize("asked", [None, 0, 1, 3])
@pytest.mark.parametrize("count", [0, 3])
def test_generators_end_where_the_loop_leaves_them_also_after_a_failure(count: int, asked: int | None) -> None:
    draws = np.array([False, True, True, True])
    theirs, ours = _generators(count), _generators(count)
    for _ in range(4):
        randn_tensor((3, 2), generator=theirs)
    noise = Drawn(ours, draws, samples=3, shape=(2,))
    if asked is not None:
        noise.draw(_index(0), _index(asked)[None])
    noise.finish()
    noise.finish()
    assert all(map(torch.equal, _states(ours), _states(theirs)))


def test_the_start_is_drawn_first_whatever_is_asked_first() -> None:
    loop = torch.Generator().manual_seed(0)
    start, first = torch.randn(2, 3, generator=loop), torch.randn(2, 3, generator=loop)
    noise = Drawn(torch.Generator().manual_seed(0), np.array([False, True]), samples=2, shape=(3,))
    assert torch.equal(noise.draw(_index(0, 1), _index(1, 1)[:, None])[:, 0], first)
    assert torch.equal(noise.start(_index(0, 1)), start)


def test_a_given_start_is_not_drawn() -> None:
    initial, generator = torch.randn(2, 3), torch.Generator().manual_seed(0)
    noise = Drawn(generator, np.array([False, True]), samples=2, shape=(3,), initial=initial)
    assert torch.equal(noise.start(_index(1)), initial[1:])
    expected = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise.draw(_index(0, 1), _index(1, 1)[:, None])[:, 0], expected)


def test_drawn_noise_is_kept_between_the_fronts_only() -> None:
    noise = Drawn(torch.Generator(), np.ones(100, bool), samples=1, shape=(2,))
    seen = noise.draw(_index(0), _window(0, 20, 1))
    noise.release(15)
    assert sorted(noise._held) == list(range(15, 20))
    assert torch.equal(noise.draw(_index(0), _window(15, 20, 1)), seen[:, 15:])
    with pytest.raises(SpecError, match="expected columns from 15 on, found 14, whose noise was released"):
        noise.draw(_index(0), _index(14)[None])


def test_drawn_noise_reproduces_a_ddpm_loop() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=10, clip_sample=False)
    scheduler.set_timesteps(10)
    theirs = torch.Generator().manual_seed(3)
    state = torch.randn(2, 1, 4, 4, generator=theirs)
    noise = Drawn(
        torch.Generator().manual_seed(3), np.array([False] + [True] * 9 + [False]), samples=2, shape=(1, 4, 4)
    )
    assert torch.equal(noise.start(torch.arange(2)), state)
    for step, t in enumerate(scheduler.timesteps, start=1):
        output = 0.1 * state
        without = scheduler.step(output, t, state, generator=torch.Generator().manual_seed(99)).prev_sample
        if step < 10:
            noiseless = without - scheduler._get_variance(t) ** 0.5 * torch.randn(
                2, 1, 4, 4, generator=torch.Generator().manual_seed(99)
            )
            own = noise.draw(torch.arange(2), _index(step, step)[:, None])[:, 0]
            without = noiseless + scheduler._get_variance(t) ** 0.5 * own
        state = scheduler.step(output, t, state, generator=theirs).prev_sample
        torch.testing.assert_close(without, state, rtol=1e-6, atol=1e-6)


# --- Given and Brownian


def test_given_noise_is_the_tensor() -> None:
    noises, initial = torch.randn(3, 6, 2), torch.randn(3, 2)
    source = Given(noises, initial)
    assert torch.equal(source.draw(_index(2, 0), torch.tensor([[1, 5], [0, 2]])), noises[[[2], [0]], [[1, 5], [0, 2]]])
    assert torch.equal(source.start(_index(1)), initial[1:2])


def _path(entropy: int = 5) -> torchsde.BrownianInterval:
    return torchsde.BrownianInterval(0.0, 1.0, size=(2, 400), entropy=entropy, dtype=torch.float64)


def test_coarse_and_fine_grids_share_a_brownian_path() -> None:
    path, initial, both = _path(), torch.zeros(2, 400, dtype=torch.float64), torch.arange(2)
    clock = np.array([0.0, 0.1, 0.15, 0.4, 0.45, 0.8, 1.0])
    fine = Brownian(path, clock, initial).draw(both, _window(1, 7, 2))
    coarse = Brownian(path, clock[::2], initial).draw(both, _window(1, 4, 2))
    weights = torch.from_numpy(np.sqrt(np.diff(clock)))[:, None]
    merged = (fine * weights).reshape(2, 3, 2, 400).sum(2)
    torch.testing.assert_close(coarse * torch.from_numpy(np.sqrt(np.diff(clock[::2])))[:, None], merged)
    assert scipy.stats.kstest(fine.flatten().numpy(), "norm").pvalue > RARE
    assert torch.corrcoef(fine.flatten(0, 1)).fill_diagonal_(0).abs().max() < 7 / 20


@pytest.mark.parametrize("backwards", [False, True])
def test_a_brownian_path_does_not_depend_on_the_window(backwards: bool) -> None:
    clock = np.linspace(0, 1, 12)
    clock = clock[::-1].copy() if backwards else clock
    initial, both = torch.zeros(2, 400, dtype=torch.float64), torch.arange(2)
    one = Brownian(_path(), clock, initial)
    singly = torch.cat([one.draw(both, _window(n, n + 1, 2)) for n in range(1, 12)], 1)
    other = Brownian(_path(), clock, initial)
    assert torch.equal(other.draw(both, _window(4, 9, 2)), singly[:, 3:8])
    assert torch.equal(other.draw(both, _window(1, 12, 2)), singly)
    assert torch.equal(other.draw(_index(1), _index(0, 12)[None]), torch.zeros(1, 2, 400, dtype=torch.float64))


# --- all


def test_every_source_speaks_the_protocol() -> None:
    initial = torch.zeros(2, 400, dtype=torch.float64)
    sources = [
        Philox(seed=0, shape=(400,)),
        Buffered(Philox(seed=0, shape=(400,)), samples=2, columns=3),
        Drawn(torch.Generator(), np.array([False, True, True]), samples=2, shape=(400,)),
        Given(torch.zeros(2, 3, 400), initial),
        Brownian(_path(), np.array([0.0, 0.5, 1.0]), initial),
    ]
    for source in sources:
        assert isinstance(source, Noise)
        assert source.start(_index(1, 0, 1)).shape == (3, 400)
        assert source.draw(_index(0, 1), _index(1, 2)[:, None]).shape == (2, 1, 400)
        source.release(2)
        source.finish()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Philox(seed=[], shape=(1,)), "expected a seed, or one for each sample, found an empty list"),
        (
            lambda: Philox(seed=[1], shape=(1,)).start(_index(1)),
            "expected one seed for each sample, found 1 for sample 1",
        ),
        (lambda: Philox(seed=0, shape=(2**35,)), r"expected at most 2\^34 elements"),
        (
            lambda: Drawn([torch.Generator()], np.ones(2, bool), samples=2, shape=()),
            "one for each of 2 samples, found 1",
        ),
        (
            lambda: Drawn(torch.Generator(), np.ones(2, bool), samples=2, shape=(3,), initial=torch.zeros(3)),
            r"expected a start of shape \(2, 3\), found \(3,\)",
        ),
        (lambda: Given(torch.zeros(2, 3, 4), torch.zeros(3, 4)), r"expected noises \(S, R, \*shape\)"),
        (lambda: Brownian(None, np.array([0.0, 0.5, 0.5]), torch.zeros(1)), "expected a strictly monotone clock"),
    ],
)
def test_wrong_sources_are_refused_in_one_sentence(make: object, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        make()  # pyright: ignore[reportCallIssue]


def _pair(radial: int, angular: int) -> tuple[float, float]:
    """Two normals from two words in Python's numbers, whose every operation IEEE 754 rounds correctly."""

    def series(coefficients: list[float], x: float) -> float:
        value = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            value = value * x + coefficient
        return value

    mantissa, exponent = math.frexp((radial + 0.5) * 2.0**-32)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = 2 * mantissa, exponent - 1
    ratio = (mantissa - 1) / (mantissa + 1)
    logarithm = ratio * series([2.0 / (2 * k + 1) for k in range(8)], ratio * ratio) + exponent * math.log(2)
    angle = ((angular >> 2) - 2.0**29 + 0.5) * (math.pi / 2 * 2.0**-30)
    cosine = series([(-1.0) ** k / math.factorial(2 * k) for k in range(7)], angle * angle)
    sine = angle * series([(-1.0) ** k / math.factorial(2 * k + 1) for k in range(7)], angle * angle)
    radius, signs = math.sqrt(-logarithm), (1 - (angular & 1) * 2, 1 - (angular & 2))
    return signs[0] * radius * (cosine - sine), signs[1] * radius * (cosine + sine)


def test_normals_on_the_host_are_ieee_arithmetic_to_the_last_bit() -> None:
    """Square roots above all: those of a vector library may be an ulp off."""
    counter = (np.arange(3000), np.full(3000, 6), np.full(3000, 2), np.zeros(3000, np.int64))
    words = philox(counter, (3, 0))
    expected = [
        _pair(*pair) for row in zip(*(word.tolist() for word in words), strict=True) for pair in (row[:2], row[2:])
    ]
    drawn = Philox(seed=3, shape=(12_000,), dtype=torch.float64).draw(_index(2), _index(5)[None])
    assert drawn.flatten().tolist() == [number for pair in expected for number in pair]


@pytest.mark.parametrize("module", [np.asarray, torch.from_numpy])
def test_words_are_the_same_from_numpy_and_torch(module: Callable[[np.ndarray], object]) -> None:
    counter = tuple(np.random.default_rng(0).integers(0, 2**32, shape) for shape in ((7,), (3, 1), (2, 1, 1), (1,)))
    words = philox(tuple(module(word) for word in counter), (5, 2**31))
    assert {tuple(word.shape) for word in words} == {(2, 3, 7)}
    for place in np.ndindex(2, 3, 7):
        at = [np.broadcast_to(word, (2, 3, 7))[place] for word in counter]
        alone = philox(tuple(torch.tensor([int(word)]) for word in at), (5, 2**31))
        assert [int(word[place]) for word in words] == [int(word) for word in alone]


def test_pages_are_no_longer_than_the_chain() -> None:
    noise = Buffered(Philox(seed=0, shape=(2,)), samples=1, columns=101)
    noise.draw(_index(0), _index(4)[None])
    assert noise._pages[0].shape == (1, 101, 2)
