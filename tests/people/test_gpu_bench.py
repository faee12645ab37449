"""The GPU script: its parts against closed forms, and all of it in tiny form wherever this runs."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import paradrift as pd
from paradrift.bench import gpu_predict, gpu_rounds, gpu_sized, gpu_trained, jobs, records, ways
from paradrift.bench.jobs import Clock, Job
from paradrift.bench.models import Model
from paradrift.bench.records import Record
from paradrift.bench.ways import Way
from paradrift.errors import SpecError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
CPU = torch.device("cpu")


def record(part: str, key: str, **changes) -> Record:
    extra = {"key": key, "job": key, "part": part, **changes.pop("extra", {})}
    given = dict(problem="net", method="m", sampler="DDIM", steps=50, window="none", tol=None, samples=1, seconds=1.0)
    counts = dict(rounds_mean=1.0, rounds_max=1, evaluations=1)
    return Record(**{**given, **counts, **changes}, extra=extra)


def test_a_captured_call_is_padded_and_answers_for_its_own_rows():
    made = []

    def capture(net, inputs, names, beside):
        made.append((len(inputs[0]), beside))
        output = torch.empty_like(inputs[0])

        def replay():
            output.copy_(net(inputs[0], inputs[1], **dict(zip(names, inputs[2:], strict=True))))

        return ways.Fixed(inputs=inputs, output=output, replay=replay)

    def net(x, t, shift):
        return x * t[:, None] + shift

    fast, kept = ways.Captured(net, capture), []
    for rows in (5, 6, 1, 2, 6):
        x, t, shift = torch.randn(rows, 3), torch.rand(rows), torch.randn(rows, 3)
        with torch.inference_mode():
            kept.append((fast(x, t, shift=shift), net(x, t, shift)))
    for found, expected in kept:  # those of earlier calls too: a replay must not change what was handed out
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [rows for rows, _ in made] == [6, 1, 2]
    first = fast.calls[next(iter(fast.calls))]
    assert [beside for _, beside in made] == [None, first, first]


def test_a_model_is_rebuilt_around_another_network_and_only_networks_are():
    schedule = pd.Discrete.linear(100)
    label = {"label": torch.ones(1)}

    def net(x, t, label):
        return x + label[:, None]

    inner = pd.denoiser(net, predicts="noise", schedule=schedule, conditioning=label, unconditional=label)
    model = pd.Clipped(pd.Guided(inner, 3.0), 50.0)
    twice = ways.rebuilt(model, lambda own: lambda x, t, **given: 2 * own(x, t, **given))
    x, t, sample = torch.randn(2, 3), torch.tensor([3.0, 50.0]), torch.zeros(2, dtype=torch.int64)
    p, q = (torch.as_tensor(w, dtype=torch.float32)[:, None] for w in _data(schedule, t))
    torch.testing.assert_close(twice(x, t, sample), p * x + q * 2 * (x + 1))
    assert gpu_trained.halves(twice) == 2
    assert gpu_trained.halves(inner) == 1
    with pytest.raises(SpecError, match="expected a network"):
        ways.rebuilt(pd.Gaussian(mean=torch.zeros(1), variance=torch.ones(1), schedule=schedule), lambda own: own)


def _data(schedule: pd.Discrete, t: torch.Tensor):
    alpha, sigma = schedule.alpha(t.numpy()), schedule.sigma(t.numpy())
    return 1 / alpha, -sigma / alpha


def test_rounds_are_told_row_by_row():
    schedule = pd.Discrete.linear(100)
    net = pd.denoiser(lambda x, t: 0.5 * x, predicts="noise", schedule=schedule, variance=1.0)
    model = Model(name="half", denoiser=lambda samples: net, shape=(4,), ode=pd.DDIM(), sde=pd.DDPM())
    trained = gpu_trained.Trained(model=model, device=CPU)
    (found,) = gpu_rounds.rounds(trained, "ode", 12, 4, Way.EAGER, 2)
    runs = gpu_rounds.unpacked(str(found.extra["rows"]))
    assert len(runs) == 2
    assert found.rounds_mean == sum(map(len, runs)) / 2
    assert found.evaluations == round(sum(map(sum, runs)) / 2)
    assert found.error_worst is not None
    assert found.error_worst < gpu_trained.TOL


def test_predictions_are_sums_of_costs_and_the_sequential_sampler_is_a_window():
    found = [
        record("cost", "a1", extra={"dtype": "h", "way": "eager"}, samples=1, seconds=3.0),
        record("cost", "a8", extra={"dtype": "h", "way": "eager"}, samples=8, seconds=10.0),
        record("cost", "b1", extra={"dtype": "h", "way": "fast"}, samples=1, seconds=1.0),
        record("cost", "b4", extra={"dtype": "h", "way": "fast"}, samples=4, seconds=4.0),
        record("cost", "b8", extra={"dtype": "h", "way": "fast", "failed": "out of memory"}, samples=8),
    ]
    rounds = [("4", "4x8", 1.0), ("8", "8x3 1", 2.0)]
    for window, rows, aside in rounds:
        extra = {"kind": "ode", "nodes": 50, "one": 1, "rows": rows, "aside": aside}
        found.append(record("rounds", f"r{window}", problem="digits", window=window, extra=extra))
    slow, fast = gpu_predict.predictions(found)
    # eager: 8 calls of 4 rows cost 6 each, 3 of 8 rows and one of 1 cost 33; the fastest step of all costs 1
    assert (slow.method, slow.window, slow.seconds, slow.sequential_seconds) == ("eager, h", "8", 35.0, 50.0)
    assert slow.extra["ceiling"] == pytest.approx(50 / 33)
    assert slow.extra["speedup"] == pytest.approx(50 / 35)
    assert gpu_predict.best([*found, slow, fast]) == [fast]
    # beyond the largest call that fitted, costs grow in proportion: 3 * 8 + 1
    assert (fast.window, fast.seconds) == ("8", 27.0)
    dear = [dataclasses.replace(each, seconds=100.0) if each.samples > 1 else each for each in found]
    assert {(each.window, each.extra["speedup"]) for each in gpu_predict.predictions(dear)} == {("1", 1.0)}


def test_aims_take_the_best_of_all_ways_on_both_sides():
    race = [
        record("race", "a", problem="digits", steps=1000, sequential_seconds=12.0, extra={"kind": "sde"}),
        record("race", "b", problem="digits", steps=1000, sequential_seconds=9.0, seconds=0.5, extra={"kind": "sde"}),
        record("race", "c", problem="digits", steps=50, sequential_seconds=0.9, extra={"kind": "ode"}),
    ]
    extra = {"rounds_of": "digits", "dtype": "bfloat16", "speedup": 1.4}
    ten, third, never = gpu_predict.aims([*race, record("predicted", "p", problem="unet", extra=extra)], "unet")
    assert ten.endswith("trained networks: met: digits sde 1000 18.00")
    assert third.endswith("predicted: met: rounds of digits 1.40")
    assert never.endswith("planned window: missed: digits ode 50 0.90, digits sde 1000 18.00")
    assert [words.rpartition(": ")[2] for words in gpu_predict.aims([], "unet")] == ["not measured"] * 3


def test_work_goes_on_after_failures_and_where_it_was_cut_off():
    ran = []

    def job(key: str, needs: float = 0.0) -> Job:
        def run():
            ran.append(key)
            if key == "full":
                raise RuntimeError("CUDA out of memory. Tried to allocate")
            if key == "odd":
                raise TypeError("no\nsuch thing")
            return [record("race", key)]

        return Job(key=key, part="race", problem="net", method=key, steps=1, samples=1, run=run, needs=needs)

    planned = [job("a"), job("full"), job("odd"), job("long", needs=1e6), job("b")]
    events = list(jobs.work(planned, [], Clock(60)))
    found = [event for event in events if isinstance(event, Record)]
    assert [each.extra["job"] for each in found] == ["a", "full", "odd", "b"]
    assert [each.extra.get("failed") for each in found] == [None, "out of memory", "TypeError: no", None]
    assert events[-1] == "skipped, for want of time: race of net, 1 measurements"
    ran.clear()
    assert not list(jobs.work(planned, found, Clock(-1)))[:-1]
    assert ran == []
    list(jobs.work(planned, found, Clock(60)))
    assert ran == ["odd"]  # what did not fit will not fit


def test_the_large_networks_have_the_published_sizes():
    with torch.device("meta"):
        assert sum(weight.numel() for weight in gpu_sized.unet().parameters()) == 859_520_964
        deep = gpu_sized.dit(layers=2)
    width = 16 * 72
    blocks = sum(
        weight.numel() for name, weight in deep.named_parameters() if ".1." in name and "norm1.emb" not in name
    )
    # attention 4 w^2, perceptron 8 w^2, modulation 6 w^2, and their biases 4 w, 5 w, 6 w
    assert blocks == 18 * width**2 + 15 * width


def script():
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look their names up
    spec.loader.exec_module(module)
    app = typer.Typer()
    app.command()(module.main)
    return module, lambda *words: CliRunner().invoke(app, words)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = script()[1]()
    assert result.exit_code != 0
    assert "expected a GPU, found none" in result.output


@pytest.mark.slow
def test_the_whole_script_runs_in_tiny_form_and_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module, run = script()
    path, tuned = tmp_path / "gpu.jsonl", torch.backends.cudnn.benchmark
    try:
        result = run("--tiny", "--out", str(path))
        assert result.exit_code == 0, result.output
        found = records.load(path)
        again = run("--tiny", "--resume", "--out", str(path))
    finally:
        torch.backends.cudnn.benchmark = tuned
    json.loads(path.read_text().splitlines()[0], parse_constant=pytest.fail)
    assert not [each.extra["failed"] for each in found if "failed" in each.extra]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    planned = [job.key for job in module.plan(module.tiny(), device)]
    assert len(set(planned)) == len(planned)
    assert {each.extra["job"] for each in found} == {*planned, "predicted"}
    assert {each.extra["part"] for each in found} == {"race", "rounds", "cost", "predicted"}
    for each in gpu_predict.measured(found, "race") + gpu_predict.measured(found, "rounds"):
        assert each.error_worst is not None
        assert each.error_worst < gpu_trained.TOL
        assert each.machine
        assert each.versions == records.versions()
    assert {each.problem for each in gpu_predict.measured(found, "race")} == set(module.NAMES)
    assert all(float(each.extra["speedup"] or 0) >= 1 for each in gpu_predict.measured(found, "predicted"))
    assert "nowhere below" in result.output
    assert again.exit_code == 0, again.output
    assert {each.extra["part"] for each in records.load(path)[len(found) :]} == {"predicted"}


@pytest.mark.cuda
@pytest.mark.parametrize("way", [Way.GRAPHS, Way.BOTH])
def test_on_a_gpu_every_way_gives_the_same_answer(way):
    model = Model(
        name="digits",
        denoiser=lambda samples: pd.pretrained("digits"),
        shape=(1, 28, 28),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
    )
    trained = gpu_trained.Trained(model=model, device=torch.device("cuda"))
    problem = trained.problem("ode", 10)
    solver = pd.default(1e-3, window=pd.Sliding(6))
    expected, _ = trained.solve(trained.denoiser(Way.EAGER), problem, pd.sequential(), 1)
    found, _ = trained.solve(trained.denoiser(way), problem, solver, 1)
    torch.testing.assert_close(found.samples, expected.samples, rtol=0, atol=5e-3)
