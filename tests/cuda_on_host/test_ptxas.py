"""What ptxas makes of the kernels: no spills, no local memory, and no more registers than the baseline."""

import json
import os
import shutil

import ptxas
import pytest

NVCC = shutil.which("nvcc", path=os.pathsep.join([os.environ.get("CUDA_HOME", "") + "/bin", os.environ["PATH"]]))
BASELINE = json.loads(ptxas.BASELINE.read_text())


@pytest.mark.parametrize("architecture", ptxas.ARCHITECTURES)
def test_baseline_has_no_spills(architecture):
    kernels = BASELINE["kernels"][architecture]
    assert len(kernels) > 30
    assert {name: k for name, k in kernels.items() if k["spills"] or k["stack"]} == {}


@pytest.fixture(scope="module")
def measured():
    return ptxas.measure(NVCC)


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc; put it on the PATH, or point CUDA_HOME at a toolkit")
@pytest.mark.parametrize("architecture", ptxas.ARCHITECTURES)
def test_kernels_against_the_baseline(measured, architecture):
    baseline, found = BASELINE["kernels"][architecture], measured[architecture]
    assert found.keys() == baseline.keys()
    assert {name: k for name, k in found.items() if k["spills"] or k["stack"]} == {}
    if ptxas.nvcc_version(NVCC) == BASELINE["nvcc"]:
        # A few registers more or less come and go with unrelated changes.
        worse = {n: (k["registers"], baseline[n]["registers"]) for n, k in found.items()
                 if k["registers"] > baseline[n]["registers"] + 8 or k["shared"] > baseline[n]["shared"]}  # fmt: skip
        assert worse == {}
