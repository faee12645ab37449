"""The example of Langevin chains runs, and its two ways agree."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "langevin_regression.py"


def test_the_regression_example_runs():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--tiny"], capture_output=True, text=True, check=True
    )
    rounds = re.search(r"(\d+) rounds instead of 60", done.stdout)
    gap = re.search(r"distance to the sequential chains: ([\d.e+-]+)", done.stdout)
    assert rounds is not None
    assert gap is not None
    assert int(rounds[1]) < 60
    assert float(gap[1]) < 1e-2
