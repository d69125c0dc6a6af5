"""The kernels in Triton's interpreter, in processes of their own: it is chosen before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed here: pip install 'itrd-kernels[triton]'")

TESTS = Path(__file__).parents[1]


def run(*arguments: object) -> None:
    """pytest under TRITON_INTERPRET=1; its report is shown where it fails."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::RuntimeWarning",
            *map(str, arguments),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    "file", ["test_kernels.py", "test_sweeps.py", "test_planted_bugs.py", "test_launches.py", "test_compile.py"]
)
def test_sanitized(file):
    run(TESTS / "triton/interpreted" / file, "-m", "not slow")


@pytest.mark.parametrize("file", ["test_correlation.py", "test_gram.py", "test_loss.py", "test_schedules.py"])
def test_hard_inputs_of_all_backends(file):
    """The grids of shapes and a gradcheck are in test_kernels.py and test_sweeps.py here, under the sanitizer; theirs
    take minutes."""
    grids = "not test_parity and not gradcheck and not second and not every_schedule"
    run(TESTS / file, "--backend", "triton", "-m", "not slow", "-k", grids)


@pytest.mark.parametrize("file", ["test_properties.py", "test_modes_of_losses.py"])
def test_properties_of_all_backends(file):
    """Differences take minutes, and are left to the slow tests."""
    pytest.importorskip("hypothesis", reason="hypothesis is not installed here: pip install 'itrd-kernels[dev]'")
    run(TESTS / "properties" / file, "--backend", "triton", "-k", "triton and not by_differences")


@pytest.mark.slow
def test_differences_of_all_losses():
    pytest.importorskip("hypothesis", reason="hypothesis is not installed here: pip install 'itrd-kernels[dev]'")
    run(TESTS / "properties/test_modes_of_losses.py", "--backend", "triton", "-k", "triton and by_differences")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_kernels.py", "test_sweeps.py"])
def test_grid_under_the_sanitizer(file):
    run(TESTS / "triton/interpreted" / file, "-m", "slow")


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_correlation.py", "test_gram.py", "test_schedules.py"])
def test_grid_of_all_backends(file):
    grids = "test_parity or gradcheck or second or every_schedule"
    run(TESTS / file, "--backend", "triton", "-m", "not slow", "-k", grids)
