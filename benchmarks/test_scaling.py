"""How does the time grow with n? Forward and backward at d = 256."""

import pytest

from benchmarks import peers
from benchmarks.timing import features, interleave, step

D = 256
QUICK = (64, 128)


@pytest.mark.parametrize(
    "n", [*(pytest.param(n, marks=pytest.mark.quick) for n in QUICK), 256, 512, 1024, 2048, 4096, 8192]
)
def test_time_against_n(n, benchmark, budget, fma_rate, record):
    z_s, z_t = features(n, D)
    medians = interleave(
        benchmark,
        budget,
        step(peers.fused(D), z_s, z_t),
        {"plain": step(peers.plain(D), z_s, z_t)},
        probes={"fma_rate": fma_rate},
    )
    record("scaling", n=n, d=D, fma_rate=medians.pop("fma_rate"), seconds=medians)
    assert medians["fused"] < budget.slack * medians["plain"]


def test_doubling(benchmark, budget, record):
    n = 8192
    loss = peers.fused(D)
    medians = interleave(benchmark, budget, step(loss, *features(n, D)), {"half": step(loss, *features(n // 2, D))})
    record("doubling", n=n, d=D, seconds=medians)
    assert medians["fused"] < 8 * medians["half"]
