"""Backends for GPUs on a real one: `pytest -m gpu`. Skipped, with the reason, where there is none."""

import shutil
import subprocess
import sys

import pytest
import torch
from cases import DTYPES, assert_within_budget, features

import itrd_kernels
from itrd_kernels import backends
from itrd_kernels.functional import itrd_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason=f"torch {torch.__version__} sees no GPU"),
]


@pytest.fixture(params=[name for name in backends.WITH_OPERATORS if name != "cpu"])
def gpu_backend(request):
    reason = itrd_kernels.available_backends()[request.param]
    if reason is not None:
        pytest.skip(reason)
    return request.param


def step(inputs, backend, log=False):
    leaves = [z.detach().requires_grad_() for z in inputs]
    total = itrd_loss(*leaves, log=log, backend=backend).total
    total.backward()
    return total.detach(), [z.grad for z in leaves]


def on_gpu(n, d, d_s, dtype, device="cuda"):
    return [features(n, width, dtype, seed).to(device) for seed, width in enumerate((d, d, d_s), 1)]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("n", "d", "d_s"), [(2, 1, 3), (65, 33, 20), (257, 513, 128), (700, 64, 64), (2050, 96, 40)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parity(gpu_backend, dtype, n, d, d_s, log):
    inputs = on_gpu(n, d, d_s, dtype)
    total, grads = step(inputs, gpu_backend, log)
    plain = torch.promote_types(dtype, torch.float32)
    rough, exact = (step([z.to(kind) for z in inputs], "reference", log) for kind in (plain, torch.float64))
    assert_within_budget(total, rough[0], exact[0], plain, size=4.0)
    for grad, plain_grad, true_grad in zip(grads, rough[1], exact[1], strict=True):
        # At n = 2 the gradient of the correlation cancels to nothing.
        assert_within_budget(grad, plain_grad, true_grad, dtype, size=1.0 if n == 2 else 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_repeat_bit_for_bit(gpu_backend, dtype):
    inputs = on_gpu(1000, 200, 100, dtype)
    first = step(inputs, gpu_backend)
    for _ in range(5):
        again = step(inputs, gpu_backend)
        assert torch.equal(first[0], again[0])
        assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


def test_cuda_graph(gpu_backend):
    inputs = on_gpu(128, 64, 32, torch.float32)
    leaves = [z.clone().requires_grad_() for z in inputs]

    def run():
        total = itrd_loss(*leaves, backend=gpu_backend).total
        return total, *torch.autograd.grad(total, leaves)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    fresh = on_gpu(128, 64, 32, torch.float32)
    with torch.no_grad():
        for leaf, z in zip(leaves, fresh, strict=True):
            leaf.copy_(z * 1.5 + 0.25)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, run(), strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_second_gpu(gpu_backend):
    first, second = (step(on_gpu(65, 33, 20, torch.float32, device), gpu_backend) for device in ("cuda:0", "cuda:1"))
    assert second[0].device == torch.device("cuda:1")
    torch.testing.assert_close(first[0], second[0].to("cuda:0"))


def test_forward_and_backward_do_not_synchronise(gpu_backend):
    inputs = on_gpu(300, 64, 64, torch.float32)
    step(inputs, gpu_backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs, gpu_backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer on the PATH")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer(gpu_backend, tool):
    code = f"""
import torch
from itrd_kernels import itrd_loss
for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
    for n, d, d_s in ((70, 37, 21), (130, 64, 64)):
        leaves = [torch.randn(n, width, device="cuda", dtype=dtype).requires_grad_() for width in (d, d, d_s)]
        itrd_loss(*leaves, backend={gpu_backend!r}).total.backward()
torch.cuda.synchronize()
"""
    command = ["compute-sanitizer", "--tool", tool, "--kernel-name-exclude", "regex:at::", "--error-exitcode", "9"]
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
