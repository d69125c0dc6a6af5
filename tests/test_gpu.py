"""Backends for GPUs on a real one: `pytest -m gpu tests/test_gpu.py`. Skipped, with the reason, where there is none.

With ITRD_GPU_TESTS_ON_CPU=1 those tests run that need no GPU, on small shapes: Triton's under TRITON_INTERPRET=1, CUDA
C++ under ITRD_CUDA_ON_HOST=1. That is how they are tried before a GPU is there.
"""

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from cases import DTYPES, assert_within_budget, features

from benchmarks.gpu.clock import capture
from benchmarks.gpu.contenders import precision
from itrd_kernels import FusedITRDLoss
from itrd_kernels.functional import itrd_loss

ON_CPU = os.environ.get("ITRD_GPU_TESTS_ON_CPU") == "1"
DEVICE = "cpu" if ON_CPU else "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (ON_CPU or torch.cuda.is_available()), reason=f"torch {torch.__version__} sees no GPU"),
]
needs_gpu = pytest.mark.skipif(ON_CPU, reason="is about the GPU itself")

SHAPES = [(2, 1, 3), (65, 33, 20), (257, 513, 128), (700, 64, 64), (2050, 96, 40)][: 1 if ON_CPU else None]


def step(inputs, backend, log=False, wanted=(True, True, True)):
    leaves = [z.detach().requires_grad_(want) for z, want in zip(inputs, wanted, strict=False)]
    total = itrd_loss(*leaves, log=log, backend=backend).total
    total.backward()
    return total.detach(), [z.grad for z in leaves if z.requires_grad]


def on_gpu(n, d, d_s, dtype, device=DEVICE):
    return [features(n, width, dtype, seed).to(device) for seed, width in enumerate((d, d, d_s), 1)]


def assert_parity(inputs, backend, log=False, wanted=(True, True, True), size=0.0):
    """Within the budget of the plain formula, losses and gradients."""
    dtype = inputs[0].dtype
    plain = torch.promote_types(dtype, torch.float32)
    total, grads = step(inputs, backend, log, wanted)
    rough, exact = (step([z.to(kind) for z in inputs], "reference", log, wanted) for kind in (plain, torch.float64))
    assert_within_budget(total, rough[0], exact[0], plain, size=4.0)
    for grad, plain_grad, true_grad in zip(grads, rough[1], exact[1], strict=True):
        assert_within_budget(grad, plain_grad, true_grad, dtype, size=size)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("n", "d", "d_s"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parity(gpu_backend, dtype, n, d, d_s, log):
    # At n = 2 the gradient of the correlation cancels to nothing.
    assert_parity(on_gpu(n, d, d_s, dtype), gpu_backend, log, size=1.0 if n == 2 else 0.0)


@pytest.mark.parametrize("wanted", [(False, True, False), (False, False, True), (True, False, False)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_gradient_alone(gpu_backend, dtype, wanted):
    assert_parity(on_gpu(*((9, 7, 5) if ON_CPU else (257, 96, 40)), dtype), gpu_backend, wanted=wanted)


@pytest.mark.parametrize(("n", "d"), [(9, 7)] if ON_CPU else [(65, 33), (512, 512), (1000, 200), (2050, 96)])
def test_tf32(gpu_backend, n, d):
    """Products of rounded operands: a result may be off by four roundings of tf32, 2⁻¹⁰ each."""
    inputs = on_gpu(n, d, d // 2 + 1, torch.float32)
    exact = step([z.double() for z in inputs], "reference")
    full = step(inputs, gpu_backend)
    with precision("tf32"):
        total, grads = step(inputs, gpu_backend)
    for ours, truth in zip((total, *grads), (exact[0], *exact[1]), strict=True):
        assert (ours - truth).norm() <= 4 * 2.0**-10 * max(truth.norm().item(), 1.0 if truth.dim() == 0 else 0.0)
    # The setting was heard: z_s' gradient, which is the Gram term's alone, is another one than in float32.
    if gpu_backend == "cuda" or not ON_CPU:
        assert not torch.equal(full[1][2], grads[2])


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_panels(gpu_backend, dtype):
    """More rows than W has room for at once."""
    n, d = 9000, 48
    if gpu_backend == "triton":
        from itrd_kernels.backends.triton import configurations

        assert len(configurations.panels(n, -(-n // 64), 64, dtype, 2, d)) > 1
    assert_parity(on_gpu(n, d, d, dtype), gpu_backend)


def zero_rows(z):
    z[::5] = 0


def dead_columns(z):
    z[:, ::5] = 0.1


def large_rows(z):
    z[::5] *= 1e4 if z.dtype == torch.float16 else 1e25


def small_rows(z):
    z[::5] *= 1e-3 if z.dtype == torch.float16 else 1e-25


@pytest.mark.parametrize("harden", [zero_rows, dead_columns, large_rows, small_rows])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_hard_inputs(gpu_backend, dtype, harden):
    inputs = on_gpu(*((9, 7, 5) if ON_CPU else (130, 64, 40)), dtype)
    for z in inputs:
        harden(z)
    assert_parity(inputs, gpu_backend)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_is_not_finite_surfaces(gpu_backend, dtype, value):
    for place in range(3):
        inputs = on_gpu(*((9, 7, 5) if ON_CPU else (130, 64, 40)), dtype)
        inputs[place][3, 2] = value
        assert not step(inputs, gpu_backend)[0].isfinite()


@pytest.mark.parametrize(("d_s", "d_t"), [(6, 6), (6, 8)] if ON_CPU else [(64, 64), (64, 96)])
@pytest.mark.parametrize("autocast", [False, True])
def test_module(gpu_backend, d_s, d_t, autocast):
    """With its embedding, and under autocast as in a training loop, against the reference backend."""
    results = []
    for backend in (gpu_backend, "reference"):
        torch.manual_seed(0)
        criterion = FusedITRDLoss(d_s, d_t, backend=backend).to(DEVICE)
        n = 9 if ON_CPU else 130
        z_s = features(n, d_s, torch.float32, 1).to(DEVICE).requires_grad_()
        z_t = features(n, d_t, torch.float32, 2).to(DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
            loss = criterion(z_s, z_t)
        loss.backward()
        results.append([loss.detach(), z_s.grad, *(p.grad for p in criterion.parameters())])
    # The embedding's bias is inert where the Gram term reads raw features: its gradient is rounding alone.
    largest = max(expected.norm().item() for expected in results[1][1:])
    for index, (ours, expected) in enumerate(zip(*results, strict=True)):
        # A gradient in bfloat16 on its way through the embedding is rounded once more by each backend.
        roundings = 2.0**-6 if autocast and index else 1e-4
        assert (ours - expected).norm() <= roundings * (largest if index else max(expected.abs().item(), 1e-2))


@pytest.mark.parametrize("teacher", [False, True])
def test_compile(gpu_backend, teacher):
    torch._dynamo.reset()
    criterion = FusedITRDLoss(6, 8, backend=gpu_backend).to(DEVICE)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager" if ON_CPU else "inductor")
    for n in (9, 12):
        z_s = features(n, 6, torch.float32, 1).to(DEVICE).requires_grad_()
        z_t = features(n, 8, torch.float32, 2).to(DEVICE).requires_grad_(teacher)
        leaves = [z_s, *criterion.parameters()] + [z_t] * teacher
        results = []
        for function in (compiled, criterion):
            loss = function(z_s, z_t)
            results.append([loss, *torch.autograd.grad(loss, leaves)])
        for ours, eager in zip(*results, strict=True):
            torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_repeat_bit_for_bit(gpu_backend, dtype):
    inputs = on_gpu(*((9, 7, 5) if ON_CPU else (1000, 200, 100)), dtype)
    first = step(inputs, gpu_backend)
    for _ in range(2 if ON_CPU else 5):
        again = step(inputs, gpu_backend)
        assert torch.equal(first[0], again[0])
        assert all(torch.equal(a, b) for a, b in zip(first[1], again[1], strict=True))


@needs_gpu
def test_streams(gpu_backend):
    """On a stream of its own, and on two at once: what each computes is its own."""
    inputs = on_gpu(1000, 200, 100, torch.bfloat16), on_gpu(513, 64, 32, torch.float32)
    expected = [step(pair, gpu_backend) for pair in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    for _ in range(10):
        found = []
        for stream, pair in zip(streams, inputs, strict=True):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                found.append(step(pair, gpu_backend))
        for stream in streams:
            torch.cuda.current_stream().wait_stream(stream)
        for ours, alone in zip(found, expected, strict=True):
            assert torch.equal(ours[0], alone[0])
            assert all(torch.equal(a, b) for a, b in zip(ours[1], alone[1], strict=True))


@needs_gpu
def test_cuda_graph(gpu_backend):
    inputs = on_gpu(128, 64, 32, torch.float32)
    leaves = [z.clone().requires_grad_() for z in inputs]

    def run():
        total = itrd_loss(*leaves, backend=gpu_backend).total
        return total, *torch.autograd.grad(total, leaves)

    captured: Any
    replay, captured = capture(run)
    fresh = on_gpu(128, 64, 32, torch.float32)
    with torch.no_grad():
        for leaf, z in zip(leaves, fresh, strict=True):
            leaf.copy_(z * 1.5 + 0.25)
    replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, run(), strict=True))


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_second_gpu(gpu_backend):
    first, second = (step(on_gpu(65, 33, 20, torch.float32, device), gpu_backend) for device in ("cuda:0", "cuda:1"))
    assert second[0].device == torch.device("cuda:1")
    torch.testing.assert_close(first[0], second[0].to("cuda:0"))


@needs_gpu
def test_forward_and_backward_do_not_synchronise(gpu_backend):
    inputs = on_gpu(300, 64, 64, torch.float32)
    step(inputs, gpu_backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs, gpu_backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
@needs_gpu
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="no compute-sanitizer on the PATH")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_compute_sanitizer(gpu_backend, tool):
    """The command of the section `sanitizer` of benchmarks/gpu_day.py, on one kind of inputs."""
    from benchmarks.gpu.sections import sanitizer

    program = [sys.executable, "-m", "benchmarks.gpu.sections.one_step", "cuda", gpu_backend, "bfloat16:70×37:raw"]
    told = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(
        ["compute-sanitizer", *sanitizer.options(tool), *program], capture_output=True, text=True, env=told
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "steps done" in done.stdout
