"""The pair losses on a GPU: `pytest -m gpu tests/test_gpu_pairs.py`, as tests/test_gpu.py does the others."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import test_schedules as schedules
import torch
from cases import DTYPES, assert_within_budget, features
from pair_sizes import pkt_sizes, polynomial_sizes
from test_gpu import DEVICE, ON_CPU, needs_gpu, pytestmark  # noqa: F401

from benchmarks.gpu.clock import capture
from itrd_kernels import mutual_information_loss, pkt_loss

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "pkt": pkt_loss,
    "polynomial": lambda s, t, backend: mutual_information_loss(s, t, kernel=(0.5, 3), backend=backend),
    "logarithms": lambda s, t, backend: mutual_information_loss(s, t, kernel=(1.0, 2), log=True, backend=backend),
}
# What rounding errors of the gradients are measured by.
SIZES = {
    "pkt": lambda *z, precision: pkt_sizes(*z, 1e-7, precision),
    "polynomial": lambda *z, precision: polynomial_sizes(*z, (0.5, 3), False, precision),
    "logarithms": lambda *z, precision: polynomial_sizes(*z, (1.0, 2), True, precision),
}
SHAPE = (33, 12, 7) if ON_CPU else (300, 96, 40)


def inputs(dtype, shape=SHAPE):
    n, *widths = shape
    return [features(n, d, dtype, seed).to(DEVICE).requires_grad_() for seed, d in enumerate(widths, 1)]


def step(loss, z, backend):
    value = LOSSES[loss](*z, backend=backend)
    return value.detach(), *torch.autograd.grad(value, z)


@pytest.mark.parametrize("masks", ["all", "some", "zero rows"])
@pytest.mark.parametrize("own", [None, (0.3, 0.7), (0.4, 0.4)], ids=["triangle", "rectangle", "no rows"])
@pytest.mark.parametrize("loss", schedules.LOSSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sweeps(gpu_backend, dtype, loss, own, masks):
    for shape in [(33, 12, 7)] if ON_CPU else [(65, 24, 130), (300, 96, 48), (700, 33, 64)]:
        s, t, keep = schedules.batch(*shape, dtype, masks)
        z, keep = (s.to(DEVICE), t.to(DEVICE)), None if keep is None else keep.to(DEVICE)
        schedules.compare(gpu_backend, z, keep, loss, own, dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parity(gpu_backend, dtype, loss):
    wide = torch.promote_types(dtype, torch.float32)
    for shape in [SHAPE] if ON_CPU else [SHAPE, (2, 3, 4), (1100, 64, 512)]:
        z = inputs(dtype, shape)
        found = step(loss, z, gpu_backend)
        plain, exact = (
            step(loss, [x.detach().to(kind).requires_grad_() for x in z], "reference") for kind in (wide, torch.float64)
        )
        precision = np.float64 if wide == torch.float64 else np.float32
        value, terms = SIZES[loss](*(x.detach().double().cpu().numpy() for x in z), precision=precision)
        assert_within_budget(found[0], plain[0], exact[0], wide, size=value)
        for grad, rough, true, size in zip(found[1:], plain[1:], exact[1:], terms, strict=True):
            assert_within_budget(grad, rough, true, dtype, size=np.linalg.norm(size))


@pytest.mark.parametrize("loss", LOSSES)
def test_results_repeat_bit_for_bit(gpu_backend, loss):
    z = inputs(torch.float32)
    first = step(loss, z, gpu_backend)
    for _ in range(2 if ON_CPU else 5):
        assert all(torch.equal(a, b) for a, b in zip(first, step(loss, z, gpu_backend), strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_compile(gpu_backend, loss):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda s, t: LOSSES[loss](s, t, backend=gpu_backend),
        fullgraph=True,
        backend="aot_eager" if ON_CPU else "inductor",
    )
    z = inputs(torch.float32)
    value = compiled(*z)
    for ours, eager in zip((value, *torch.autograd.grad(value, z)), step(loss, z, gpu_backend), strict=True):
        torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-6)


@needs_gpu
@pytest.mark.parametrize("loss", LOSSES)
def test_cuda_graph(gpu_backend, loss):
    z = inputs(torch.float32)
    captured: Any
    replay, captured = capture(lambda: step(loss, z, gpu_backend))
    with torch.no_grad():
        for x in z:
            x.copy_(x * 1.5 + 0.25)
    replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(loss, z, gpu_backend), strict=True))


@needs_gpu
@pytest.mark.parametrize("loss", LOSSES)
def test_steps_do_not_synchronise(gpu_backend, loss):
    z = inputs(torch.float32)
    step(loss, z, gpu_backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(loss, z, gpu_backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_a_rectangle_in_panels(gpu_backend):
    """More rows of W than there is room for at once."""
    s, t, keep = schedules.batch(9000, 48, 24, torch.float32, "some")
    for loss in schedules.LOSSES:
        for own in (None, (0.1, 0.9)):
            schedules.compare(gpu_backend, (s.to(DEVICE), t.to(DEVICE)), keep.to(DEVICE), loss, own, torch.float32)
