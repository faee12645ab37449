"""The example of a pipeline runs, and its two ways agree."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "parallel_pipeline.py"


def test_the_pipeline_example_runs():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--tiny", "--tol", "1e-4", "--threads", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        found = re.search(r"(\d+) rounds, (\d+) evaluations for (\d+) calls, .* error ([\d.e+-]+)", line)
        assert found is not None
        assert int(found[1]) <= int(found[3]) == 8
        assert float(found[4]) < 2e-3
