"""The CUDA library for GPUs, in a CUDA build of torch without a GPU: it loads, and says clearly what it cannot do."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import itrd_kernels
from itrd_kernels import schema
from itrd_kernels.backends import emulated, native

pytestmark = pytest.mark.skipif(
    emulated.CUDA_ON_HOST or torch.version.cuda is None or native.unavailable("cuda") is not None,
    reason=f"not with the CUDA library of {torch.__version__}: {native.unavailable('cuda')}",
)


def test_schemas_are_those_of_python():
    for overload, expected in (
        (torch.ops.itrd_cuda.forward, schema.FORWARD),
        (torch.ops.itrd_cuda.backward, schema.BACKWARD),
        (torch.ops.itrd_cuda.gram, schema.GRAM),
    ):
        assert str(overload.default._schema) == str(torch._C.parse_schema(f"itrd_cuda::{expected}"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("raw", [True, False])
def test_fake_cuda_tensors(dtype, raw):
    wide = torch.promote_types(dtype, torch.float32)
    with FakeTensorMode():
        z_e, z_t = torch.empty(20, 8, device="cuda", dtype=dtype), torch.empty(20, 8, device="cuda", dtype=dtype)
        z_s = torch.empty(20, 5, device="cuda", dtype=dtype) if raw else None
        wants = (True, True, raw)
        results = torch.ops.itrd_cuda.forward(z_e, z_t, z_s, 1.5, 2.0, 1.0, False, *wants, False)
        assert [tuple(r.shape) for r in results] == [(), (), (), (8, 8), (20, 5 if raw else 8), (20, 8)]
        assert all(r.dtype == wide and r.device.type == "cuda" for r in results)
        g = torch.empty((), device="cuda", dtype=wide)
        grads = torch.ops.itrd_cuda.backward(g, None, None, z_e, z_t, z_s, *results[3:], 2.0, 1.0, *wants)
        assert [tuple(r.shape) for r in grads] == [(20, 8), (20, 8), (20, 5) if raw else (0,)]
        assert all(r.dtype == dtype and r.device.type == "cuda" for r in grads)


@pytest.mark.parametrize("raw", [True, False])
def test_opcheck_on_fake_cuda_tensors(raw):
    with FakeTensorMode():
        z_e, z_t = torch.empty(20, 8, device="cuda"), torch.empty(20, 8, device="cuda")
        z_s = torch.empty(20, 5, device="cuda") if raw else None
        wants = (True, True, raw)
        forward = (z_e, z_t, z_s, 1.5, 2.0, 1.0, False, *wants, False)
        torch.library.opcheck(torch.ops.itrd_cuda.forward.default, forward)
        saved = torch.ops.itrd_cuda.forward(*forward)[3:]
        backward = (torch.empty((), device="cuda"), None, None, z_e, z_t, z_s, *saved, 2.0, 1.0, *wants)
        torch.library.opcheck(torch.ops.itrd_cuda.backward.default, backward)


def test_operator_is_not_defined_for_cpu_tensors():
    z = torch.randn(4, 3)
    with pytest.raises(NotImplementedError, match=r"itrd_cuda::forward.*CPU"):
        torch.ops.itrd_cuda.forward(z, z, None, 1.5, 2.0, 1.0, False, False, False, False, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu():
    reason = itrd_kernels.available_backends()["cuda"]
    assert "sees no GPU: install its driver" in reason
    assert "ITRD_" not in reason
    z = torch.randn(4, 3)
    with pytest.raises(RuntimeError, match="backend='cuda' cannot run on cpu.*runs on cuda tensors"):
        itrd_kernels.functional.correlation_loss(z, z, backend="cuda")


def test_a_broken_library_is_a_reason(tmp_path):
    code = f"""
import importlib.util, pathlib, shutil, sys
package = pathlib.Path({str(tmp_path)!r}) / "itrd_kernels"
installed = pathlib.Path(importlib.util.find_spec("itrd_kernels").origin).parent
shutil.copytree(installed, package, ignore=shutil.ignore_patterns("*.so"))
(package / "_cuda.abi3.so").write_text("no library")
sys.path.insert(0, {str(tmp_path)!r})
import itrd_kernels
print(itrd_kernels.available_backends()["cuda"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "_cuda.abi3.so does not load" in done.stdout
    assert "CUDA toolkit" in done.stdout
