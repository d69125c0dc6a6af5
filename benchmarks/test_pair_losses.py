"""What do the other losses of pairs of rows cost, beside autograd of their plain formulas and beside L_mi?"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import trace
from benchmarks.timing import features, interleave, step
from itrd_kernels import mutual_information_loss, pkt_loss

EPS = 1e-7
KERNEL = (1.0, 2)
QUICK = (64, 128)
SHAPES = (QUICK, (256, 512), (1024, 512), (4096, 256))


def plain_pkt(z_s: Tensor, z_t: Tensor) -> Tensor:
    """The definition, as the published code has it."""
    q, p = ((F.normalize(z) @ F.normalize(z).T + 1) / 2 for z in (z_s, z_t))
    q, p = q / q.sum(1, keepdim=True), p / p.sum(1, keepdim=True)
    return (p * torch.log((p + EPS) / (q + EPS))).mean()


def plain_polynomial(z_s: Tensor, z_t: Tensor) -> Tensor:
    c, p = KERNEL
    g_s, g_t = ((F.normalize(z) @ F.normalize(z).T + c) ** p for z in (z_s, z_t))
    g_st = g_s * g_t
    return (g_s / trace(g_s)).square().sum() - (g_st / trace(g_st)).square().sum()


LOSSES = {
    "pkt": (lambda s, t, **options: pkt_loss(s, t, eps=EPS, **options), plain_pkt),
    "polynomial": (lambda s, t, **options: mutual_information_loss(s, t, kernel=KERNEL, **options), plain_polynomial),
}


@pytest.mark.parametrize(
    ("n", "d"), [pytest.param(*shape, marks=[pytest.mark.quick] if shape == QUICK else []) for shape in SHAPES]
)
@pytest.mark.parametrize("name", LOSSES)
def test_pair_losses(name, n, d, benchmark, budget, record):
    fused, plain = LOSSES[name]
    z_s, z_t = features(n, d)
    gradients = []
    for loss in (fused, plain):
        z_s.grad = None
        loss(z_s, z_t).backward()
        gradients.append(z_s.grad)
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm()
    contenders = {"plain": step(plain, z_s, z_t), "mutual_information": step(mutual_information_loss, z_s, z_t)}
    medians = interleave(benchmark, budget, step(fused, z_s, z_t), contenders)
    record("pair_losses", loss=name, n=n, d=d, seconds=medians)
    assert medians["fused"] < budget.slack * medians["plain"]
