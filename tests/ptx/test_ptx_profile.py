"""What a profile counts, and the model of the time that is made of it."""

import numpy as np
import pytest
import torch
from emulator import Module
from emulator.roofline import GPUS, LAUNCH_US, bound, occupancy, step_us


def profile(body, grid, threads, args, shared=0, **opt):
    """Profile of PTX lines with %r0 = threadIdx.x, %r1 = blockIdx.x, %rd0.. = the arguments."""
    names = [f"p{i}" for i in range(len(args))]
    text = f"""//
.version 8.0
.target sm_80
.address_size 64
.visible .entry t({", ".join(f".param .u64 {p}" for p in names)}) {{
.reg .b32 %r<20>, %v<8>; .reg .b64 %rd<20>; .reg .pred %p<4>; .reg .f32 %f<4>;
.shared .align 128 .b8 sh[{max(shared, 16)}];
{" ".join(f"ld.param.u64 %rd{i}, [{p}];" for i, p in enumerate(names))} mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x;
{body.replace(";", ";" + chr(10))}
ret; }}"""
    return Module(text).launch("t", grid, threads, args, profile=True, **opt).profile


def copy_profile(stride, offset=0, **opt):
    x, o = np.arange(4096, dtype="f4"), np.zeros(128, "f4")
    p = profile(
        f"mad.lo.u32 %r2,%r1,64,%r0; mul.wide.u32 %rd5,%r2,{4 * stride}; add.s64 %rd5,%rd5,%rd0;"
        f"ld.global.f32 %f0,[%rd5+{4 * offset}]; mul.wide.u32 %rd6,%r2,4;"
        "add.s64 %rd6,%rd6,%rd1; st.global.f32 [%rd6],%f0;",
        2,
        64,
        [x, o],
        **opt,
    )
    assert (o == x[offset::stride][:128]).all()
    return p


@pytest.mark.parametrize(
    ("stride", "offset", "eff"), [(1, 0, 1), (2, 0, 0.5), (4, 0, 0.25), (32, 0, 0.125), (1, 1, 0.8)]
)
def test_profile_of_a_copy(stride, offset, eff):
    for opt in ({}, {"batch": 1}, {"schedule": "warp", "order_seed": 1}):
        p = copy_profile(stride, offset, **opt)
        ld, st = [next(r for r in p.lines if r["cls"] == c) for c in ("ld global", "st global")]
        assert ld["requested"] / 32 / ld["sectors"] == eff
        assert ld["accesses"] == 4
        assert st["sectors"] == 16
        assert st["lines128"] == 4
        assert ld["lines128"] == (4 * stride if offset == 0 else 8)
        b = p.buffers["argument 0"]
        assert b["unique_loaded"] == 512
        assert b["reread"] == 1 / eff
        assert p.total["lane_utilisation"] == 1
        assert p.total["load_sectors"] * 32 * eff == 512
        assert p.classes["ld global"] == (4, 128)
        assert p.classes["int"] == (20, 640)


def test_profile_placement():
    """Views keep their offset within their allocation modulo 256, wherever the host put it."""
    x, o = np.zeros(99, "f4"), np.zeros(99, "f4")
    y = torch.zeros(99)
    for a, sectors in (
        (x, 4),
        (x[4:], 5),
        (x[8:], 4),
        (y[8:][1:], 5),
        (y[2:][6:], 4),
        (np.zeros((9, 8), "f4")[1:, :][1:], 4),
    ):
        p = profile("mul.wide.u32 %rd5,%r0,4; add.s64 %rd5,%rd5,%rd0; ld.global.f32 %f0,[%rd5];", 1, 32, [a, o])
        assert p.total["load_sectors"] == sectors


@pytest.mark.parametrize(("pad", "ways"), [(0, 32), (1, 1), (2, 2), (16, 16)])
def test_profile_of_a_transpose(pad, ways):
    x, o, w = np.random.default_rng(0).standard_normal((32, 32)).astype("f4"), np.zeros((32, 32), "f4"), 32 + pad
    p = profile(
        f"""and.b32 %r2,%r0,31; shr.u32 %r3,%r0,5; mul.wide.u32 %rd5,%r0,4;
        add.s64 %rd6,%rd5,%rd0; add.s64 %rd7,%rd5,%rd1; ld.global.f32 %f0,[%rd6]; mov.u32 %r4,sh;
        mad.lo.u32 %r5,%r3,{w},%r2; shl.b32 %r5,%r5,2;
        add.u32 %r5,%r5,%r4; st.shared.f32 [%r5],%f0;
        bar.sync 0; mad.lo.u32 %r6,%r2,{w},%r3; shl.b32 %r6,%r6,2;
        add.u32 %r6,%r6,%r4; ld.shared.f32 %f1,[%r6]; st.global.f32 [%rd7],%f1;""",
        1,
        1024,
        [x, o],
        128 * w,
    )
    assert (o == x.T).all()
    st, ld = [next(r for r in p.lines if r["cls"] == c) for c in ("st shared", "ld shared")]
    assert st["wavefronts"] == st["ideal"] == ld["ideal"] == 32
    assert ld["wavefronts"] == 32 * ways
    assert p.total["bank_conflicts"] == (1 + ways) / 2
    assert p.shared_bytes >= 128 * w
    assert p.classes["barrier"] == (32, 1024)


@pytest.mark.parametrize("nb", [1, 2, 4, 8, 16])
def test_profile_of_random_accesses(nb):
    """Sectors, lines, wavefronts and unique bytes against sets, with random addresses and masks."""
    rng, T = np.random.default_rng(nb), 96
    at, on = rng.integers(0, 1024 // nb, (2, T)) * nb, rng.integers(0, 4, 2 * T) > 0
    on[:32] = False  # a warp that is predicated off
    vec = {1: "u8 %r5", 2: "u16 %r5", 4: "u32 %r5", 8: "v2.u32 {%r5,%r6}", 16: "v4.u32 {%r5,%r6,%r7,%r8}"}[nb]
    op, reg = vec.split(" ")
    args = [np.zeros(1024, "u1"), at.astype("u4").ravel(), on.astype("u4"), np.zeros(1024, "u1")]
    p = profile(
        f"""mov.u32 %r5,0; mov.u32 %r6,0; mov.u32 %r7,0; mov.u32 %r8,0;
        mad.lo.u32 %r2,%r1,96,%r0; mul.wide.u32 %rd5,%r2,4; add.s64 %rd6,%rd5,%rd1; ld.global.u32 %r3,[%rd6];
        add.s64 %rd7,%rd5,%rd2; ld.global.u32 %r4,[%rd7];
        setp.ne.u32 %p0,%r4,0; cvt.u64.u32 %rd8,%r3; add.s64 %rd9,%rd8,%rd0; add.s64 %rd10,%rd8,%rd3;
        mov.u32 %r9,sh; add.u32 %r9,%r9,%r3;
        @%p0 st.shared.{op} [%r9],{reg};
        @%p0 ld.shared.{op} {reg},[%r9];
        @%p0 ld.global.{op} {reg},[%rd9];
        @%p0 st.global.{op} [%rd10],{reg};
        @%p0 red.global.add.u32 [%rd3],1;""",
        2,
        T,
        args,
        1024,
        races=None,
    )
    sec = lines = wave = ideal = 0
    for w in range(6):
        a = at.ravel()[32 * w : 32 * w + 32]
        m = on[32 * w : 32 * w + 32]
        sec += len(set(a[m] // 32))
        lines += len(set(a[m] // 128))
        n = {8: 16, 16: 8}.get(nb, 32)  # lanes per phase
        for q in range(0, 32, n):
            words = {
                (x + 4 * j) // 4
                for x, k in zip(a[q : q + n], m[q : q + n], strict=True)
                if k
                for j in range(max(1, nb // 4))
            }
            wave += max(np.bincount([v % 32 for v in words])) if words else 0
            ideal += bool(words)
    rows = [r for r in p.lines if r["text"][0] == "@"]
    for r in rows[:2]:
        assert (r["wavefronts"], r["ideal"], r["sectors"], r["requested"]) == (wave, ideal, 0, on.sum() * nb)
    for r in rows[2:4]:
        assert (r["sectors"], r["lines128"], r["wavefronts"], r["requested"]) == (sec, lines, 0, on.sum() * nb)
    assert all((r["warps"], r["lanes"], r["accesses"]) == (6, on.sum(), 5) for r in rows)
    touched = {x + j for x, k in zip(at.ravel(), on, strict=True) if k for j in range(nb)}
    assert p.buffers["argument 0"]["unique_loaded"] == len(touched)
    assert p.buffers["argument 3"]["unique_stored"] == len(touched | {0, 1, 2, 3})
    assert p.total["atomics"] == p.total["hottest_atomic"] == on.sum()
    assert rows[4]["sectors"] == 5


@pytest.mark.parametrize(("pitch", "ways"), [(16, 1), (128, 8), (144, 1), (64, 4)])
def test_profile_of_ldmatrix(pitch, ways):
    p = profile(
        f"mov.u32 %r2,sh; mad.lo.u32 %r3,%r0,{pitch},%r2;"
        f"ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%v0,%v1,%v2,%v3}},[%r3];",
        1,
        32,
        [],
        32 * pitch,
        races=None,
    )
    assert (p.total["wavefronts"], p.total["ideal_wavefronts"]) == (4 * ways, 4)
    assert p.classes["ldmatrix"] == (1, 32)


def test_roofline():
    p = copy_profile(1)
    p.registers = 32
    a100 = GPUS["A100"]
    found = bound(p, a100)
    assert found.parts["dram"] == found.without_l2 == pytest.approx(1024 / 2039e3, rel=1e-12)
    assert found.blocks_per_multiprocessor == 32
    # One block to a multiprocessor, on two of its four partitions.
    issued = sum(count for name, (count, _) in p.classes.items() if name != "mov")
    assert (found.by, found.us) == ("issue", found.parts["issue"])
    assert found.us == pytest.approx(issued / 2 / 2 / 1.41e3, rel=1e-12)
    assert occupancy(a100, 256, 49152, 128) == (2, "registers")
    assert occupancy(GPUS["RTX 4090"], 128, 32768, 32) == (3, "shared")
    assert step_us([p, p], a100) == pytest.approx(2 * (found.us + LAUNCH_US), rel=1e-12)
