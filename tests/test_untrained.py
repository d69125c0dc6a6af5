"""An embedding that no optimizer trains is warned about once, and one that is trained, or frozen, never."""

import copy
import gc
import io
import pickle
import warnings
import weakref

import pytest
import torch
from cases import features
from embedded import Training
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import weight_norm

from itrd_kernels import FusedITRDLoss, untrained


def warnings_of(training, optimizer, *, steps=150, micro_batches=1, set_to_none=True, dtype=torch.float32):
    """How often an embedding that no optimizer trains was warned about."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for step in range(steps):
            for _ in range(micro_batches):
                training(features(16, 10, dtype, step), features(16, 8, dtype, step + 1)).backward()
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


def test_one_parameter_that_stands_still_is_no_untrained_embedding():
    """A bias, which the correlation loss does not feel; and nobody clears a gradient."""
    training = Training(FusedITRDLoss(6, 8, beta_mi=0.0))
    optimizer = torch.optim.SGD([training.criterion.embed.weight], 1e-4)
    optimizer.zero_grad = lambda set_to_none=True: None
    assert warnings_of(training, optimizer) == 0


def test_a_cast_is_no_training():
    training = Training(FusedITRDLoss(6, 8))
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    assert warnings_of(training, optimizer, steps=50) == 0
    training.double()
    assert warnings_of(training, optimizer, steps=160, dtype=torch.float64) == 1


def test_a_watched_parameter_may_be_swapped():
    training = Training(FusedITRDLoss(6, 8))
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    assert warnings_of(training, optimizer, steps=50) == 0
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        training.criterion.double().float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
    assert training.criterion.embed.weight.dtype == torch.float32


def test_nobody_keeps_a_criterion_that_was_watched():
    gc.disable()
    try:
        for steps in (50, 100):
            training = Training(FusedITRDLoss(6, 8))
            warnings_of(training, torch.optim.SGD(training.student.parameters(), 0.05), steps=steps)
            weight = weakref.ref(training.criterion.embed.weight)
            del training
            assert weight() is None, steps
    finally:
        gc.enable()


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


@pytest.mark.parametrize("micro_batches", [1, 3, 64])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_nor_does_one_whose_learning_rate_is_zero_for_a_while(set_to_none, micro_batches):
    training = Training(FusedITRDLoss(6, 8))
    options = {"steps": -(-150 // micro_batches), "micro_batches": micro_batches, "set_to_none": set_to_none}
    assert warnings_of(training, torch.optim.SGD(training.parameters(), 0.0), **options) == 0


def test_a_loss_without_weight_for_a_while_hides_nothing():
    training = Training(FusedITRDLoss(6, 8))
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    weight = 0.0
    training.register_forward_hook(lambda module, inputs, loss: weight * loss)
    assert warnings_of(training, optimizer) == 0
    weight = 1.0
    assert warnings_of(training, optimizer, steps=210) == 1


class LowRank(nn.Linear):
    """Its first parameter has no gradient while the second stands at zero."""

    def __init__(self, fan_in, fan_out):
        super().__init__(fan_in, fan_out)
        self.requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, fan_in)), nn.Parameter(torch.zeros(fan_out, 2))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


def replaced(criterion):
    criterion.embed = nn.Linear(6, 8)


def loaded(criterion):
    criterion.load_state_dict(copy.deepcopy(criterion.state_dict()), assign=True)


def unfrozen(criterion):
    criterion.embed = nn.Linear(6, 8).requires_grad_(False)
    criterion(features(16, 6, torch.float32, 1), features(16, 8, torch.float32, 2))
    criterion.embed.requires_grad_(True)


def from_nothing(criterion):
    criterion.to("meta").to_empty(device="cpu")
    criterion.embed.reset_parameters()


CHANGES = {
    "replaced": replaced,
    "loaded": loaded,
    "unfrozen": unfrozen,
    "made without memory": from_nothing,
    "parametrised": lambda criterion: weight_norm(criterion.embed),
    "of low rank": lambda criterion: setattr(criterion, "embed", LowRank(6, 8)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_so_is_one_that_changed_after_the_criterion_was_made(change):
    training = Training(FusedITRDLoss(6, 8))
    CHANGES[change](training.criterion)
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    assert warnings_of(training, optimizer, steps=130) == 1


@pytest.mark.parametrize("trained", [False, True])
def test_a_sharded_embedding_is_watched(trained, process_group):
    training = Training(FusedITRDLoss(6, 8))
    fully_shard(training.criterion.embed, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.SGD((training if trained else training.student).parameters(), 0.05)
    assert warnings_of(training, optimizer, steps=130, set_to_none=not trained) == (not trained)


@pytest.mark.parametrize("steps", [50, 100])
def test_a_watched_criterion_can_be_saved_and_copied_without_a_word(steps):
    training = Training(FusedITRDLoss(6, 8))
    warnings_of(training, torch.optim.SGD(training.student.parameters(), 0.05), steps=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = io.BytesIO()
        torch.save(training, file)
        file.seek(0)
        for other in (
            torch.load(file, weights_only=False),
            copy.deepcopy(training),
            pickle.loads(pickle.dumps(training)),
        ):
            assert torch.equal(other.criterion.embed.weight, training.criterion.embed.weight)


@torch._dynamo.config.patch(error_on_recompile=True)
@pytest.mark.parametrize("lazy", [False, True])
def test_a_criterion_compiles_whole(lazy):
    torch._dynamo.reset()
    criterion = FusedITRDLoss(6, 8, embed=nn.Sequential(nn.LazyLinear(8)) if lazy else None)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    for seed in range(20):
        z_s, z_t = features(16, 6, torch.float32, seed), features(16, 8, torch.float32, seed + 1)
        if seed == 0:
            criterion(z_s, z_t)
        torch.testing.assert_close(compiled(z_s, z_t), criterion(z_s, z_t))


@torch._dynamo.config.patch(error_on_recompile=True)
def test_watching_compiles_nothing_anew():
    for trained, expected in ((True, 0), (False, 1)):
        torch._dynamo.reset()
        training = Training(FusedITRDLoss(6, 8))
        optimizer = torch.optim.SGD((training if trained else training.student).parameters(), 0.05)
        compiled = torch.compile(training, fullgraph=True, backend="aot_eager")
        assert warnings_of(compiled, optimizer) == expected


def test_nothing_is_looked_at_while_a_graph_is_captured(monkeypatch):
    monkeypatch.setattr(untrained, "_capturing", lambda parameter: True)
    training = Training(FusedITRDLoss(6, 8))
    optimizer = torch.optim.SGD(training.student.parameters(), 0.05)
    assert warnings_of(training, optimizer) == 0
    monkeypatch.setattr(untrained, "_capturing", lambda parameter: False)
    assert warnings_of(training, optimizer) == 1


def test_what_is_captured_counts_for_nothing_later(monkeypatch):
    training = Training(FusedITRDLoss(6, 8))
    optimizer = torch.optim.SGD(training.parameters(), 0.05)
    for capturing in (True, False):
        monkeypatch.setattr(untrained, "_capturing", lambda parameter, capturing=capturing: capturing)
        assert warnings_of(training, optimizer, steps=45, micro_batches=3, set_to_none=False) == 0
