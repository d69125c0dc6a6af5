"""The portable CPU kernels as another compiler, or a compiler for another processor, builds them."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from cases import assert_within_budget, features, gradients

from itrd_kernels import itrd_loss

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
SOURCES = [HERE / "driver.cpp", CSRC / "cpu" / "isa" / "portable.cpp", CSRC / "cpu" / "buffer.cpp"]
ALPHA = 1.5
# As in csrc/matrix.h.
CODES = {torch.float64: 0, torch.float32: 1, torch.bfloat16: 2, torch.float16: 3}


@pytest.fixture(
    scope="module", params=[("clang++", None), ("aarch64-linux-gnu-g++", "qemu-aarch64")], ids=lambda p: p[0]
)
def run(request, tmp_path_factory):
    """(z_s, z_t) → both losses and both gradients of their sum."""
    compiler, emulator = request.param
    for tool in filter(None, request.param):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    program = tmp_path_factory.mktemp("driver") / "driver"
    flags = ["-std=c++17", "-O2", "-fno-math-errno", "-Wno-psabi", "-pthread", "-static", f"-I{CSRC}"]
    subprocess.run([compiler, *flags, *SOURCES, "-o", program], check=True)
    command = [emulator, program] if emulator else [program]

    def call(z_s, z_t):
        def raw(z):
            return z.contiguous().view(torch.uint8).numpy().tobytes()

        header = struct.pack("<4qd", CODES[z_s.dtype], z_s.itemsize, *z_s.shape, ALPHA)
        done = subprocess.run(command, input=header + raw(z_s) + raw(z_t), capture_output=True, check=True)
        results = bytearray(done.stdout)
        losses = torch.frombuffer(results, dtype=torch.float64, count=2)
        grads = torch.frombuffer(results, dtype=z_s.dtype, offset=16).view(2, *z_s.shape)
        return losses, grads

    return call


@pytest.mark.parametrize("dtype", CODES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(3, 2), (67, 45), (130, 77), (69, 272), (256, 128)])
def test_parity(run, dtype, n, d):
    z_s, z_t = features(n, d, dtype, 1), features(n, d, dtype, 2)
    losses, grads = run(z_s, z_t)
    (exact, exact_grads), (rough, rough_grads) = (
        gradients(
            lambda s, t: itrd_loss(s, t, alpha=ALPHA, beta_corr=1, beta_mi=1, backend="reference").total,
            (z_s.to(kind), z_t.to(kind)),
        )
        for kind in (torch.float64, torch.promote_types(dtype, torch.float32))
    )
    assert_within_budget(losses.sum(), rough, exact, rough.dtype, size=exact.abs() + 1)
    for grad, rough_grad, exact_grad in zip(grads, rough_grads, exact_grads, strict=True):
        assert_within_budget(grad, rough_grad, exact_grad, dtype, size=exact_grad.abs().max())
