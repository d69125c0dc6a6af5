"""The libraries as built here, in another release of torch: both are built against the stable ABI of torch 2.11.

ITRD_OTHER_TORCH=/path/to/python pytest tests/test_other_torch.py, where that Python has torch 2.11 or later.
"""

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("ITRD_OTHER_TORCH")

pytestmark = pytest.mark.skipif(PYTHON is None, reason="ITRD_OTHER_TORCH names no Python with another torch")


def run(code):
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "ITRD_CUDA_ON_HOST": "0"}
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    print(done.stdout)


def test_cpu_library():
    run("""
import torch
from itrd_kernels import available_backends
from itrd_kernels.functional import itrd_loss
assert available_backends()["cpu"] is None, available_backends()["cpu"]
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    inputs = [torch.randn(65, width).to(dtype) for width in (33, 33, 20)]
    results = []
    for backend, kind in (("cpu", dtype), ("reference", torch.float64)):
        leaves = [z.to(kind, copy=True).requires_grad_() for z in inputs]
        losses = itrd_loss(*leaves, backend=backend)
        losses.total.backward()
        results.append([*losses, *(z.grad for z in leaves)])
    tolerance = 4 * torch.finfo(dtype).eps if dtype.itemsize == 2 else 64 * torch.finfo(dtype).eps
    for ours, exact in zip(*results):
        assert (ours.double() - exact).norm() <= tolerance * exact.norm(), (dtype, ours, exact)
print("torch", torch.__version__)
""")


def test_cuda_library():
    run("""
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from itrd_kernels import available_backends, schema
from itrd_kernels.backends import native
if torch.version.cuda is None:
    assert "does not load" in native.unavailable("cuda"), native.unavailable("cuda")
else:
    assert native.unavailable("cuda") is None, native.unavailable("cuda")
    assert torch.cuda.is_available() or "sees no GPU" in available_backends()["cuda"]
    forward = torch._C.parse_schema(f"itrd_cuda::{schema.FORWARD}")
    assert str(torch.ops.itrd_cuda.forward.default._schema) == str(forward)
    with FakeTensorMode():
        z = torch.empty(20, 8, device="cuda", dtype=torch.bfloat16)
        arguments = (z, z, None, 1.5, 2.0, 1.0, False, True, True, False, False)
        torch.library.opcheck(torch.ops.itrd_cuda.forward.default, arguments)
        saved = torch.ops.itrd_cuda.forward(*arguments)[3:]
        gradients = torch.ops.itrd_cuda.backward(None, None, None, z, z, None, *saved, 2.0, 1.0, True, True, False)
        assert [tuple(g.shape) for g in gradients] == [(20, 8), (20, 8), (0,)]
print("torch", torch.__version__, "CUDA", torch.version.cuda)
""")
