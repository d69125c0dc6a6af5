"""How near is the fused loss to what the machine allows? Overhead, memory bandwidth, bfloat16, forward alone."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from benchmarks import machine, peers
from benchmarks.targets import copy_floor
from benchmarks.timing import features, interleave, step
from itrd_kernels import dispatch
from itrd_kernels.functional import correlation_loss

LARGE = ((1024, 512), (1024, 2048), (4096, 768), (8192, 256))
BFLOAT16_BUDGET = 4 * torch.finfo(torch.bfloat16).eps


def shapes(*quick):
    """The shapes of a matrix product that fills the machine; a run with --quick takes `quick` alone."""
    return pytest.mark.parametrize(("n", "d"), [pytest.param(*quick, marks=pytest.mark.quick), *LARGE])


@pytest.fixture(scope="module")
def null_operators(tmp_path_factory):
    """A context in which the module calls operators that do nothing."""
    operators = machine.build_null_operators(tmp_path_factory.mktemp("null_operators"))
    return lambda: mock.patch.dict(dispatch._OPERATORS, {"cpu": operators})


@pytest.mark.parametrize("d", [pytest.param(64, marks=pytest.mark.quick), 128, 256, 512])
def test_overhead(d, benchmark, budget, fma_rate, null_operators, record):
    n = 64
    z_s, z_t = features(n, d)
    loss = peers.fused(d)
    with null_operators():
        assert loss(z_s, z_t).isnan(), "the module did not call the null operators"
    fused = step(loss, z_s, z_t)
    medians = interleave(
        benchmark,
        budget,
        fused,
        {"null": fused},
        surroundings={"null": null_operators},
        probes={"fma_rate": fma_rate},
    )
    record("overhead", n=n, d=d, fma_rate=medians.pop("fma_rate"), seconds=medians)
    assert medians["null"] < 1.5 * budget.slack * medians["fused"]


@pytest.mark.quick
@pytest.mark.last
def test_correlation_bandwidth(benchmark, budget, quick, record):
    """Correlation alone, on inputs of three times the last-level cache together, is bound by memory."""
    d, size = 2048, 8 * 2**20 if quick else 3 * machine.last_level_cache()
    n = size // (2 * 4 * d)
    if 3 * size > machine.available_memory():
        pytest.skip(f"needs {3 * size / 2**30:.1f} GiB of memory")
    z_s, z_t = features(n, d)
    target = torch.zeros_like(z_t)
    copy = {"copy_bandwidth": lambda: machine.copy_once(z_t, target)}
    with machine.kept_memory():
        medians = interleave(benchmark, budget, step(correlation_loss, z_s, z_t), {}, probes=copy)
    row = {"n": n, "d": d, "copy_bandwidth": medians.pop("copy_bandwidth"), "seconds": medians}
    record("bandwidth", beyond_cache=not quick, **row)
    # Faster than a tenth of what copying allows would mean that something was left out.
    assert medians["fused"] > 0.1 * copy_floor(row)


@pytest.mark.skipif(not machine.has("avx512_bf16"), reason="the processor has no AVX512-BF16")
@shapes(256, 512)
def test_bfloat16(n, d, benchmark, budget, record):
    z_s, z_t = features(n, d)
    half_s, half_t = (z.detach().bfloat16() for z in (z_s, z_t))
    half_s.requires_grad_()
    loss = peers.fused(d)
    loss(half_s, half_t).backward()
    rounded = half_s.detach().float().requires_grad_()
    peers.plain(d)(rounded, half_t.float()).backward()
    error = ((half_s.grad - rounded.grad).norm() / rounded.grad.norm()).item()
    medians = interleave(benchmark, budget, step(loss, half_s, half_t), {"float32": step(loss, z_s, z_t)})
    record("bfloat16", n=n, d=d, seconds=medians, error=error)
    assert error <= BFLOAT16_BUDGET


@shapes(256, 512)
def test_forward_only(n, d, benchmark, budget, record):
    z_s, z_t = features(n, d)
    loss = peers.fused(d)

    def forward() -> None:
        with torch.no_grad():
            loss(z_s, z_t)

    medians = interleave(benchmark, budget, forward, {"forward + backward": step(loss, z_s, z_t)})
    record("forward_only", n=n, d=d, seconds=medians)
    assert medians["fused"] < budget.slack * medians["forward + backward"]


@contextmanager
def threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.get_num_threads() < 2, reason="torch has one thread only")
@pytest.mark.parametrize(("n", "d"), [(256, 2048), pytest.param(256, 512, marks=pytest.mark.quick), *LARGE])
def test_two_threads(n, d, benchmark, budget, record):
    z_s, z_t = features(n, d)
    run = step(peers.fused(d), z_s, z_t)
    with threads(2):
        one = {"one thread": lambda: threads(1)}
        medians = interleave(benchmark, budget, run, {"one thread": run}, surroundings=one)
    record("threads", n=n, d=d, seconds=medians)
    assert medians["fused"] < 1.5 * budget.slack * medians["one thread"]
