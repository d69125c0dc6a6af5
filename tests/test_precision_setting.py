"""Whether float32 products may run in TF32: either of PyTorch's interfaces is read, by every call and every graph."""

import pytest
import torch
from cases import features, run_python

from itrd_kernels import itrd_loss
from itrd_kernels.dispatch import Settings

MATMUL, EVERYTHING = "torch.backends.cuda.matmul.fp32_precision = ", "torch.backends.fp32_precision = "
# What is set, and whether TF32 is allowed then.
SETTINGS = {
    "pass": False,
    "torch.backends.cuda.matmul.allow_tf32 = True": True,
    "torch.backends.cuda.matmul.allow_tf32 = False": False,
    "torch.set_float32_matmul_precision('high')": True,
    "torch.set_float32_matmul_precision('highest')": False,
    MATMUL + "'tf32'": True,
    MATMUL + "'ieee'": False,
    EVERYTHING + "'tf32'": True,
    EVERYTHING + "'ieee'": False,
    f"{EVERYTHING}'tf32'; {MATMUL}'ieee'": False,
    f"{MATMUL}'tf32'; {EVERYTHING}'ieee'": True,
    f"torch.backends.cuda.matmul.allow_tf32 = True; {MATMUL}'ieee'": False,
    f"{MATMUL}'tf32'; torch.set_float32_matmul_precision('highest')": False,
}


@pytest.fixture
def precision():
    """Sets a precision, and brings back what PyTorch starts with."""
    yield exec
    torch.set_float32_matmul_precision("highest")
    exec(MATMUL + "'none'")
    exec(EVERYTHING + "'none'")


def reads_tf32(z):
    return z + Settings.of("triton", z, z, None, 1.5, 2.0, 1.0, False).tf32


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_setting_is_honoured(setting, precision):
    precision(setting)
    z = features(6, 3, torch.float32, 1)
    assert Settings.of("triton", z, z, None, 1.5, 2.0, 1.0, False).tf32 == SETTINGS[setting]
    assert not Settings.of("cpu", z, z, None, 1.5, 2.0, 1.0, False).tf32


@pytest.mark.parametrize("setting", [MATMUL, EVERYTHING])
def test_graphs_follow_the_setting(setting, precision):
    torch._dynamo.reset()
    compiled, z = torch.compile(reads_tf32, fullgraph=True, backend="eager"), torch.zeros(6, 3)
    assert not compiled(z).any()
    precision(setting + "'tf32'")
    assert compiled(z).all()
    precision(MATMUL + "'ieee'")
    assert not compiled(z).any()


@pytest.mark.parametrize("setting", [MATMUL + "'tf32'", EVERYTHING + "'tf32'"])
def test_every_backend_runs_under_the_recommended_interface(backend, setting, precision):
    precision(setting)
    z_s, z_t = features(12, 5, torch.float32, 1).requires_grad_(), features(12, 5, torch.float32, 2)
    total = itrd_loss(z_s, z_t, backend=backend).total
    (gradient,) = torch.autograd.grad(total, z_s)
    assert total.isfinite()
    assert gradient.isfinite().all()


def test_triton_runs_under_the_recommended_interface():
    pytest.importorskip("triton", reason="Triton is not installed here")
    code = f"""
import torch
from itrd_kernels import itrd_loss
{EVERYTHING}'tf32'
z = torch.randn(8, 4)
assert itrd_loss(z, z.flip(0), backend="triton").total.isfinite()
"""
    result = run_python("-c", code, TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stderr
