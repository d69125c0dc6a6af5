"""The operator `gram` under the sanitizer: losses × schedules × dtypes × ragged shapes × masks, and its own paths."""

from contextlib import contextmanager

import pytest
import torch
from cases import pairwise
from sanitizer import sanitized
from steps import poisoned
from test_schedules import LOSSES, MASKS, batch, call, compare

from itrd_kernels.backends.triton import configurations, launch

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
SCHEDULES = {"triangle": None, "rectangle": (0.3, 0.8)}


@contextmanager
def watched(seed: int = 0):
    """The sanitizer, NaN in memory that nobody has written, and the kernels' own bfloat16."""
    widen, launch.widen_bfloat16 = launch.widen_bfloat16, False
    try:
        with sanitized(seed), poisoned():
            yield
    finally:
        launch.widen_bfloat16 = widen


def check(z, keep, loss, own, dtype, **options):
    with watched():
        compare("triton", z, keep, loss, own, dtype, **options)


@pairwise(
    dtype=(F64, F32, F16, BF16),
    shape=((2, 1, 3), (37, 50, 21), (65, 17, 140)),
    loss=LOSSES,
    own=(None, (0, 1), (0.3, 0.7), (0.4, 0.4)),
    masks=MASKS,
    want=((True, True), (True, False), (False, True), (False, False)),
)
def test_sweep(dtype, shape, loss, own, masks, want):
    s, t, keep = batch(*shape, dtype, masks)
    check((s, t), keep, loss, own, dtype, want=want)


@pytest.mark.parametrize("own", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("loss", LOSSES)
def test_panels(loss, own, monkeypatch):
    """W in panels of rows, as large n needs: the same result from several launches."""
    monkeypatch.setattr(configurations, "panels", lambda n, tiles, *_: [(0, 2), (2, 3), (3, tiles)])
    monkeypatch.setattr(configurations, "strips", lambda m, height, *_: [(0, 1), (1, height)])
    s, t, keep = batch(150, 20, 33, F32, "some")
    check((s, t), keep, loss, own, F32)


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
def test_tiles_of_large_batches(loss, dtype, monkeypatch):
    monkeypatch.setattr(configurations, "SMALL", 1)
    s, t, keep = batch(70, 130, 33, dtype, "some")
    check((s, t), keep, loss, None, dtype)


@pytest.mark.parametrize("own", SCHEDULES.values(), ids=SCHEDULES)
def test_transposed_copies_of_tf32(own, monkeypatch):
    """What the gradients read where TF32 is allowed; the interpreter's products are those of float32."""
    monkeypatch.setattr(configurations, "precision", lambda *_: "tf32")
    s, t, keep = batch(70, 20, 33, F32, "some")
    with watched():
        got = call("triton", (s, t), keep, "mutual_information", own)
    exact = call("reference", (s, t), keep, "mutual_information", own)
    for name in ("dgram_s", "dgram_t"):
        error = (getattr(got, name) - getattr(exact, name)).norm()
        assert error < 4e-3 * getattr(exact, name).norm()


@pytest.mark.parametrize("own", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("magnitude", [2.0**-9, 2.0**7])
def test_extreme_rows_of_float16(magnitude, own):
    s, t, keep = batch(40, 20, 20, F16, "some")
    s[3:30:5] *= magnitude
    t[1:20:3] /= magnitude
    check((s, t), keep, "mutual_information", own, F16)


@pytest.mark.parametrize("own", SCHEDULES.values(), ids=SCHEDULES)
def test_strides(own):
    s, t, keep = batch(37, 50, 21, F32, "some")
    check((s.T.contiguous().T, torch.cat([t, t], 1)[:, :21]), keep, "pkt", own, F32)


@pytest.mark.parametrize("own", SCHEDULES.values(), ids=SCHEDULES)
def test_repeats_bit_for_bit_in_any_order_of_programs(own):
    s, t, keep = batch(70, 40, 24, F32, "some")
    results = []
    for seed in range(3):
        with watched(seed):
            results.append(call("triton", (s, t), keep, "pkt", own))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
