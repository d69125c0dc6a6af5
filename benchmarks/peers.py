"""The fused loss and its competitors, each a way to compute β_corr · L_corr(z_s, z_t) + β_mi · L_mi(z_s, z_t).

Every entry of `PEERS` makes, for a feature width d, a function of (z_s, z_t), both (n, d), that returns a scalar.
"""

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itrd_kernels import FusedITRDLoss

Loss = Callable[[Tensor, Tensor], Tensor]

ALPHA, BETA_CORR, BETA_MI = 1.5, 2.0, 1.0


def fused(d: int) -> Loss:
    """This project, through its module; an identity as the embedding, so that the loss alone is compared."""
    return FusedITRDLoss(d, d, BETA_CORR, BETA_MI, ALPHA, embed=nn.Identity())


def plain(d: int) -> Loss:
    """Algorithm 1 of the paper, as it stands there."""
    return lambda z_s, z_t: algorithm_1(z_s, z_t, lambda z: torch.einsum("bx,dx->bd", z, z))


def compiled(d: int) -> Loss:
    """torch.compile of Algorithm 1, specialised to the shape that it meets."""
    # A fresh cache for every shape: past eight of them Dynamo would give up and run the plain formula.
    torch.compiler.reset()
    return torch.compile(plain(d), dynamic=False)


def onednn(d: int) -> Loss:
    """Algorithm 1 with the products of oneDNN in place of those of the BLAS behind torch.mm."""
    return lambda z_s, z_t: algorithm_1(z_s, z_t, OneDNNGram.apply)


def keops(d: int) -> Loss:
    """Algorithm 1 with its Gram term in KeOps' LazyTensors, which never form an n × n array."""
    import pykeops

    pykeops.set_verbose(False)

    def loss(z_s: Tensor, z_t: Tensor) -> Tensor:
        return BETA_CORR * correlation(z_s, z_t) + BETA_MI * keops_gram(z_s, z_t)

    return loss


PEERS: dict[str, Callable[[int], Loss]] = {
    "fused": fused,
    "plain": plain,
    "compiled": compiled,
    "onednn": onednn,
    "keops": keops,
}


def why_not(name: str) -> str | None:
    """None if this peer can run here, else the reason."""
    if name == "onednn" and not torch.backends.mkldnn.is_available():
        return "this torch was built without oneDNN"
    if name == "keops" and importlib.util.find_spec("pykeops") is None:
        return "pykeops is not installed: pip install 'itrd-kernels[bench]'"
    return None


def algorithm_1(z_s: Tensor, z_t: Tensor, gram: Callable[[Tensor], Tensor]) -> Tensor:
    """Algorithm 1 of the paper without the cross-entropy; v of normalised features, as in Eq. 6."""
    g_s, g_t = gram(F.normalize(z_s, p=2)), gram(F.normalize(z_t, p=2))
    g_st = g_s * g_t
    g_s = g_s / trace(g_s)
    g_st = g_st / trace(g_st)
    return BETA_CORR * correlation(z_s, z_t) + BETA_MI * (g_s.pow(2) - g_st.pow(2)).sum()


def trace(g: Tensor) -> Tensor:
    """torch.trace, whose backward pass reads a number back from the GPU: hosts wait, and no graph can capture it."""
    return g.diagonal().sum()


def correlation(z_s: Tensor, z_t: Tensor) -> Tensor:
    z_s = (z_s - z_s.mean(0)) / z_s.std(0)
    z_t = (z_t - z_t.mean(0)) / z_t.std(0)
    v = torch.einsum("bx,bx->x", z_s, z_t) / z_s.shape[0]
    distance = torch.pow(v - torch.ones_like(v), 2)
    return torch.log2(torch.pow(distance, ALPHA).sum())


class OneDNNGram(torch.autograd.Function):
    """G = ẑ ẑᵀ and dẑ = dG ẑ + dGᵀ ẑ, the products that autograd takes, by the operator behind Inductor's linear."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return _times_transposed(z, z)

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        # dGᵀ ẑ as (ẑᵀ dG)ᵀ, which copies (d, n) numbers where a transposed dG would copy (n, n).
        return _times_transposed(g, z.T) + _times_transposed(z.T, g.T).T


def _times_transposed(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ by oneDNN in full float32."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


def keops_gram(z_s: Tensor, z_t: Tensor) -> Tensor:
    """n⁻² Σ_ij G_s² (1 − G_t²): normalised rows make both traces n."""
    from pykeops.torch import LazyTensor

    def cosines(z: Tensor) -> LazyTensor:
        z = F.normalize(z, p=2)
        return LazyTensor(z[:, None, :]) | LazyTensor(z[None, :, :])

    g_s, g_t = cosines(z_s), cosines(z_t)
    return (g_s.square() * (1 - g_t.square())).sum(1).sum() / z_s.shape[0] ** 2
