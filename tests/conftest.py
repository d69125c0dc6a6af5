"""`--backend NAME` runs the parity tests on one backend; without it, on all that can take CPU tensors here.

Triton's kernels take CPU tensors under TRITON_INTERPRET=1, the CUDA kernels under ITRD_CUDA_ON_HOST=1.
"""

import sys
from pathlib import Path

import cases
import pytest

import itrd_kernels
from itrd_kernels import backends

# The benchmarks, which some tests are about, are the checkout's, whichever package is installed.
sys.path.append(str(Path(__file__).parent.parent))


def pytest_addoption(parser):
    parser.addoption("--backend", action="store", help="run the parity tests on this backend only")


def pytest_configure(config):
    cases.WHOLE_GRIDS = "not slow" not in config.getoption("markexpr")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--backend")
        here = [name for name in backends.WITH_OPERATORS if backends.why_not(name, "cpu") is None]
        if asked and asked not in here:
            raise pytest.UsageError(f"--backend {asked}: {itrd_kernels.available_backends().get(asked, 'unknown')}")
        metafunc.parametrize("backend", [asked] if asked else here)
