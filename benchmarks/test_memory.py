"""How much memory does a step take beside its inputs? Each measurement runs in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import machine

D = 256
ROOT = Path(__file__).parent.parent
# The plain formula holds about this many n × n arrays at once.
PLAIN_ARRAYS = 10
MOST = 12 * 10**9


def case(name, n):
    return pytest.param(name, n, marks=[pytest.mark.quick] if n == 1024 else [])


@pytest.mark.parametrize(("name", "n"), [case(name, 2**k) for name in ("fused", "plain") for k in range(10, 16)])
def test_peak_memory(name, n, benchmark, budget, to_all_cores, record):
    needed = PLAIN_ARRAYS * 4 * n**2 if name == "plain" else 64 * n * D
    if needed > min(MOST, machine.available_memory()):
        pytest.skip(f"the {name} loss at n = {n:,} needs about {needed / 1e9:.0f} GB")
    command = [sys.executable, "-m", "benchmarks.peak_memory", name, str(n), str(D)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}

    def measure() -> int:
        options = {"env": environment, "preexec_fn": to_all_cores, "check": True, "text": True}
        return int(subprocess.run(command, stdout=subprocess.PIPE, **options).stdout)

    peak = benchmark.pedantic(measure, rounds=1, iterations=1)
    benchmark.extra_info["bytes"] = peak
    record("memory", name=name, n=n, d=D, bytes=peak)
    # n × n arrays are what the plain formula cannot do without, and what the fused loss must never have.
    assert peak > 4 * n**2 if name == "plain" else peak < 2 * n**2 + 2**27
