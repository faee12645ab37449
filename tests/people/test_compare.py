"""The comparison: equal errors on curves with known answers, every method of the catalogue, resuming, pictures."""

import dataclasses
import functools
import itertools
import math
from operator import attrgetter

import matplotlib.image
import numpy as np
import pytest
import torch

import paradrift as pd
from paradrift.bench import (
    compare,
    compare_command,
    compare_narrow,
    compare_plots,
    compare_run,
    compare_selection,
    compare_words,
    equal_error,
    loop,
    methods,
    records,
)
from paradrift.bench.compare import Case
from paradrift.bench.compare_seconds import lane
from paradrift.bench.compare_selection import Cell, Filter
from paradrift.bench.compare_words import by_model
from paradrift.bench.equal_error import Duel, Place, Spot, rounds_at
from paradrift.bench.models import Model
from paradrift.bench.records import Record
from paradrift.cli import main
from paradrift.errors import SpecError

HERE = Place("m", "ode", 50, "16", 50)


def two_modes() -> Model:
    """Two modes of the plane, one at each side: classes are signs."""
    schedule = pd.Discrete.linear(100)
    toy = pd.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.05, schedule)
    return Model(
        name="two-modes",
        denoiser=lambda samples: toy,
        shape=(2,),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        classes=lambda samples: (samples[:, 0] > 0).long(),
        dtype=torch.float64,
    )


def gaussian() -> Model:
    toy = pd.Gaussian(torch.zeros(4), torch.tensor([0.1, 0.5, 1.0, 2.0]), pd.Discrete.linear(100))
    return dataclasses.replace(two_modes(), name="gaussian", denoiser=lambda samples: toy, shape=(4,), classes=None)


MODELS = {model.name: model for model in (two_modes(), gaussian())}


@functools.cache
def measured() -> tuple[Record, ...]:
    """A tiny comparison: both kinds, in a window and at once, all methods, then for time."""
    cells = [
        Cell(model="gaussian", kind=kind, steps=10, width=width, samples=4, stride=3, floor=1e-3)
        for kind, width in (("ode", 8), ("ode", None), ("sde", 8))
    ]
    small = [dataclasses.replace(cell, methods=("default", "Picard")) for cell in cells[:1]]
    found = [step.record for step in compare_run.run(cells, MODELS, parts=["curves"])]
    return (*found, *(step.record for step in compare_run.run(small, MODELS, found, parts=["seconds"])))


def test_rounds_are_interpolated_geometrically_along_the_lower_envelope():
    curve = [Spot(10, 1e-1), Spot(12, 3e-1), Spot(20, 1e-3), Spot(20, 1e-2), Spot(30, 1e-3), Spot(16, math.nan)]
    assert rounds_at(curve, 1e-1) == pytest.approx(10)
    assert rounds_at(curve, 1e-2) == pytest.approx(15)
    assert rounds_at(curve, 1e-3) == pytest.approx(20)


def test_nothing_is_extrapolated():
    curve = [Spot(10, 1e-3), Spot(20, 1e-4)]
    assert rounds_at(curve, 1e-1) == 10  # the loosest point is more accurate than asked
    assert rounds_at(curve, 9e-5) is None
    assert rounds_at([], 1e-1) is None
    assert rounds_at([Spot(5, 0.0)], 1e-4) == 5


def test_points_with_flips_do_not_count_where_that_is_asked():
    curve = [Spot(10, 1e-3, flips=1), Spot(20, 1e-4)]
    assert rounds_at(curve, 1e-2) == 10
    assert rounds_at(curve, 1e-2, unflipped=True) == 20
    table = equal_error.needs({HERE: {"a": curve}})
    assert [table[HERE, target]["a"] for target in (1e-1, 1e-2)] == [10, 20]
    assert equal_error.needs({HERE: {"a": curve}}, flips=True)[HERE, 1e-2]["a"] == 10


def test_duels_and_profile_by_hand():
    there = HERE._replace(kind="sde")
    found = {
        HERE: {"ours": [Spot(5, 1e-9)], "b": [Spot(10, 1e-9)], "c": [Spot(20, 1e-9)]},
        there: {"ours": [Spot(40, 1e-9)], "b": [Spot(20, 1e-9)]},
    }
    table = equal_error.needs(found, targets=[1e-2])
    battles = equal_error.duels(table, "ours", frozenset({"ours"}))
    assert [(duel.ratio, duel.best) for duel in battles] == [(0.5, "b"), (2.0, "b")]
    assert equal_error.mean_ratio(battles) == pytest.approx(1)
    assert equal_error.mean_ratio([]) is None
    assert equal_error.profile(table, "ours", [1, 1.9, 2]) == [0.5, 0.5, 1]
    assert equal_error.profile(table, "b", [1, 2]) == [0.5, 1]
    assert equal_error.profile(table, "c", [1, 4]) == [0, 1]  # of the one place where it was measured
    text = compare_words.losses(battles)
    assert "| m | SDE 50 | 16 | 1e-2 | 40.0 | 20.0, b | 2.00 |" in text
    assert compare_words.losses(battles[:1]) == "Nowhere."


def test_nobody_needs_more_rounds_than_the_sequential_sampler():
    table = equal_error.needs({HERE: {"ours": [Spot(60, 1e-9)], "b": [Spot(9, 1.0)]}}, targets=[1e-2])
    assert table[HERE, 1e-2] == {"ours": 50, "b": math.inf, "sequential": 50}
    (duel,) = equal_error.duels(table, "ours", frozenset({"ours"}))
    assert (duel.ratio, duel.best) == (1, "sequential")


@pytest.mark.parametrize("kind", ["ode", "sde"])
@pytest.mark.parametrize("width", [8, None])
@pytest.mark.parametrize("entry", methods.CATALOGUE, ids=lambda entry: entry.name)
def test_every_method_meets_the_sequential_answer_at_its_strictest_knob(entry, width, kind):
    case = Case(model=gaussian(), kind=kind, steps=10, samples=4)
    if not entry.fits(case.problem, width):
        assert entry.name in ("CHORDS", "wavefront", "autospeculation", "SRDS")
        return
    record = compare.measure(case, entry, width, entry.ladder[-1])
    assert record.extra["unconverged"] == 0
    assert 1 <= record.rounds_max <= 60
    if entry.law:
        assert record.error_median is None
    else:
        assert record.error_worst < 1e-4


@pytest.mark.parametrize("entry", methods.CATALOGUE, ids=lambda entry: entry.name)
def test_no_method_evaluates_more_rows_than_its_width(entry):
    case = Case(model=two_modes(), kind="sde" if entry.law else "ode", steps=30, samples=2)
    if not entry.fits(case.problem, 8):
        assert entry.name == "wavefront"
        return
    rows, last = [], 0

    def see(state):
        nonlocal last
        rows.append((state.evaluations - last) / 2)
        last = state.evaluations

    solver = entry.make(entry.ladder[min(4, len(entry.ladder) - 1)], 8, case.problem)
    given = dict(sampler=case.problem.sampler, times=case.problem.times, solver=solver, dtype=torch.float64)
    pd.sample(case.denoiser, (2, 2), callback=see, **given)
    assert max(rows) <= 8


def test_cores_of_chords_start_in_proportion():
    assert methods.starts(50, 8) == (0, 2, 4, 8, 16, 24, 32, 40)
    assert methods.starts(100, 8) == (0, 4, 8, 16, 32, 48, 64, 80)
    assert methods.starts(10, 8) == (0, 1, 2, 3, 5, 6, 8)


def test_a_flip_is_counted():
    case = Case(model=two_modes(), kind="ode", steps=10, samples=6)
    answers = case.answer.samples
    planted = answers.clone()
    planted[2, 0] *= -1
    assert (compare.flips(case, answers), compare.flips(case, planted)) == (0, 1)
    assert compare.flips(Case(model=gaussian(), kind="ode", steps=10, samples=6), answers) is None


def test_records_of_a_comparison_are_written_and_read(tmp_path):
    found = measured()
    for record in found:
        records.append(tmp_path / "compare.jsonl", record)
    assert records.load(tmp_path / "compare.jsonl") == list(found)
    curves = [record for record in found if record.extra["part"] == "compare"]
    assert {record.method for record in curves} == {entry.name for entry in methods.CATALOGUE}
    assert len({record.extra["key"] for record in found}) == len(found)
    for record in curves:
        assert record.extra["flat_seconds"] == pytest.approx(record.extra["flat_sequential"] / 10 * record.rounds_mean)
        assert record.extra["memory"] is None or record.extra["memory"] >= 0


def test_a_ladder_ends_where_the_error_is_small_enough():
    own = [r for r in measured() if (r.method, r.window, r.extra.get("kind")) == ("default", "8", "ode")]
    errors = [r.error_median for r in own if r.extra["part"] == "compare"]
    assert len(errors) >= 2
    assert all(error > 1e-3 for error in errors[:-1])
    assert errors[-1] <= 1e-3


def test_a_ladder_goes_on_for_the_worst_sample(monkeypatch):
    """The median is small at the second knob, the worst sample at the third."""
    errors = {0.1: (1e-2, 1.0), 0.03: (1e-5, 0.2), 0.01: (1e-6, 5e-3), 3e-3: (1e-7, 1e-4)}
    template, asked = measured()[0], []

    def measure(case, entry, width, knob):
        asked.append(knob)
        median, largest = errors[knob]
        extra = template.extra | {"flips": 0}
        return dataclasses.replace(template, error_median=median, error_worst=largest, extra=extra)

    monkeypatch.setattr(compare_run, "measure", measure)
    entry = dataclasses.replace(methods.CATALOGUE[0], ladder=tuple(errors))
    cell = Cell(model="gaussian", kind="ode", steps=10, width=8, samples=4)
    case = Case(model=MODELS["gaussian"], kind="ode", steps=10, samples=4)
    assert len(list(compare_run.climb(case, entry, cell, {}))) == 3
    assert asked == [0.1, 0.03, 0.01]


@pytest.mark.parametrize(("lucky", "loosest"), [((), 0.025), ((0.036, 0.045), 0.045)], ids=["monotonic", "not"])
def test_a_ladder_is_narrowed_where_flips_end(lucky, loosest, monkeypatch):
    """Answers flip above a tolerance of 0.025, or not at a looser one either: the loosest without flips counts."""
    template, asked = measured()[0], []

    def measure(case, entry, width, knob):
        asked.append(knob)
        fine = knob <= 0.025 or (lucky and lucky[0] < knob < lucky[1])
        extra = template.extra | {"flips": int(not fine)}
        return dataclasses.replace(template, error_median=knob / 10, error_worst=knob / 10, extra=extra)

    monkeypatch.setattr(compare_run, "measure", measure)
    cell = Cell(model="gaussian", kind="ode", steps=10, width=8, samples=4)
    case, known = Case(model=MODELS["gaussian"], kind="ode", steps=10, samples=4), {}
    entry = dataclasses.replace(methods.CATALOGUE[0], ladder=(1.0, 0.1, 0.01, 1e-3))
    list(compare_run.climb(case, entry, cell, known))
    assert asked[:5] == [1.0, 0.1, 0.01, 1e-3, 0.032]
    unflipped = [knob for knob, record in known.items() if not record.extra["flips"]]
    good = max(float(name.rsplit("/", 1)[1]) for name in unflipped)
    tried = sorted(knob for knob in asked if knob >= good)
    assert loosest / compare_narrow.NARROW < good <= loosest
    assert all(b <= compare_narrow.NARROW * a for a, b in itertools.pairwise(tried) if a < compare_narrow.NEAR * good)
    assert list(compare_run.climb(case, entry, cell, known)) == []  # nothing is measured twice
    asked.clear()
    list(compare_run.climb(case, dataclasses.replace(entry, knob="iterations"), cell, {}))
    assert asked == [1.0, 0.1, 0.01, 1e-3]


def _told(*points: tuple[float, float, float, int]) -> dict[float, Record]:
    """Measurements of one method: tolerance, rounds, error and flips of each."""
    template = measured()[0]
    return {
        knob: dataclasses.replace(
            template, rounds_mean=rounds, error_median=error, extra=template.extra | {"flips": flips, "unconverged": 0}
        )
        for knob, rounds, error, flips in points
    }


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1.0, 3, 5e-2, 0), (0.1, 6, 1e-3, 0)], 0.32),  # the error crosses 1e-2 in between
        ([(1.0, 3, 5e-2, 0), (0.12, 5, 2e-2, 0), (0.11, 6, 9e-3, 0)], None),  # known finely
        ([(1.0, 3, 2e-3, 2), (0.12, 5, 2e-3, 2), (0.11, 6, 1e-3, 0)], 0.35),  # flips may come and go
        ([(1.0, 3, 2e-3, 2), (0.1, 6, 2e-2, 0)], None),  # nothing counts
    ],
    ids=["error", "fine", "flips", "nothing"],
)
def test_close_calls_are_narrowed_where_the_error_crosses_or_flips_end(points, expected):
    assert compare_narrow.crossing(_told(*points)) == expected


def test_a_close_call_looks_at_the_best_rival_and_then_at_ours():
    ours, rival = [(1.0, 5, 5e-2, 0), (0.1, 9, 5e-3, 0)], [(10.0, 7, 5e-2, 0), (1.0, 9.4, 5e-3, 0)]
    far = _told((1.0, 19, 5e-2, 0), (0.1, 20, 5e-3, 0))
    found = {"ours": _told(*ours), "rival": _told(*rival), "far": far}
    assert compare_narrow.close_call(found, ["ours"]) == ("rival", 3.2)
    fine = _told(*rival, (1.1, 9.2, 1.1e-2, 0))
    assert compare_narrow.close_call(found | {"rival": fine}, ["ours"]) == ("ours", 0.32)
    known = _told(*ours, (0.11, 8.9, 1.1e-2, 0))
    assert compare_narrow.close_call(found | {"rival": fine, "ours": known}, ["ours"]) is None
    better = _told((1.0, 3, 5e-2, 0), (0.1, 4, 5e-3, 0))  # nothing is close
    assert compare_narrow.close_call(found | {"ours": better}, ["ours"]) is None
    assert compare_narrow.close_call({"ours": known}, ["ours"]) is None


def test_close_calls_are_settled_after_the_methods_of_a_cell(monkeypatch):
    """Both sides are asked between their rungs, nothing twice, and what is exact in law only is left out."""
    template, asked = measured()[0], []

    def measure(case, entry, width, knob):
        asked.append((entry.name, knob))
        extra = template.extra | {"flips": 0, "unconverged": 0}
        error = {"default": knob, "Picard": knob / 2}.get(entry.name, 1.0)
        return dataclasses.replace(
            template, method=entry.name, rounds_mean=9 - math.log10(error), error_median=error, extra=extra
        )

    monkeypatch.setattr(compare_run, "measure", measure)
    cell = Cell(
        model="gaussian", kind="sde", steps=10, width=8, samples=4, methods=("default", "Picard", "autospeculation")
    )
    case, known = Case(model=MODELS["gaussian"], kind="sde", steps=10, samples=4), {}
    for entry in cell.entries():
        list(compare_run.climb(case, entry, cell, known))
    asked.clear()
    list(compare_run.settle(case, cell, known))
    assert {name for name, _ in asked} == {"default", "Picard"}
    assert len(asked) == len(set(asked))
    for name, at in (("default", 1e-2), ("Picard", 2e-2)):
        near = [float(key.rsplit("/", 1)[1]) for key in known if f"/{name}/" in key]
        good = max(knob for knob in near if knob <= at)
        assert min(knob for knob in near if knob > good) <= compare_narrow.FINE * good
    assert list(compare_run.settle(case, cell, known)) == []


def test_seconds_are_drawn_at_the_rungs_of_ladders_alone():
    template = measured()[0]
    named = [("default", 0.1), ("default", 0.13), ("somebody else", 0.13)]
    found = [dataclasses.replace(template, method=name, extra=template.extra | {"knob": knob}) for name, knob in named]
    shown = [(record.method, record.extra["knob"]) for record in compare_plots.rungs(found)]
    assert shown == [("default", 0.1), ("somebody else", 0.13)]


def test_methods_are_compared_at_the_error_of_the_worst_sample_too():
    found = equal_error.curves(measured(), attrgetter("error_worst"))
    usual, counted = equal_error.curves(measured()), equal_error.latest(measured(), "compare")
    assert found.keys() == usual.keys()
    for where, by_method in found.items():
        for name, spots in by_method.items():
            same = [record for record in counted if record.method == name and equal_error.place(record) == where]
            assert {spot.error for spot in spots} == {record.error_worst for record in same}
            assert all(a.error >= b.error for a, b in zip(spots, usual[where][name], strict=True))
    words = compare_words.tables(measured())
    assert "at equal error of the worst of the samples" in words
    assert "| default | places | error 1e-1 | error 1e-2 | all errors | worst place |" in words


def test_single_samples_are_timed_against_the_plain_loop():
    found = {record.method: record for record in measured() if record.extra["part"] == "seconds"}
    assert found["default"].error_worst < 1e-2
    assert len(found) >= 2
    for record in found.values():
        assert record.extra["speedup"] == pytest.approx(record.sequential_seconds / record.seconds)
        assert record.extra["speedup_least"] <= record.extra["speedup"] * (1 + 1e-9) or record.extra["repeats"] == 1
        assert record.extra["ceiling"] > 0


def test_only_the_methods_of_a_cell_are_raced():
    names = {record.method for record in measured() if record.extra["part"] == "seconds"}
    assert {name.split(",")[0] for name in names} == {"default", "Picard"}


def test_seconds_count_on_each_processor_by_themselves():
    cell = Cell(
        model="gaussian", kind="ode", steps=10, width=8, samples=4, stride=3, floor=1e-3, methods=("default", "Picard")
    )
    here = [record for record in measured() if record.extra["part"] == "seconds"]
    there = [dataclasses.replace(r, machine={**r.machine, "processor": "another", "cores": 64}) for r in here]
    words = "\n".join(compare_words.seconds([*here, *there]))
    assert f"plain loop: {here[0].machine['processor']}, {here[0].machine['cores']} cores**" in words
    assert "plain loop: another, 64 cores**" in words
    assert words.count("| **default** |") == 2
    curves = [record for record in measured() if record.extra["part"] == "compare"]
    assert not list(compare_run.run([cell], MODELS, measured(), parts=["seconds"]))
    again = [step.record.method for step in compare_run.run([cell], MODELS, [*curves, *there], parts=["seconds"])]
    assert [lane(name) for name in again] == [lane(record.method) for record in here]


def test_a_comparison_goes_on_where_it_was_cut_off():
    cell = Cell(model="gaussian", kind="ode", steps=10, width=8, samples=4, stride=3, floor=1e-3)
    first = [r for r in measured() if r.window == "8" and r.extra["kind"] == "ode" and r.extra["part"] == "compare"]
    assert len(first) > 10
    again = [step.record.extra["key"] for step in compare_run.run([cell], MODELS, first[:-2], parts=["curves"])]
    assert again == [record.extra["key"] for record in first[-2:]]
    assert not list(compare_run.run([cell], MODELS, first, parts=["curves"]))


def test_pictures_and_tables_from_records(tmp_path, capsys):
    for record in measured():
        records.append(tmp_path / "compare.jsonl", record)
    assert main(["plot", str(tmp_path / "compare.jsonl"), "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for title in (
        "**Ours in rounds over the best rival's, at equal median error**",
        "**By model, at a median error of 1e-2**",
        "**Where we lose: default**",
        "**Where we lose: calibrated**",
        "**Exact in law**",
    ):
        assert title in text
    names = [f"compare-{what}.png" for what in ("rounds-ode", "seconds-ode", "rounds-sde", "seconds-sde", "profile")]
    for name in names:
        assert str(tmp_path / name) in text.replace("\n", "")
        assert np.std(matplotlib.image.imread(tmp_path / name)[..., :3]) > 0.02


def test_the_means_by_model_are_geometric_and_leave_out_what_was_not_asked():
    def duel(model, ours, kind="ode", target=1e-2):
        return Duel(place=HERE._replace(model=model, kind=kind), target=target, ours=ours, rival=10.0, best="Picard")

    battles = {"default": [duel("a", 2.0), duel("a", 8.0), duel("b", 1.0), duel("b", 9.0, target=1e-1)]}
    head, _, *rows = by_model(battles).splitlines()
    assert head == "| model | ODE, default | SDE, default |"
    assert rows == ["| a | 0.40 (2) |  |", "| b | 0.10 (1) |  |", "| **all models alike** | 0.20 |  |"]


def test_pictures_have_six_panels_at_most():
    shown = [HERE._replace(model=f"m{i}") for i in range(13)]
    assert {end: len(page) for end, page in compare_plots.pages(shown).items()} == {"": 6, "-2": 6, "-3": 1}


def test_the_place_that_is_shown_of_a_model_is_the_one_with_most_methods():
    base = next(record for record in measured() if record.method == "default" and record.extra["kind"] == "ode")
    few = dataclasses.replace(base, steps=100)
    many = [dataclasses.replace(base, method=name) for name in "abcd"]
    assert [where.steps for where in compare_plots.places([few, base])] == [100]
    assert [where.steps for where in compare_plots.places([few, *many])] == [10]


@pytest.mark.parametrize("kind", ["ode", "sde"])
def test_the_plain_loop_is_the_sequential_sampler(kind):
    model = two_modes()
    case = Case(model=model, kind=kind, steps=10, samples=3)
    own = methods.table(case.problem)
    noises = torch.randn(3, own.rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = noises[:, 0] * own.start
    given = dict(sampler=case.problem.sampler, times=case.problem.times, solver=pd.sequential(), dtype=torch.float64)
    expected = pd.sample(case.denoiser, (3, 2), start=start, noise=noises, **given).samples
    found = loop.plain(case.denoiser, own, start, lambda row: noises[:, row])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_plain_loop_calls_the_network_itself_guided_and_multistep():
    calls = []

    def net(x, t, label):
        calls.append(t.dtype)
        return x / (1 + t[:, None] / 100) + label[:, None]

    inner = pd.denoiser(
        net,
        predicts="noise",
        schedule=pd.Discrete.linear(100),
        conditioning={"label": torch.arange(3.0)},
        unconditional={"label": torch.zeros(1)},
    )
    assert inner.schedule is not None
    model = pd.Guided(inner, 2.0)
    times = pd.grids.default(inner.schedule, 10)
    own = pd.DPMpp2M().tableau(inner.schedule, times)
    start = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    expected = pd.sample(model, (3, 2), sampler=own, solver=pd.sequential(), start=start).samples
    calls.clear()
    found = loop.plain(model, own, start)
    assert calls == [torch.int64] * own.nodes
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_plain_loop_clips_like_the_model():
    schedule = pd.Discrete.cosine(100)
    model = pd.Clipped(pd.denoiser(lambda x, t: x / (1 + t[:, None] / 30), predicts="noise", schedule=schedule), 0.7)
    own = pd.DDIM().tableau(schedule, pd.grids.default(schedule, 10))
    start = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    expected = pd.sample(model, (3, 2), sampler=own, solver=pd.sequential(), start=start).samples
    assert (expected.abs() == 0.7).any()  # some are clipped to the last
    torch.testing.assert_close(loop.plain(model, own, start), expected, rtol=1e-5, atol=1e-5)


def test_the_selection_covers_models_kinds_and_steps():
    names = ("gaussian-256", "mixture-64", "mixture-1024", "digits", "digits-guided", "rough")
    cells = compare_selection.usual_cells(names)
    assert all(cell.samples >= 64 for cell in cells)
    for kind, steps in (("ode", 50), ("sde", 100)):
        assert {cell.model for cell in cells if (cell.kind, cell.steps) == (kind, steps)} == set(names)
    assert {cell.steps for cell in cells} == {10, 25, 50, 100, 250, 1000}
    assert {(cell.kind, cell.steps) for cell in cells[: 2 * len(names)]} == {("ode", 50), ("sde", 100)}
    floors = {(cell.model, cell.kind, cell.steps, cell.width): cell.floor for cell in cells if cell.width != 32}
    for (model, kind, steps, width), floor in floors.items():
        assert floor == compare_selection.floor(Place(model, kind, steps, compare.named(width), steps))
    assert set(floors.values()) == {1e-4, 1e-3, 1e-2}
    assert {("digits", kind, steps, 64) for kind in ("ode", "sde") for steps in (250, 1000)} <= set(floors)


def test_filters_narrow_a_selection_or_ask_for_their_own_product():
    names = ("gaussian", "two-modes")
    cells = [Cell(model=name, kind="ode", steps=50, width=width) for name in names for width in (8, 16)]
    wanted = Filter(models=("gaussian",), methods=("default",), samples=5)
    found = compare_selection.chosen(cells, wanted, names)
    assert [(cell.model, cell.methods, cell.samples) for cell in found] == [("gaussian", ("default",), 5)] * 2
    found = compare_selection.chosen(cells, Filter(steps=(7,), widths=(None,), kinds=("sde",)), names)
    assert [(cell.model, cell.steps, cell.width) for cell in found] == [(name, 7, None) for name in names]
    with pytest.raises(SpecError, match="expected a model among gaussian, two-modes, found 'x'"):
        compare_selection.chosen(cells, Filter(models=("x",)), names)


def test_the_command_measures_resumes_and_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare_run, "everything", lambda: MODELS)
    asked = ["bench", "compare", "--out", str(tmp_path), "--model", "gaussian", "--method", "default"]
    asked += [
        "--steps",
        "10",
        "--width",
        "8",
        "--width",
        "whole",
        "--kind",
        "ode",
        "--samples",
        "4",
        "--part",
        "curves",
    ]
    assert main([*asked, "--dry-run"]) == 0
    assert "2 cells, about" in capsys.readouterr().out
    assert not (tmp_path / "compare.jsonl").exists()
    assert main(asked) == 0
    assert "[2 of 2" in capsys.readouterr().out
    before = records.load(tmp_path / "compare.jsonl")
    assert {record.window for record in before} == {"8", "whole"}
    assert main([*asked, "--resume"]) == 0
    assert records.load(tmp_path / "compare.jsonl") == before
    capsys.readouterr()


def test_wrong_requests_are_refused(capsys):
    for wrong, words in (
        (["--width", "wide"], 'expected a width of at least 1 or "whole"'),
        (["--part", "memory"], "expected parts among curves, seconds"),
        (["--samples", "0"], "expected samples and steps of at least 1"),
    ):
        assert main(["bench", "compare", *wrong]) != 0
        assert words in " ".join(capsys.readouterr().err.split())
    assert main(["bench", "toy", "--dry-run"]) != 0
    assert "expected the benchmark compare alone" in " ".join(capsys.readouterr().err.split())
    assert compare_command.wanted(None, None, None, None, None, None, None) == compare_command.ALL


def test_errors_that_nobody_was_asked_for_are_not_compared():
    found = {HERE: {"a": [Spot(4, 1e-3)], "b": [Spot(9, 1e-5)]}}
    asked = equal_error.needs(found, floor=lambda where: 1e-3)
    assert {target for _, target in asked} == {1e-1, 1e-2, 1e-3}
    assert {target for _, target in equal_error.needs(found)} == {1e-1, 1e-2, 1e-3, 1e-4}


def test_a_place_without_rivals_is_no_comparison():
    alone = equal_error.needs({HERE: {"ours": [Spot(4, 1e-9)]}})
    assert equal_error.duels(alone, "ours", frozenset({"ours"})) == []


def test_a_racer_is_known_without_its_tolerance() -> None:
    """Which tolerance is the fastest depends on what a call cost just now; a race that was run is not run again."""
    assert lane("seconds/x/ode/50/default, tol 0.3, unverified") == "seconds/x/ode/50/default, unverified"
    assert lane("seconds/x/ode/50/default") == "seconds/x/ode/50/default"
