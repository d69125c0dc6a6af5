"""The losses' own tests with a CPU library that AddressSanitizer and UBSan watch, and a bug that these must find.

A copy of the package holds that library, so that the tree's own stays what it is.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import compile_emulated
import host_compiler
import pytest
from cases import run_python
from instruction_sets import SETS, why_not
from sanitizers import ASAN_OPTIONS, CSRC, FLAGS, OUT, with_bug

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
FILES = ("test_correlation.py", "test_gram.py", "test_loss.py", "test_kept_memory.py", "test_threads.py")


def sanitized(folder: Path, name: str, csrc: Path = CSRC) -> Path:
    """`folder`, with a copy of the package whose CPU library is watched."""
    library = compile_emulated.library(OUT / f"{name}.so", OUT / name, FLAGS["address"], csrc)
    package = compile_emulated.ROOT / "itrd_kernels"
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(library, folder / package.name / "_cpu.abi3.so")
    return folder


def run(folder: Path, isa: str, *arguments: str) -> tuple[subprocess.CompletedProcess, str]:
    """pytest, to which the package is the one in `folder`; and what the sanitizers report."""
    libraries = [
        subprocess.run([*host_compiler.COMPILER, f"-print-file-name={name}"], capture_output=True, text=True).stdout
        for name in ("libasan.so", "libstdc++.so")
    ]
    reports = folder / "report"
    done = run_python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", "cpu", "-m", "not slow and not gpu"),
        *arguments,
        LD_PRELOAD=" ".join(library.strip() for library in libraries),
        # PyTorch and Python keep what they have, which is no leak of the kernels.
        ASAN_OPTIONS=f"detect_leaks=0:log_path={reports}:{ASAN_OPTIONS}",
        UBSAN_OPTIONS=f"log_path={reports}",
        PYTHONPATH=os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        PYTHONSAFEPATH="1",
        ITRD_CPU_ISA=isa,
        OMP_WAIT_POLICY="passive",
    )
    return done, "".join(report.read_text() for report in folder.glob("report.*"))


@pytest.mark.parametrize("isa", SETS)
def test_losses(isa, tmp_path):
    if refused := why_not(isa):
        pytest.skip(refused.splitlines()[-1])
    # The emulated tiles take long, and so do large gradients, which are the same for all vectors of 64 bytes.
    which = "(cpu or kept_memory or threads)" + ("" if isa == "avx2" else " and not leave_the_caches")
    done, report = run(sanitized(tmp_path, "watched"), isa, "-k", which, *(str(TESTS / test) for test in FILES))
    assert done.returncode == 0, report[:4000] + done.stdout[-4000:] + done.stderr[-2000:]
    assert not report
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 300


def test_planted_bug_is_found(tmp_path):
    right = "store_some<T, C>(to, gradient[r], count)"
    csrc = with_bug(tmp_path / "csrc", "backward.h", right, "store<T, C>(to, gradient[r])")
    folder = sanitized(tmp_path, "planted", csrc)
    done, report = run(folder, "portable", "-x", "-k", "float32", str(TESTS / "test_correlation.py"))
    assert done.returncode != 0
    assert "WRITE of size" in report
    assert "write_gradient" in report
