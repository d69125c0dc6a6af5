"""`--backend NAME` runs the parity tests on one backend; without it, on all that can take CPU tensors here.

Triton's kernels take CPU tensors under TRITON_INTERPRET=1, the CUDA kernels under ITRD_CUDA_ON_HOST=1.
"""

import collections
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
        # Some tests are about the reference too.
        names = getattr(metafunc.module, "BACKENDS", backends.WITH_OPERATORS)
        here = [name for name in names if backends.why_not(name, "cpu") is None]
        if asked and asked not in here:
            raise pytest.UsageError(f"--backend {asked}: {itrd_kernels.available_backends().get(asked, 'unknown')}")
        metafunc.parametrize("backend", [asked] if asked else here)


def pytest_terminal_summary(terminalreporter):
    """How many generated cases held on each backend."""
    tried = collections.Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "cases":
                backend, count = value
                tried[backend] += count
    if tried:
        counts = ", ".join(f"{backend} {count}" for backend, count in tried.items())
        terminalreporter.write_line(f"{tried.total()} generated cases held: {counts}")


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """A group of this process alone."""
    import torch.distributed as dist

    meeting = tmp_path_factory.mktemp("group") / "file"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=[name for name in backends.WITH_OPERATORS if name != "cpu"])
def gpu_backend(request):
    """A backend for GPUs that can run where the module's tests run, on its DEVICE."""
    reason = backends.why_not(request.param, request.module.DEVICE)
    if reason is not None:
        pytest.skip(reason)
    return request.param
