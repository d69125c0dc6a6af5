"""What nvcc compiles of small kernels, executed, and bugs planted in it."""

import math
import struct
from pathlib import Path

import numpy as np
import nvcc
import pytest
from emulator import Module, PTXError, PTXRace

pytestmark = pytest.mark.skipif(nvcc.NVCC is None, reason=nvcc.MISSING)

SAMPLES = Path(__file__).parent / "samples"


def compiled(sample, bug=0):
    return Module(nvcc.ptx(SAMPLES / f"{sample}.cu", [f"-DBUG={bug}"] if bug else []))


def cuda(kernel, n, d, bug=0, **opt):
    """(relative error, Stats) of a kernel of samples/gram.cu."""
    m, x = compiled("gram", bug), np.random.default_rng(5).standard_normal((n, d)).astype("f4")
    X, out = x.astype("f8"), np.full((d, d), np.nan, "f4")
    if kernel == "colstats":
        out, ref = np.zeros(d), X.sum(0)
        s = m.launch("colstats", (-(-d // 32), 3), (32, 8), [x, out, n, d], **opt)
    elif kernel == "sumsq":
        out, ref = np.zeros(1), (X**2).sum()
        s = m.launch("sumsq", (3,), (128,), [x, out, n * d], **opt)
    elif kernel == "gram":
        ref, t = X.T @ X, -(-d // 64)
        s = m.launch("gram", (t, t), (256,), [x, out, n, d], shared_bytes=8192, **opt)
    else:
        z = ((x.view("u4") + 0x1000) & 0xFFFFE000).view("f4").astype("f8")
        ref = z.T @ z
        s = m.launch("gram_mma", (-(-d // 8), -(-d // 16)), (32,), [x, out, n, d], **opt)
    return np.abs(out - ref).max() / np.abs(ref).max(), s


@pytest.mark.parametrize(
    "opt", [{}, {"schedule": "warp", "order_seed": 1}, {"batch": 1, "order_seed": 2, "global_races": True}]
)
@pytest.mark.parametrize(("kernel", "tol"), [("colstats", 1e-6), ("sumsq", 1e-14), ("gram", 1e-6), ("gram_mma", 1e-6)])
@pytest.mark.slow
def test_cuda_kernels(kernel, tol, opt):
    for n, d in ((133, 76), (64, 128)) + (((50, 45),) if kernel != "gram" else ()):
        err, s = cuda(kernel, n, d, **opt)
        assert err < tol
        assert not s.found


@pytest.mark.slow
def test_cuda_planted_bugs():
    for bug, kernel in ((1, "colstats"), (3, "gram"), (4, "gram")):
        with pytest.raises(PTXRace, match="shared race"):
            cuda(kernel, 133, 76, bug)
        err, _ = cuda(kernel, 133, 76, bug, schedule="warp", order_seed=1, races="report")
        assert not err < 1e-3, bug
    with pytest.raises(PTXRace, match="global race between blocks"):
        cuda("colstats", 133, 76, 2, global_races=True)
    with pytest.raises(PTXError, match="out-of-bounds global access of 16 bytes"):
        cuda("gram", 133, 76, 5)
    assert "threads exited before a barrier" in cuda("gram", 133, 76, 6, races="report")[1].found


def test_cuda_math():
    rng, n = np.random.default_rng(6), 500
    x, f, o, q = (
        rng.standard_normal(n) * 3,
        rng.standard_normal(n).astype("f4"),
        np.zeros((6, n)),
        np.zeros((6, n), "f4"),
    )
    compiled("language").launch("fmath", 4, 128, [x, f, o, q, n])
    w, erf = f.astype("f8"), np.vectorize(math.erf)
    ref = [np.exp(x), np.log(abs(x)), abs(x) ** 1.7, np.sin(x), x / 3.1, erf(x)]
    reff = [np.exp(w), np.log(abs(w)), abs(w) ** 1.7, np.sin((f * np.float32(1e5)).astype("f8")), w / 3.1, np.tanh(w)]
    assert max(abs(a / r - 1).max() for a, r in zip(o, ref, strict=True)) < 1e-15
    assert max(abs(a / r - 1).max() for a, r in zip(q, reff, strict=True)) < 1e-6
    a, b = (rng.integers(-(2**63), 2**63 - 1, n) >> rng.integers(0, 40, n) for _ in range(2))
    b |= 1
    r = np.zeros((6, n), "i8")
    compiled("language").launch("imath", 4, 128, [a, b, r, n])
    wrap = lambda v, k: (v + (1 << k - 1)) % (1 << k) - (1 << k - 1)  # noqa: E731
    div = lambda u, v: abs(u) // abs(v) * (1 if (u < 0) == (v < 0) else -1)  # noqa: E731
    for i in range(n):
        u, v = int(a[i]), int(b[i])
        m = 2**64
        assert r[:, i].tolist() == [
            div(u, v),
            u - div(u, v) * v,
            u * v >> 64,
            wrap(u * v >> 40, 64),
            div(wrap(u, 32), wrap(v, 32) | 1),
            (64 - (u % m).bit_length()) * 100 + bin(v % m).count("1"),
        ]


@pytest.mark.parametrize("opt", [{}, {"schedule": "warp", "order_seed": 1}])
def test_cuda_flow(opt):
    rng, n, m = np.random.default_rng(7), 1000, compiled("language")
    a, o, h, w = rng.integers(0, 100, n).astype("i4"), np.zeros(n, "f4"), np.zeros(10, "i4"), np.zeros((6, n), "u4")
    s = m.launch("flow", 4, 256, [a, o, h, w, n], **opt)
    P = np.zeros(1024, int)
    P[:n] = a
    for i in range(n):
        v, k = int(P[i]), 0
        loc = {(j * 3 + v) & 7: j * v for j in range(8)}
        r = [1.5, v * 2, v - 3 if v > 3 else 6, loc[v & 7], [1, 2, 3, 4, 5][v % 5], sum(range(v % 13)), -1, -1][v & 7]
        k = v if v & 7 == 2 else 0
        assert o[i] == r + loc[(v >> 3) & 7] + k * 1000 + (P[i // 256 * 256 :][:256] & 1).sum() * 0.25
    assert (h[:8] == np.bincount(P & 7, minlength=8)).all()
    assert h[8] == P[::256].max()
    assert h[9] == 5
    assert not s.found
    assert m.variables["counter"].view("i4")[0] == 11
    L, lane = P.reshape(-1, 32), np.arange(32)
    ref = [
        ((L & 1) << lane).sum(1)[:, None] + 0 * L,
        (((L[:, :, None] & 3) == (L[:, None, :] & 3)) << lane).sum(2),
        L.sum(1)[:, None] + 0 * L,
        np.where(lane >= 3, L[:, lane - 3], L),
        np.where(lane % 16 + 5 < 16, L[:, np.minimum(lane + 5, 31)], L),
        np.take_along_axis(L, L & 31, 1),
    ]
    assert all((w[i] == r.ravel()[:n]).all() for i, r in enumerate(ref))
    for batch in (1, 4):
        lock, acc = np.zeros(1, "i4"), np.zeros(1)
        m.launch("spin", 20, 64, [lock, acc], batch=batch, global_races=True, max_instructions=10**7)
        assert acc[0] == 20


@pytest.mark.parametrize("opt", [{}, {"schedule": "warp", "order_seed": 3}])
def test_cuda_memory(opt):
    rng, m = np.random.default_rng(8), compiled("memory")
    o, i = np.zeros(8, "f4"), np.arange(8)
    m.launch("byval", 1, 8, [struct.pack("<ifd3i4x", 3, 2.5, 7.25, 10, 20, 30), o], **opt)
    assert (o == 3 + 2.5 * i + 7.25 + np.array([10, 20, 30])[i % 3]).all()
    x, o, n = rng.standard_normal(40).astype("f4"), np.zeros(40, "f4"), 40
    assert not m.launch("genptr", 1, n, [x, o, n], **opt).found
    ref = [(x[:5].sum() * (2 - i % 3) if i % 3 < 2 else x[(i + np.arange(5)) % n].sum()) for i in range(n)]
    assert abs(o - ref).max() < 1e-6
    o = np.zeros((3, 64), "f4")
    assert not m.launch("named", 1, 128, [o], **opt).found
    assert (o == np.arange(63, -1, -1) * np.arange(1, 4)[:, None]).all()
    x, o = rng.standard_normal((6, 128)).astype("f4"), np.zeros(128, "f4")
    assert not m.launch("pipe", 1, 128, [x, o, 6], **opt).found
    y = x.copy()
    y[2::3] = (y[2::3].view("u4") & 0xFFFF).view("f4")
    assert abs(o - y[:, ::-1].sum(0)).max() < 1e-5
    x, o = rng.standard_normal(100).astype("f4"), np.zeros(100, "f4")
    m.launch("early", 2, 64, [x, o, 100], **opt)
    assert abs(o[[0, 32, 64]] - x[:96].reshape(3, 32).sum(1)).max() < 1e-5
    x[5] = 200
    with pytest.raises(PTXError, match=r"thread \(5,0,0\): trap: call.*assertfail"):
        m.launch("early", 2, 64, [x, o, 100], **opt)


def test_profile_of_gram():
    n, d = 64, 128
    p = cuda("gram_mma", n, d, profile=True)[1].profile
    # A tile is 16 x 8 x 8.
    tiles = 128 * 8
    assert p.mma == {("m16n8k8", "tf32"): (tiles, 2 * n * d * d)}
    assert p.total["mma_flops"] == tiles * 2048
    assert (p.total["load_sectors"], p.total["store_sectors"]) == (tiles * 6 * 4, 128 * 4 * 8)
    for kind, bytes_of_a_sector in (("ld global", 32), ("st global", 16)):
        rows = [row for row in p.lines if row["cls"] == kind]
        assert rows
        assert all(row["requested"] == bytes_of_a_sector * row["sectors"] for row in rows)
    p = cuda("gram", n, d, profile=True)[1].profile
    assert p.flops["fp32"] == 2 * n * d * d
    assert p.buffers["argument 0"]["unique_loaded"] == 4 * n * d


def test_pointers_in_structures_reach_buffers():
    """A pointer within a structure passed by value is good for the buffers that the launch names, and for no others."""
    x, y, out = np.arange(32, dtype="f4"), np.ones(32, "f4"), np.zeros(32, "f4")
    structure = struct.pack("<QQi4x", x.ctypes.data, y.ctypes.data, 3)
    compiled("memory").launch("structure", 1, 32, [structure, out], buffers=[x, y])
    assert (out == x * 3 + 1).all()
    with pytest.raises(PTXError, match="out-of-bounds global access"):
        compiled("memory").launch("structure", 1, 32, [structure, out], buffers=[x])
