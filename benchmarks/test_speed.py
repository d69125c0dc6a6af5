"""How much faster is the fused loss than its peers? Forward and backward, float32, one interleaved run per shape."""

import pytest
import torch

from benchmarks import peers
from benchmarks.timing import features, interleave, step

QUICK = ((64, 64),)
GRID = (
    *QUICK,
    (64, 128),
    (256, 512),
    (64, 256),
    (64, 512),
    (128, 2048),
    (256, 2048),
    (1024, 512),
    (1024, 2048),
    (4096, 768),
    (8192, 256),
)


@pytest.mark.parametrize(
    ("n", "d"), [pytest.param(*shape, marks=[pytest.mark.quick] if shape in QUICK else []) for shape in sorted(GRID)]
)
def test_against_peers(n, d, benchmark, budget, fma_rate, record):
    z_s, z_t = features(n, d)
    left_out = {name: peers.why_not(name) for name in ("compiled", "onednn") if peers.why_not(name)}
    names = [name for name in ("plain", "compiled", "onednn") if name not in left_out]
    losses = {name: peers.PEERS[name](d) for name in ("fused", *names)}
    for name in names:
        assert_same_loss(losses["fused"], losses[name], z_s, z_t)
    contenders = {name: step(loss, z_s, z_t) for name, loss in losses.items()}
    medians = interleave(benchmark, budget, contenders.pop("fused"), contenders, probes={"fma_rate": fma_rate})
    record("grid", n=n, d=d, fma_rate=medians.pop("fma_rate"), seconds=medians, left_out=left_out)
    assert medians["fused"] < budget.slack * medians["plain"]


def test_against_keops(benchmark, budget, record):
    n, d = 4096, 64
    reason = peers.why_not("keops")
    if reason:
        pytest.skip(reason)
    losses = {name: peers.PEERS[name](d) for name in ("fused", "plain", "keops")}
    try:
        # KeOps compiles for d, whatever n is.
        step(losses["keops"], *features(64, d))()
    except Exception as error:
        pytest.skip(f"KeOps cannot compile here: {error}")
    assert_same_loss(losses["fused"], losses["keops"], *features(64, d))
    z_s, z_t = features(n, d)
    contenders = {name: step(loss, z_s, z_t) for name, loss in losses.items()}
    # Its steps take most of a minute.
    few = budget._replace(seconds=0, fewest_rounds=2, most_rounds=2)
    medians = interleave(benchmark, few, contenders.pop("fused"), contenders)
    record("keops", n=n, d=d, seconds=medians)
    assert medians["fused"] < medians["keops"]


def assert_same_loss(first: peers.Loss, second: peers.Loss, z_s, z_t) -> None:
    """A contender that computes something else would make the comparison worthless."""
    results = []
    for loss in (first, second):
        z_s.grad = None
        value = loss(z_s, z_t)
        value.backward()
        results.append((value.detach(), z_s.grad))
    torch.testing.assert_close(*(value for value, _ in results), rtol=1e-4, atol=1e-4)
    gradients = [gradient for _, gradient in results]
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[0].norm()
