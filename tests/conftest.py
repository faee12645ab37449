"""Shared set-up: one thread, a fixed seed that does not leak, hypothesis profiles, the slow marker."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
hypothesis.settings.register_profile("nightly", max_examples=2000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {"slow": pytest.mark.skip(reason="slow: run with --run-slow")} if not config.option.run_slow else {}
    if not torch.cuda.is_available():
        skips["cuda"] = pytest.mark.skip(reason="needs a GPU")
    for item in items:
        for name, skip in skips.items():
            if name in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test starts from the same global seed and leaves torch's global generator as it found it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
