"""Single instructions, control flow and faults, in PTX written by hand."""

import numpy as np
import pytest
import torch
from emulator import Module, PTXError


def snippet(body, ins, nout, threads=32, regs=""):
    """Outputs %o0, … of PTX lines that each thread runs on its entries %a0, … of the inputs: uint32 (nout, threads)."""
    ins = [np.ascontiguousarray(x).view(np.uint32) for x in ins]
    ld = "".join(f"ld.global.b32 %a{i}, [%rd4+{4 * threads * i}];\n" for i in range(len(ins)))
    st = "".join(f"st.global.b32 [%rd5+{4 * threads * i}], %o{i};\n" for i in range(nout))
    text = f""".version 8.0
.target sm_80
.address_size 64
.visible .entry t(.param .u64 p0, .param .u64 p1) {{
.reg .b32 %a<{len(ins) + 1}>, %o<{nout + 1}>, %r<20>; .reg .b64 %rd<10>; .reg .pred %p<4>; {regs}
ld.param.u64 %rd0, [p0]; ld.param.u64 %rd1, [p1]; mov.u32 %r0, %tid.x; mul.wide.u32 %rd2, %r0, 4;
add.s64 %rd4, %rd0, %rd2; add.s64 %rd5, %rd1, %rd2;
{ld}{body}
{st}ret; }}"""
    x, o = np.concatenate(ins), np.zeros((nout, threads), np.uint32)
    Module(text).launch("t", 1, threads, [x, o])
    return o


def bits(rng, n=32):
    return rng.integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32)


def test_integer_snippets():
    rng = np.random.default_rng(0)
    a, b, c = bits(rng), bits(rng), bits(rng)
    o = snippet(
        "lop3.b32 %o0,%a0,%a1,%a2,0xCA; lop3.b32 %o1,%a0,%a1,%a2,0x1D; bfe.s32 %o2,%a0,7,9; bfe.u32 %o3,%a0,30,9;"
        "bfi.b32 %o4,%a0,%a1,5,11; shf.l.clamp.b32 %o5,%a0,%a1,40; prmt.b32 %o6,%a0,%a1,0x9f20;"
        "popc.b32 %o7,%a0; min.s32 %o8,%a0,%a1; shr.s32 %o9,%a0,40;",
        [a, b, c],
        10,
    )
    A, B, C = (v.astype(object) for v in (a, b, c))
    s = lambda v, n: np.array([x - (1 << n) if x >> (n - 1) & 1 else x for x in v], object)  # noqa: E731
    byte = lambda x, y, k: (x >> 8 * k if k < 4 else y >> 8 * (k - 4)) & 255  # noqa: E731
    p = [
        byte(x, y, 0)
        | byte(x, y, 2) << 8
        | (255 if byte(x, y, 7) > 127 else 0) << 16
        | (255 if byte(x, y, 1) > 127 else 0) << 24
        for x, y in zip(A, B, strict=True)
    ]
    m = (1 << 11) - 1 << 5
    ref = [
        (A & B) | (~A & C),
        np.array(
            [
                sum(((0x1D >> ((x >> i & 1) * 4 + (y >> i & 1) * 2 + (z >> i & 1))) & 1) << i for i in range(32))
                for x, y, z in zip(A, B, C, strict=True)
            ],
            object,
        ),
        s((A >> 7) & 511, 9),
        (A >> 30) & 511,
        (B & ~m) | ((A << 5) & m),
        A,
        p,
        [bin(x).count("1") for x in A],
        [min(x, y, key=lambda q: q - (q >> 31 << 32)) for x, y in zip(A, B, strict=True)],
        s(A, 32) >> 31,
    ]
    for i, r in enumerate(ref):
        assert [int(v) & 0xFFFFFFFF for v in r] == o[i].tolist(), i


def test_float_conversions():
    rng = np.random.default_rng(1)
    x = np.r_[rng.standard_normal(24), 0.5, 1.5, -2.5, 1e10, -1e10, np.inf, np.nan, 1e-40].astype("f4")
    o = snippet(
        "cvt.rni.s32.f32 %o0,%a0; cvt.rzi.u32.f32 %o1,%a0; cvt.rna.tf32.f32 %o2,%a0; cvt.rn.bf16x2.f32 %o3,%a0,%a1;"
        "cvt.rz.f16x2.f32 %o4,%a0,%a1; cvt.rmi.f32.f32 %o5,%a0; add.ftz.f32 %o6,%a0,%a0;"
        "max.NaN.f32 %o7,%a0,%a1; max.f32 %o8,%a0,%a1; cvt.sat.f32.f32 %o9,%a0;",
        [x, np.ones(32, "f4")],
        10,
    )
    with np.errstate(all="ignore"):
        i32 = np.where(np.isnan(x), 0, np.clip(np.rint(x.astype("f8")), -(2**31), 2**31 - 1)).astype("i8")
        assert (o[0].view("i4") == i32).all()
        assert (o[1] == np.where(np.isnan(x), 0, np.clip(np.trunc(x.astype("f8")), 0, 2**32 - 1)).astype("u8")).all()
        t = o[2].view("f4")
        fin = np.isfinite(x) & (abs(x) > 1e-30)
        assert (abs(t - x)[fin] <= abs(x[fin]) * 2.0**-11).all()
        assert (o[2][fin] & 0x1FFF == 0).all()
        bf = torch.tensor(x).bfloat16().view(torch.int16).numpy().view("u2")
        ok = ~np.isnan(x)
        assert (o[3] >> 16 == bf)[ok].all()
        assert (o[3] & 0xFFFF == 0x3F80).all()
        h = (o[4] >> 16).astype("u2").view("f2")
        assert (abs(h) <= abs(x))[ok].all()
        assert np.isinf(h[29])
        assert h[27] == 65504
        assert (o[5].view("f4") == np.floor(x))[ok].all()
        assert o[6][31] == 0
        assert np.isnan(o[7].view("f4")[30])
        assert o[8].view("f4")[30] == 1
        assert (o[9].view("f4")[[27, 28, 30]] == [1, 0, 0]).all()


@pytest.mark.parametrize(
    ("shape", "ta", "td"),
    [
        ("m16n8k8", "f16", "f32"),
        ("m16n8k8", "bf16", "f32"),
        ("m16n8k4", "tf32", "f32"),
        ("m16n8k16", "f16", "f16"),
        ("m16n8k8", "f16", "f16"),
        ("m16n8k32", "s8", "s32"),
        ("m16n8k16", "u8", "s32"),
        ("m16n8k8", "tf32", "f32"),
        ("m16n8k16", "bf16", "f32"),
    ],
)
def test_mma(shape, ta, td):
    """mma.sync against fragments filled element by element from the layouts of the PTX manual."""
    rng = np.random.default_rng(2)
    k = int(shape.split("k")[1])
    integer = td == "s32"
    A, B, C = (rng.integers(0 if ta == "u8" else -8, 8, s).astype("f8") for s in ((16, k), (k, 8), (16, 8)))
    per = {"f16": 2, "bf16": 2, "tf32": 1, "s8": 4, "u8": 4}[ta]
    enc = {
        "f16": lambda v: int(np.float16(v).view("u2")),
        "bf16": lambda v: int(np.float32(v).view("u4") >> 16),
        "tf32": lambda v: int(np.float32(v).view("u4")) | 0x1FFF * (v != 0),
        "s8": lambda v: int(v) & 255,
        "u8": lambda v: int(v),
    }[ta]
    na, nb, nc = 16 * k // 32 // per, 8 * k // 32 // per, 2 if td == "f16" else 4
    fa, fb, fc = (np.zeros((n, 32), "u4") for n in (na, nb, nc))
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for i in range(na * per):
            r, e = divmod(i, per)
            fa[r, lane] |= np.uint32(
                enc(A[g + 8 * (r % 2), t * per + e + (4 * per if r >= 2 else 0)]) << (32 // per * e)
            )
        for i in range(nb * per):
            r, e = divmod(i, per)
            fb[r, lane] |= np.uint32(enc(B[t * per + e + 4 * per * r, g]) << (32 // per * e))
        for i in range(4):
            v = C[g + (8 if i >= 2 else 0), 2 * t + i % 2]
            if td == "f16":
                fc[i // 2, lane] |= np.uint32(int(np.float16(v).view("u2")) << 16 * (i % 2))
            else:
                fc[i, lane] = np.int32(v).view("u4") if integer else np.float32(v).view("u4")
    names = [f"%a{i}" for i in range(na + nb + nc)]
    join = lambda q: "{" + ",".join(q) + "}"  # noqa: E731
    o = snippet(
        f"mma.sync.aligned.{shape}.row.col.{td}.{ta}.{ta}.{td} {join([f'%o{i}' for i in range(nc)])},"
        f"{join(names[:na])},{join(names[na : na + nb])},{join(names[na + nb :])};",
        [*fa, *fb, *fc],
        nc,
    )
    D = A @ B + C
    for lane in range(32):
        for i in range(4):
            w = o[i // 2, lane] >> (16 * (i % 2)) & 0xFFFF if td == "f16" else o[i, lane]
            v = np.uint16(w).view("f2") if td == "f16" else w.view("i4") if integer else w.view("f4")
            assert v == D[lane // 4 + (8 if i >= 2 else 0), 2 * (lane % 4) + i % 2], (lane, i)


def test_reconvergence():
    """Lanes meet again before a collective wherever the compiler put the blocks."""
    a = np.arange(32, dtype="u4")
    o = snippet(
        "setp.lt.u32 %p0,%r0,8; @%p0 bra COLD; MAIN: shfl.sync.bfly.b32 %o0,%a0,1,31,-1; bra END;"
        "COLD: add.u32 %a0,%a0,100; bra MAIN; END:",
        [a],
        1,
    )
    assert (o[0] == np.where(a < 8, a + 100, a)[a ^ 1]).all()
    o = snippet(
        "mov.u32 %r1,0; bra HEAD; OUT: shfl.sync.bfly.b32 %o0,%r2,1,31,-1; bra END;"
        "BODY: add.u32 %r2,%r2,%r1; mov.u32 %r3,0; INNER: add.u32 %r3,%r3,1;"
        "setp.lt.u32 %p1,%r3,%r1; @%p1 bra INNER; add.u32 %r2,%r2,%r3; bra HEAD;"
        "HEAD: setp.eq.u32 %p0,%r1,0; @%p0 mov.u32 %r2,0; add.u32 %r1,%r1,1;"
        "setp.le.u32 %p0,%r1,%a0; @%p0 bra BODY; bra OUT; END:",
        [a],
        1,
    )
    assert (o[0] == (a * (a + 1))[a ^ 1]).all()


def test_unsupported_and_faults():
    for op in (
        "wgmma.fence.sync.aligned;",
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r1], %r2, [%r3];",
        "mbarrier.init.shared::cta.b64 [%r1], 1;",
        "tcgen05.fence::before_thread_sync;",
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1], %r2, [%r3];",
    ):
        with pytest.raises(PTXError, match=r"unsupported.*" + op.split(".")[0]):
            snippet(op, [bits(np.random.default_rng(0))], 0)
    with pytest.raises(PTXError, match="misaligned 8-byte"):
        snippet("ld.global.b64 %rd7, [%rd4+4];", [np.zeros(32, "f4")], 0)
    with pytest.raises(PTXError, match="out-of-bounds.*argument 0"):
        snippet("ld.global.b32 %o0, [%rd4+4];", [np.zeros(32, "f4")], 1)
    with pytest.raises(PTXError, match="divergent barrier"):
        snippet("setp.lt.u32 %p0,%r0,8; @%p0 bra A; bar.sync 0; bra B; A: bar.sync 0; B:", [np.zeros(32, "f4")], 0)
    with pytest.raises(PTXError, match="member mask"):
        snippet("setp.lt.u32 %p0,%r0,8; @%p0 bra A; shfl.sync.bfly.b32 %o0,%a0,1,31,-1; A:", [np.zeros(32, "f4")], 1)
    endless = Module(".visible .entry t() { A: bra A; }")
    with pytest.raises(PTXError, match="instructions"):
        endless.launch("t", 1, 32, [], max_instructions=10000)
