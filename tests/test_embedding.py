"""The embedding that the loss holds: any kind is called as it is, none goes without a gradient or unsaid untrained."""

import copy
import pickle
import warnings

import pytest
import torch
import torch.distributed as dist
from cases import features
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


KINDS = {
    "casting": (Casting, torch.bfloat16),
    "packed": (Packed, torch.float32),
    "lazy": (lambda fan_in, fan_out: nn.LazyLinear(fan_out), torch.float32),
    "parametrised": (lambda fan_in, fan_out: weight_norm(nn.Linear(fan_in, fan_out)), torch.float32),
    "with a casting hook": (with_a_casting_hook, torch.float16),
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


def test_an_embedding_that_does_not_cast_brings_no_promotion():
    z_s, z_t = features(20, 6, torch.float16, 1), features(20, 6, torch.float32, 2)
    for embed in (nn.Identity(), nn.Linear(6, 6).half()):
        with pytest.raises(TypeError, match="the inputs must have one dtype, got z_e torch.float16, z_t torch.float32"):
            FusedITRDLoss(6, 6, embed=embed)(z_s, z_t)


class Training(nn.Module):
    """A student and its loss, as wrappers for several processes take them."""

    def __init__(self, criterion, width=6):
        super().__init__()
        self.student, self.criterion = nn.Linear(10, width), criterion

    def forward(self, x, z_t):
        return self.criterion(self.student(x), z_t)


@pytest.fixture(scope="module")
def process_group(tmp_path_factory):
    """A group of this process alone."""
    meeting = tmp_path_factory.mktemp("group") / "file"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


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


@pytest.mark.parametrize("d_t", [6, 8])
@pytest.mark.parametrize("beta_corr", [2.0, 0.0])
@pytest.mark.parametrize("sharded", ["the embedding", "the criterion", "both"])
def test_sharded_in_bfloat16(sharded, beta_corr, d_t, process_group):
    criterion = FusedITRDLoss(6, d_t, beta_corr=beta_corr)
    options = {
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


def warnings_of(training, optimizer, *, steps=150, micro_batches=1, set_to_none=True):
    """How often an embedding that no optimizer trains was warned about."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for step in range(steps):
            for _ in range(micro_batches):
                training(features(16, 10, torch.float32, step), features(16, 8, torch.float32, step + 1)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
    return sum("no optimizer trains it" in str(warning.message) for warning in seen)


CRITERIA = {
    "linear": lambda: FusedITRDLoss(6, 8),
    "of several layers": lambda: FusedITRDLoss(6, 8, embed=nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 8))),
    "lazy": lambda: FusedITRDLoss(6, 8, embed=nn.LazyLinear(8)),
    "copied": lambda: copy.deepcopy(FusedITRDLoss(6, 8)),
    "unpickled": lambda: pickle.loads(pickle.dumps(FusedITRDLoss(6, 8))),
}


@pytest.mark.parametrize("kind", CRITERIA)
def test_an_embedding_outside_the_optimizer_is_warned_about_once(kind):
    training = Training(CRITERIA[kind]())
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    assert warnings_of(training, optimizer, steps=300) == 1


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("distributed", [False, True])
def test_so_is_one_under_other_loops(distributed, set_to_none, process_group):
    training = Training(FusedITRDLoss(6, 8))
    wrapped = DistributedDataParallel(training) if distributed else training
    optimizer = torch.optim.AdamW(training.student.parameters())
    assert warnings_of(wrapped, optimizer, steps=60, micro_batches=2, set_to_none=set_to_none) == 1


def test_a_frozen_embedding_may_stand_still():
    for frozen in (FusedITRDLoss(6, 8).requires_grad_(False), FusedITRDLoss(6, 8)):
        frozen.embed.requires_grad_(False)
        training = Training(frozen)
        assert warnings_of(training, torch.optim.SGD(training.student.parameters(), 0.05)) == 0


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, foreach=False),
    "foreach SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, foreach=True),
    "fused SGD": lambda p: torch.optim.SGD(p, 0.05, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, foreach=False),
    "foreach AdamW": lambda p: torch.optim.AdamW(p, foreach=True),
    "fused AdamW": lambda p: torch.optim.AdamW(p, fused=True),
}


@pytest.mark.parametrize(("steps", "micro_batches"), [(130, 1), (5, 33), (4, 64)])
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trained_embedding_raises_no_alarm(name, set_to_none, steps, micro_batches):
    training = Training(FusedITRDLoss(6, 8))
    optimizer = OPTIMIZERS[name](training.parameters())
    options = {"steps": steps, "micro_batches": micro_batches, "set_to_none": set_to_none}
    assert warnings_of(training, optimizer, **options) == 0


@pytest.mark.parametrize("set_to_none", [True, False])
def test_nor_does_one_whose_learning_rate_is_zero_for_a_while(set_to_none):
    training = Training(FusedITRDLoss(6, 8))
    assert warnings_of(training, torch.optim.SGD(training.parameters(), 0.0), set_to_none=set_to_none) == 0


@torch._dynamo.config.patch(error_on_recompile=True)
def test_watching_compiles_nothing_anew():
    for trained, expected in ((True, 0), (False, 1)):
        torch._dynamo.reset()
        training = Training(FusedITRDLoss(6, 8))
        optimizer = torch.optim.SGD((training if trained else training.student).parameters(), 0.05)
        compiled = torch.compile(training, fullgraph=True, backend="aot_eager")
        assert warnings_of(compiled, optimizer) == expected


def test_nothing_is_looked_at_while_a_graph_is_captured(monkeypatch):
    from itrd_kernels import untrained

    monkeypatch.setattr(untrained, "_capturing", lambda parameter: True)
    training = Training(FusedITRDLoss(6, 8))
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    assert warnings_of(training, optimizer) == 0
    monkeypatch.setattr(untrained, "_capturing", lambda parameter: False)
    assert warnings_of(training, optimizer) == 1
