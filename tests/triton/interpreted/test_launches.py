"""What a step costs beside its arithmetic: launches, memory, and no look at a device value from the host."""

import itertools

import pytest
import torch
from steps import Case, check
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.autotuner import Autotuner

from itrd_kernels.backends.triton import configurations, launch, tuning

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
