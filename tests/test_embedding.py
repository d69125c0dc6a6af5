"""The embedding that the loss holds: any kind is called as it is, and none goes without a gradient."""

import copy
from typing import Any

import pytest
import torch
from cases import features
from embedded import Training
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import weight_norm

from itrd_kernels import FusedITRDLoss, itrd_loss


class Casting(nn.Linear):
    def forward(self, x):
        return super().forward(x.to(self.weight.dtype))


class Packed(nn.Linear):
    """Its weight is stored as bytes, as that of quantised layers is."""

    def __init__(self, fan_in, fan_out):
        super().__init__(fan_in, fan_out)
        self.unpacked = self.weight.detach().clone()
        del self.weight
        self.weight = torch.zeros(fan_in * fan_out // 2, dtype=torch.uint8)

    def forward(self, x):
        return nn.functional.linear(x, self.unpacked, self.bias)


def with_a_casting_hook(fan_in, fan_out):
    embed = nn.Linear(fan_in, fan_out)
    embed.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    return embed


def with_another_forward(fan_in, fan_out):
    embed = nn.Linear(fan_in, fan_out)
    embed.forward = lambda x: nn.functional.linear(x.to(embed.weight.dtype), embed.weight, embed.bias)
    return embed


def with_a_made_weight(fan_in, fan_out):
    embed = nn.Linear(fan_in, fan_out)
    weight = embed.weight
    del embed.weight
    embed.register_forward_pre_hook(lambda module, inputs: setattr(module, "weight", weight.detach()))
    return embed


KINDS: dict[str, Any] = {
    "casting": (Casting, torch.bfloat16),
    "packed": (Packed, torch.float32),
    "lazy": (lambda fan_in, fan_out: nn.LazyLinear(fan_out), torch.float32),
    "parametrised": (lambda fan_in, fan_out: weight_norm(nn.Linear(fan_in, fan_out)), torch.float32),
    "with a casting hook": (with_a_casting_hook, torch.float16),
    "with another forward": (with_another_forward, torch.float16),
    "with a weight that a hook makes": (with_a_made_weight, torch.float32),
}


@pytest.mark.parametrize("d_t", [6, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_of_other_kinds_are_called(kind, d_t):
    make, dtype = KINDS[kind]
    embed = make(6, d_t)
    z_s, z_t = features(20, 6, dtype, 1).requires_grad_(), features(20, d_t, torch.float32, 2)
    total = FusedITRDLoss(6, d_t, embed=embed)(z_s, z_t)
    expected = itrd_loss(embed(z_s), z_t, z_s.float() if d_t == 6 else None).total
    torch.testing.assert_close(total, expected)
    (gradient,) = torch.autograd.grad(total, z_s)
    assert gradient.dtype == dtype
    assert gradient.any()


def test_a_hook_of_all_modules_may_cast():
    hook = nn.modules.module.register_module_forward_pre_hook(
        # torch's annotation leaves out hooks that change the inputs.
        lambda module, inputs: (inputs[0].float(),) if isinstance(module, nn.Linear) else None  # type: ignore[arg-type]
    )
    z_s, z_t = features(20, 6, torch.float16, 1), features(20, 8, torch.float32, 2)
    criterion = FusedITRDLoss(6, 8)
    try:
        total = criterion(z_s, z_t)
    finally:
        hook.remove()
    torch.testing.assert_close(total, criterion(z_s.float(), z_t))


def test_an_embedding_that_does_not_cast_brings_no_promotion():
    z_s, z_t = features(20, 6, torch.float16, 1), features(20, 6, torch.float32, 2)
    for embed in (nn.Identity(), nn.Linear(6, 6).half()):
        with pytest.raises(TypeError, match="the inputs must have one dtype, got z_e torch.float16, z_t torch.float32"):
            FusedITRDLoss(6, 6, embed=embed)(z_s, z_t)


EMBEDDINGS = [None, nn.Identity(), nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))]


@pytest.mark.parametrize("embed", EMBEDDINGS, ids=["linear", "none", "with batch normalisation"])
@pytest.mark.parametrize("betas", [(0.0, 1.0), (0.0, 0.0), (2.0, 0.0)])
def test_no_parameter_is_left_without_a_gradient(betas, embed, process_group):
    criterion = FusedITRDLoss(6, 6, *betas, embed=copy.deepcopy(embed))
    module = DistributedDataParallel(Training(criterion))
    for seed in range(3):
        module.zero_grad()
        module(features(20, 10, torch.float32, seed), features(20, 6, torch.float32, 9)).backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
    if not betas[0]:
        assert not any(parameter.grad.any() for parameter in criterion.parameters())


def test_an_unused_embedding_changes_nothing():
    z_s, z_t = features(20, 6, torch.float32, 1).requires_grad_(), features(20, 6, torch.float32, 2)
    expected = itrd_loss(z_s, z_t, beta_corr=0.0).total
    for embed in (None, nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6).double().float()):
        total = FusedITRDLoss(6, 6, beta_corr=0.0, embed=embed)(z_s, z_t)
        assert torch.equal(total, expected)
        assert torch.equal(*(torch.autograd.grad(loss, z_s, retain_graph=True)[0] for loss in (total, expected)))
    with torch.no_grad():
        assert torch.equal(FusedITRDLoss(6, 6, beta_corr=0.0)(z_s, z_t), expected)


def unused_of(embed):
    """The total without the correlation loss, where nothing uses the embedding; its gradients are zero."""
    criterion = FusedITRDLoss(6, 6, beta_corr=0.0, embed=embed)
    total = criterion(features(20, 6, torch.float32, 1), features(20, 6, torch.float32, 2))
    total.backward()
    assert all(not parameter.grad.any() for parameter in criterion.parameters())
    return total.item()


def test_an_unused_embedding_is_not_called():
    norm = nn.BatchNorm1d(6)
    random = torch.get_rng_state()
    totals = [unused_of(embed) for embed in (norm, nn.Sequential(nn.Linear(6, 6), nn.Dropout()), nn.LSTM(6, 6))]
    torch.set_rng_state(random)
    assert not norm.running_mean.any()
    assert len(set(totals)) == 1


def test_an_unused_lazy_embedding_gets_its_shapes():
    embed = nn.LazyLinear(6)
    unused_of(embed)
    assert embed.weight.shape == (6, 6)


@pytest.mark.parametrize("d_t", [6, 8])
@pytest.mark.parametrize("beta_corr", [2.0, 0.0])
@pytest.mark.parametrize("sharded", ["the embedding", "the criterion", "both"])
def test_sharded_in_bfloat16(sharded, beta_corr, d_t, process_group):
    criterion = FusedITRDLoss(6, d_t, beta_corr=beta_corr)
    options: dict[str, Any] = {
        "mesh": init_device_mesh("cpu", (1,)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16),
    }
    if sharded != "the criterion":
        fully_shard(criterion.embed, **options)
    if sharded != "the embedding":
        fully_shard(criterion, **options)
    optimizer = torch.optim.SGD(criterion.parameters(), 0.1)
    for seed in range(3):
        z_s = features(20, 6, torch.float32, seed).requires_grad_()
        loss = criterion(z_s, features(20, d_t, torch.float32, 9))
        loss.backward()
        assert loss.dtype == torch.float32
        assert z_s.grad.isfinite().all()
        assert z_s.grad.any()
        assert all(parameter.grad is not None for parameter in criterion.parameters())
        optimizer.step()
        optimizer.zero_grad()
