"""What a step costs beside its arithmetic: launches, memory, and no look at a device value from the host."""

import itertools

import pytest
import torch
from steps import Case, check
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.autotuner import Autotuner

from itrd_kernels.backends.triton import configurations, launch, pair_launch, tuning
from itrd_kernels.backends.triton.losses import LOSSES

FORWARD = ["statistics", "gram_tiles", "gram_gradients"]


class Watch(TorchDispatchMode):
    """Collects every PyTorch operator that runs, and the bytes that it allocates."""

    def __init__(self):
        super().__init__()
        self.operators, self.bytes = [], 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        self.operators.append(function.overloadpacket.__name__)
        if self.operators[-1] in ("new_empty", "empty"):
            self.bytes += result.numel() * result.element_size()
        return result


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels, which are not run."""
    names = []
    monkeypatch.setattr(launch, "launch", lambda kernel, *_, **__: names.append(kernel.fn.__name__))
    return names


def forward(n, d_t, d_s, dtype, *, want=(True, True, True), log=False, beta_corr=2.0, beta_mi=1.0):
    z_s = torch.empty(n, d_s, dtype=dtype) if d_s else None
    inputs = torch.empty(n, d_t, dtype=dtype), torch.empty(n, d_t, dtype=dtype), z_s
    want = (*want[:2], want[2] and d_s > 0)
    with Watch() as watch:
        outputs = launch.forward(*inputs, 1.5, beta_corr, beta_mi, log, *want, False)
    return inputs, outputs, want, watch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [2, 256, 4096])
def test_a_step_takes_three_launches_and_one(n, dtype, launched):
    for d_s, want in itertools.product((0, 64), itertools.product((True, False), repeat=2)):
        launched.clear()
        inputs, outputs, want, _ = forward(n, 64, d_s, dtype, want=(want[0], want[1], want[0]))
        if any(want):
            assert launched == FORWARD
            launched.clear()
            launch.backward(outputs[0], None, None, *inputs, *outputs[3:], 2.0, 1.0, *want)
            assert launched == ["gradients"]
        else:
            assert launched == FORWARD[:2]


def test_other_forms(launched):
    forward(256, 64, 0, torch.float32, beta_mi=0.0)
    assert launched == FORWARD[:2]
    launched.clear()
    forward(256, 64, 0, torch.float32, log=True)
    assert launched == ["statistics", "gram_tiles", "gram_tiles", "gram_gradients"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("n", "d"), [(4096, 16), (4096, 64), (4096, 512), (16384, 32), (40000, 128)])
def test_workspace_is_bounded(n, d, dtype, launched):
    _, outputs, _, watch = forward(n, d, 0, dtype)
    workspace = watch.bytes - sum(output.numel() * output.element_size() for output in outputs)
    assert workspace <= 64 * 2**20 + 8 * n * d * 4


def test_host_reads_no_value_and_starts_no_other_kernel(launched):
    inputs, outputs, want, watch = forward(256, 64, 32, torch.float32)
    assert set(watch.operators) <= {"new_empty", "promote_types"}
    with Watch() as watch:
        launch.backward(outputs[0], None, None, *inputs, *outputs[3:], 2.0, 1.0, *want)
    assert set(watch.operators) <= {"new_empty", "promote_types"}


def test_panels_cover_every_tile_once():
    for n in (4096, 16384, 40000, 100000):
        tiles = -(-n // 64)
        panels = configurations.panels(n, tiles, 64, torch.float32, 2, 64)
        assert panels[0][0] == 0
        assert panels[-1][1] == tiles
        assert all(a[1] == b[0] for a, b in itertools.pairwise(panels))


def sweep(n, d, dtype, loss, *, others=0, keep=False, want=(True, True)):
    """The operator `gram`: its outputs, and what it did beside its launches."""
    wide, traits = torch.promote_types(dtype, torch.float32), LOSSES[loss].traits
    counts = (n, others) if others else (n,)
    features = [torch.empty(count, d, dtype=dtype) for count in counts for _ in "st"]
    kept = [torch.empty(count, dtype=torch.bool) if keep else None for count in counts]
    statistics = [torch.empty(2, count, dtype=wide) if traits.one_sided else None for count in counts]
    none = [None] * (2 - len(counts))
    with Watch() as watch:
        outputs = pair_launch.gram(
            *features, *none, *none, 0, *kept, *none, loss, (0.5,) * traits.parameters, None, *statistics, *none, *want,
            False,
        )  # fmt: skip
    return outputs, watch


@pytest.mark.parametrize("others", [0, 300], ids=["triangle", "rectangle"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_sweep_takes_three_launches_and_reads_no_value(loss, others, launched):
    for keep, want in itertools.product((False, True), itertools.product((False, True), repeat=2)):
        launched.clear()
        _, watch = sweep(256, 64, torch.float32, loss, others=others, keep=keep, want=want)
        assert launched == ["pair_statistics", "pair_tiles", "pair_gradients"][: 3 if any(want) else 2]
        assert set(watch.operators) <= {"new_empty", "promote_types", "select"}


def test_a_sweep_without_own_rows_counts_the_others(launched):
    for loss in LOSSES:
        launched.clear()
        sweep(0, 64, torch.float32, loss, others=300)
        assert launched == ["pair_statistics", "pair_tiles"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("n", "others"), [(4096, 0), (40000, 0), (512, 4096), (5000, 40000)])
@pytest.mark.parametrize("loss", LOSSES)
def test_workspace_of_a_sweep_is_bounded(loss, n, others, dtype, launched):
    outputs, watch = sweep(n, 64, dtype, loss, others=others)
    workspace = watch.bytes - sum(output.numel() * output.element_size() for output in outputs)
    assert workspace <= 64 * 2**20 + 8 * (n + others) * 64 * 4


def test_strips_cover_every_block_row_once():
    for height, tiles in ((1, 1), (8, 700), (700, 8), (700, 700)):
        strips = configurations.strips(64 * tiles, height, tiles, 64, torch.float32, 2, 64, True)
        assert (strips[0][0], strips[-1][1]) == (0, height)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(strips))


@pytest.mark.parametrize("want", [(True, False, True), (False, True, False)])
@pytest.mark.parametrize("panels", [False, True])
def test_tuning_leaves_no_trace(want, panels, monkeypatch):
    """ITRD_TUNE=1 tries every configuration on the step's own memory; the last one is made to win."""
    trials = []

    def do_bench(call, quantiles):
        call()
        trials.append(call)
        return [1 / len(trials)] * 3

    monkeypatch.setattr(tuning, "TUNING", True)
    monkeypatch.setattr(Autotuner, "do_bench", staticmethod(do_bench), raising=False)
    if panels:
        monkeypatch.setattr(configurations, "panels", lambda n, tiles, *_: [(0, 1), (1, tiles)])
    tuning.tuned.cache_clear()
    try:
        check(Case(torch.float32, 37, 20, 0, want=want))
    finally:
        tuning.tuned.cache_clear()
    assert len(trials) == 30
