"""The problem set: parallel answers are sequential ones, networks are what their recipes say, classes hold still."""

import functools

import pytest
import torch

import paradrift as pd
from paradrift.bench import model_set
from paradrift.bench.networks import chains, judge, kept, plane, policy, training
from paradrift.bench.networks import graph as graph_network
from paradrift.bench.networks.kept import Recipe
from paradrift.bench.turned import Turned, hadamard

TINY = Recipe(steps=3, batch=8, rate=1e-3)
SETTLED = pd.default(0.0, pd.Sliding(4))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "paradrift"


def rms(difference):
    return difference.double().flatten(1).square().mean(1).sqrt()


def batching_noise(model, rows=8):
    """Largest difference of an output evaluated alone and in a batch, relative to the rms of outputs."""
    denoiser = model.denoiser(rows)
    times = model.problem(model.ode, rows + 1).times[:rows]
    x, t = torch.randn(rows, *model.shape, dtype=model.dtype), torch.as_tensor(times, dtype=torch.float64)
    sample = torch.arange(rows)
    with torch.inference_mode():
        together = denoiser(x, t, sample)
        alone = torch.cat([denoiser(x[i : i + 1], t[i : i + 1], sample[i : i + 1]) for i in range(rows)])
    return float(rms(together - alone).max() / together.square().mean().sqrt())


EXACT = [model_set.gaussian, model_set.mixture_64, model_set.mixture_1024]
LEARNED = [model_set.plane, model_set.policy, model_set.graph]


@functools.cache
def learned(build):
    return build(TINY)  # trained once for all tests, when it is first called


@pytest.mark.parametrize("build", EXACT)
@pytest.mark.parametrize("stochastic", [False, True])
def test_exact_models_give_the_sequential_answer_to_the_last_bit(build, stochastic):
    model = build()
    problem = model.problem(model.sde if stochastic else model.ode, 10)
    parallel, sequential = problem.solve(2, SETTLED), problem.solve(2, pd.sequential())
    assert parallel.converged
    assert torch.equal(parallel.samples, sequential.samples)


@pytest.mark.parametrize("build", LEARNED)
@pytest.mark.parametrize("stochastic", [False, True])
def test_networks_give_the_sequential_answer_to_the_last_bit_one_row_a_call(build, stochastic):
    model = learned(build)
    problem = model.problem(model.sde if stochastic else model.ode, 6)
    parallel, sequential = problem.solve(2, SETTLED, max_rows=1), problem.solve(2, pd.sequential(), max_rows=1)
    assert torch.equal(parallel.samples, sequential.samples)


@pytest.mark.parametrize("build", LEARNED)
def test_networks_give_the_sequential_answer_within_their_own_batching_noise(build):
    model = learned(build)
    problem = model.problem(model.ode, 10)
    parallel, sequential = problem.solve(3, SETTLED), problem.solve(3, pd.sequential())
    scale = sequential.samples.square().mean().sqrt()
    assert float(rms(parallel.samples - sequential.samples).max() / scale) <= 20 * max(batching_noise(model), 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("model", model_set.model_set(), ids=lambda model: model.name)
def test_every_model_of_the_set_converges_below_its_tolerance(model, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    for sampler, steps in ((model.ode, 50), (model.sde, 50)):
        problem = model.problem(sampler, steps)
        parallel, sequential = problem.solve(4, pd.default(1e-2, pd.Sliding(32))), problem.solve(4, pd.sequential())
        assert parallel.converged
        variance = model.denoiser(4).variance
        assert float(rms(parallel.samples - sequential.samples).median()) <= 1e-2 * variance**0.5
        if model.classes is not None:
            assert torch.equal(model.classes(parallel.samples), model.classes(sequential.samples))


def test_names_differ_and_every_model_offers_all_numbers_of_steps(monkeypatch):
    chosen = [*(build() for build in EXACT), *(learned(build) for build in LEARNED)]
    names = [model.name for model in model_set.model_set()]
    assert len(set(names)) == len(names)
    assert {model.name for model in chosen} <= set(names)
    for model in chosen:
        for steps in (10, 25, 50, 100, 250, 1000):
            assert model.problem(model.ode, steps).steps == steps


def test_data_have_the_unit_of_tolerances_that_their_models_declare():
    generator = torch.Generator().manual_seed(3)
    boards = plane.data(20_000, generator)
    molecules = chains.chains(4000, generator)
    paths = policy.demonstrations(policy.observations(4000, generator), generator)
    # the spread of each sample variance is below 1.5 %, so 6 % is four of them
    for model, data in ((model_set.plane, boards), (model_set.graph, molecules), (model_set.policy, paths)):
        assert learned(model).denoiser(1).variance == pytest.approx(float(data.var()), rel=0.06)


def test_classes_are_those_of_the_data_and_hold_still_under_small_changes():
    generator = torch.Generator().manual_seed(4)
    seen = policy.episodes()[:500]
    for classes, data in (
        (model_set.nearest(plane.centres()), plane.data(500, generator)),
        (chains.conformers, chains.chains(500, generator)),
        (policy.classes, policy.demonstrations(seen, generator)),
        (model_set.mixture_1024().classes, model_set.families().repeat(5, 1)),
    ):
        assert classes is not None
        found = classes(data)
        assert len(found.unique()) > 1
        moved = classes(data + 1e-3 * torch.randn(data.shape, dtype=data.dtype, generator=generator))
        assert torch.equal(found, moved)


def test_conformers_are_the_wells_that_torsions_were_drawn_in():
    generator = torch.Generator().manual_seed(5)
    places = chains.chains(2000, generator)
    lengths = places.diff(dim=1).norm(dim=2)
    assert float(lengths.mean()) == pytest.approx(1, abs=2e-3)
    wells = torch.stack([chains.conformers(places) // 3**k % 3 for k in range(chains.BEADS - 3)], 1)
    share = wells.flatten().bincount(minlength=3) / wells.numel()
    assert share.tolist() == pytest.approx(chains.SHARES, abs=0.02)  # five standard deviations
    zigzag = torch.tensor([[k, k % 2, 0.0] for k in range(chains.BEADS)])[None]
    assert chains.conformers(zigzag).tolist() == [0]
    mirrored = chains.conformers(places * torch.tensor([1.0, 1.0, -1.0]))
    swapped = (torch.tensor([0, 2, 1])[wells] * 3 ** torch.arange(chains.BEADS - 3)).sum(1)
    assert torch.equal(mirrored, swapped)


def test_the_graph_network_turns_with_its_molecule_and_knows_the_noise_of_the_centre_of_mass():
    denoiser = learned(model_set.graph).denoiser(1)
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(5, chains.BEADS, 3, dtype=torch.float64, generator=generator)
    t, sample = torch.full((5,), 300.0), torch.zeros(5, dtype=torch.int64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    out = denoiser(x, t, sample)
    assert torch.allclose(denoiser(x @ turn, t, sample), out @ turn, atol=1e-5)
    sigma = float(graph_network.SCHEDULE.sigma(300.0))
    assert torch.allclose(out.mean(1), x.mean(1) / sigma, atol=1e-5)
    shift = torch.randn(5, 1, 3, dtype=torch.float64, generator=generator)
    assert torch.allclose(denoiser(x + shift, t, sample), out + shift / sigma, atol=1e-5)


def test_a_preconditioned_network_that_says_nothing_is_exact_for_gaussian_data():
    schedule, times = graph_network.SCHEDULE, torch.tensor([0, 100, 500, 999])
    exact = pd.Gaussian(mean=torch.zeros(3), variance=0.7, schedule=schedule, form=pd.Form.NOISE)
    alpha, sigma = (level[times][:, None].double() for level in training.levels(schedule))
    x = torch.randn(4, 3, dtype=torch.float64)
    found = training.preconditioned(torch.zeros_like, x, alpha, sigma, 0.7)
    assert torch.allclose(found, exact(x, times.double()), atol=1e-6)


def test_the_policy_goes_by_the_observation_of_its_sample():
    denoiser = learned(model_set.policy).denoiser(3)
    x, t = torch.zeros(3, policy.HORIZON, policy.ACTIONS), torch.full((3,), 100.0)
    out = denoiser(x, t, torch.tensor([0, 1, 0]))
    # Rows of one batch differ by the network's own rounding, more on some processors than on others.
    torch.testing.assert_close(out[0], out[2], rtol=0, atol=1e-5)
    assert (out[0] - out[1]).abs().max() > 1e-2


@pytest.mark.parametrize("module", [plane, policy, graph_network])
def test_training_twice_gives_the_same_weights_and_another_seed_others(module, cache):
    torch.manual_seed(1)
    first = module.network(TINY).state_dict()
    files = list(cache.iterdir())
    assert len(files) == 1
    files[0].unlink()
    torch.manual_seed(2)
    second = module.network(TINY).state_dict()
    third = module.network(Recipe(steps=3, batch=8, rate=1e-3, seed=1)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_training_leaves_the_callers_random_numbers_threads_and_gradients_alone():
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch.inference_mode():
        net = plane.network(TINY)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not net.training
    assert not any(weight.requires_grad for weight in net.parameters())


def test_the_judge_learns_from_the_models_own_pictures():
    net = judge.network(Recipe(steps=60, batch=10, rate=4e-3), 10)
    with torch.inference_mode():
        told = net(judge.pictures(10)).argmax(1)
    assert int((told == torch.arange(10)).sum()) >= 8  # one of each digit, learned by heart


@pytest.mark.slow
def test_the_judge_agrees_with_the_labels_of_pictures_it_never_saw(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    fresh = judge.pictures(100, seed=12)
    assert float((judge.classes(fresh) == torch.arange(100) % 10).double().mean()) >= 0.97


def counting(calls):
    def train(net):
        calls.append(1)
        torch.nn.init.constant_(net.weight, 0.5)

    return train


def small():
    return torch.nn.Linear(3, 2, bias=False)


def test_a_kept_network_is_trained_once_and_read_afterwards(cache):
    calls = []
    for _ in range(3):
        net = kept.kept(small, "small", TINY, (plane,), counting(calls))
        assert torch.equal(net.weight, torch.full((2, 3), 0.5))
    assert len(calls) == 1
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("damage", ["half", "empty", "weight", "words"])
def test_a_damaged_file_is_trained_and_written_anew(cache, damage):
    calls = []
    kept.kept(small, "small", TINY, (plane,), counting(calls))
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    broken = {
        "half": whole[: len(whole) // 2],
        "empty": b"",
        "weight": whole[:-1] + bytes([whole[-1] ^ 1]),
        "words": b"not a network" * 20,
    }
    path.write_bytes(broken[damage])
    net = kept.kept(small, "small", TINY, (plane,), counting(calls))
    assert torch.equal(net.weight, torch.full((2, 3), 0.5))
    assert len(calls) == 2
    assert path.read_bytes() == whole


def test_another_recipe_or_other_code_has_another_file_and_other_words_have_not(cache):
    calls = []
    kept.kept(small, "small", TINY, (plane,), counting(calls))
    kept.kept(small, "small", Recipe(steps=5, batch=16, rate=1e-3), (plane,), counting(calls))
    kept.kept(small, "small", TINY, (policy,), counting(calls))
    assert len(calls) == len(list(cache.iterdir())) == 3
    assert kept.code('def f():\n    """Words."""\n    return 1') == kept.code(
        'def f():\n    "Others."\n    return 1  # a'
    )
    assert kept.code("def f():\n    return 1") != kept.code("def f():\n    return 2")


def test_a_network_that_cannot_be_kept_is_trained_all_the_same(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    with pytest.warns(UserWarning, match="expected to keep a trained network"):
        net = kept.kept(small, "small", TINY, (plane,), counting([]))
    assert torch.equal(net.weight, torch.full((2, 3), 0.5))


def test_turned_data_are_the_same_data_along_other_axes():
    x = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hadamard(hadamard(x)), x, atol=1e-14)
    assert torch.allclose(hadamard(torch.eye(4, dtype=torch.float64)[:1]), torch.full((1, 4), 0.5, dtype=torch.float64))
    straight = pd.Gaussian(mean=torch.arange(8.0), variance=torch.linspace(0.1, 2, 8), schedule=pd.VP())
    turned, t = Turned(straight), torch.full((3,), 0.4, dtype=torch.float64)
    axes = hadamard(torch.eye(8, dtype=torch.float64))
    covariance = axes.mT @ torch.diag(torch.linspace(0.1, 2, 8, dtype=torch.float64)) @ axes
    dense = pd.Gaussian(mean=torch.arange(8.0).double() @ axes, variance=covariance, schedule=pd.VP())
    assert torch.allclose(turned(x, t), dense(x, t), atol=1e-6)
    assert torch.equal(turned(x, t)[1:2], turned(x[1:2], t[1:2]))
