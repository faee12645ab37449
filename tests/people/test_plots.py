"""Pictures: each call leaves a PNG that has something on it, and refuses what it cannot draw."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from paradrift import plots, report
from paradrift.bench import plots as pictures
from paradrift.bench.records import Record
from paradrift.errors import SpecError


def drawn(path: Path) -> None:
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 100
    assert np.std(pixels[..., :3]) > 0.02


@pytest.mark.parametrize("total", [1, 4, 14])
def test_samples_of_two_runs(tmp_path, solved, total):
    runs = [report.Run(name=name, solution=solved((total, 1, 28, 28))) for name in ("sequential", "parallel")]
    plots.samples(tmp_path / "samples.png", runs, list(range(total)))
    drawn(tmp_path / "samples.png")


def test_samples_in_colour(tmp_path, solved):
    plots.samples(tmp_path / "samples.png", [report.Run(name="parallel", solution=solved((2, 3, 8, 8)))])
    drawn(tmp_path / "samples.png")


def test_samples_that_are_no_pictures(tmp_path, solved):
    with pytest.raises(SpecError, match="expected runs of equally many samples of shape"):
        plots.samples(tmp_path / "samples.png", [report.Run(name="parallel", solution=solved((2, 5, 8, 8)))])


def test_convergence(tmp_path, replayed):
    trace = report.Trace()
    replayed(trace, (2, 1, 28, 28))
    plots.convergence(tmp_path / "convergence.png", trace, "ddpm, 60 steps")
    drawn(tmp_path / "convergence.png")


def test_convergence_without_pictures_or_change(tmp_path):
    trace = report.Trace(change=[np.array([np.nan, 0.0])], settled=[1], previews={1: torch.zeros(7)})
    plots.convergence(tmp_path / "convergence.png", trace)
    drawn(tmp_path / "convergence.png")


def test_convergence_of_nothing(tmp_path):
    with pytest.raises(SpecError, match="expected a trace of at least one round"):
        plots.convergence(tmp_path / "convergence.png", report.Trace())


def test_trace_keeps_powers_of_two_and_the_last(replayed):
    trace = report.Trace(sample=1)
    replayed(trace, (2, 1, 4, 4))
    assert list(trace.previews) == [1, 2, 4, 8, 16, 20]
    assert trace.settled == list(range(3, 61, 3))
    assert len(trace.change) == 20


def record(**changes) -> Record:
    base = dict(problem="mixture", method="default", sampler="ddpm", steps=50, window="16", samples=8, evaluations=900)
    base |= dict(tol=1e-2, rounds_mean=8.0, rounds_max=10, seconds=0.5, error_median=4e-3, error_worst=9e-3)
    return Record(**(base | changes))


def measured() -> list[Record]:
    return [
        record(
            problem=problem,
            method=method,
            tol=tol,
            error_median=0.4 * tol,
            error_worst=1.6 * tol,
            rounds_mean=scale * r,
        )
        for problem in ("mixture", "digits", "rough")
        for method, scale in (("default", 1.0), ("noise form, local change", 1.8))
        for tol, r in ((1e-1, 5), (1e-2, 8), (1e-3, 11))
    ]


@pytest.mark.parametrize("picture", [pictures.rounds, pictures.calibration])
def test_measurements(tmp_path, picture):
    picture(tmp_path / "made" / "picture.png", measured())
    drawn(tmp_path / "made" / "picture.png")
    picture(tmp_path / "one.png", [record(), record(tol=1e-3, error_median=0.0, error_worst=0.0)])
    drawn(tmp_path / "one.png")


@pytest.mark.parametrize("picture", [pictures.rounds, pictures.calibration])
def test_measurements_without_errors(tmp_path, picture):
    with pytest.raises(SpecError, match="expected records with a measured error"):
        picture(tmp_path / "picture.png", [record(error_median=None)])
