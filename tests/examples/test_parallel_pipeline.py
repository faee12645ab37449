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
    runs = done.stdout.strip().split("\n\n")
    assert len(runs) == 2
    for run in runs:
        found = re.search(r"(\d+) rounds for (\d+) calls.*measured error: ([\d.e+-]+)", run, re.DOTALL)
        assert found is not None
        assert int(found[1]) <= int(found[2]) == 8
        assert float(found[3]) < 1e-4
