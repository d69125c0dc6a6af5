"""The host time of a step on a driver that does nothing: that it can be measured, not how long it is."""

import shutil
import sys
from pathlib import Path

import pytest
from cases import run_python

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

SCRIPT = Path(__file__).parents[1] / "benchmarks/host_time.py"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler, on Linux")
def test_a_step_runs_on_the_pretended_driver():
    done = run_python(str(SCRIPT), "0")
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[0].strip() for line in done.stdout.splitlines()] == [
        "fused, Triton",
        "plain, eager",
        "plain, compiled",
        "a + a",
    ]
