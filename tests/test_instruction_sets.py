"""The losses' own tests once more, under every instruction set of the CPU backend that is not this processor's best."""

import re
from pathlib import Path

import pytest
from cases import run_python
from instruction_sets import EMULATED_TILES, SETS, refusal

import itrd_kernels

HERE = Path(__file__).parent
TESTS = ("test_correlation.py", "test_gram.py", "test_loss.py")

pytestmark = pytest.mark.skipif(
    itrd_kernels.available_backends()["cpu"] is not None, reason="the native library is not built here"
)


@pytest.mark.parametrize("isa", SETS)
def test_losses(isa):
    environment = {"ITRD_CPU_ISA": isa}
    refused = refusal(**environment)
    if refused is None and all(refusal(ITRD_CPU_ISA=better) for better in SETS[: SETS.index(isa)]):
        pytest.skip(f"{isa} is this processor's best: the suite itself runs on it")
    if refused is not None and isa == "amx" and refusal(ITRD_CPU_ISA="avx512") is None:
        if not EMULATED_TILES.exists():
            pytest.skip("this processor has no amx; `make emulated-tiles` builds what runs in its place")
        environment["ITRD_EMULATED_TILES"] = "1"
        refused = refusal(**environment)
    if refused is not None:
        assert "cannot run on this processor" in refused
        pytest.skip(f"this processor has no {isa}")
    # The backward pass is the same for all vectors of 64 bytes, and its large gradients take long.
    which = "cpu" if isa in ("avx2", "portable") else "cpu and not leave_the_caches"
    only = ["--backend", "cpu", "-k", which, "-m", "not slow and not gpu", "-p", "no:cacheprovider"]
    # Threads that wait must not keep the cores from the other workers of pytest-xdist.
    environment["OMP_WAIT_POLICY"] = "passive"
    result = run_python("-m", "pytest", "-q", *only, *(str(HERE / test) for test in TESTS), **environment)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", result.stdout)[1]) > 300


def test_unknown_instruction_set_is_refused():
    refused = refusal(ITRD_CPU_ISA="sse9")
    assert "ITRD_CPU_ISA=sse9" in refused
    assert "amx, avx512_bf16, avx512, avx2 or portable" in refused
