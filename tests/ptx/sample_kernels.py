"""Small Triton kernels that the emulator is tested on."""

import triton
import triton.language as tl


@triton.jit
def vadd(x, y, o, n, B: tl.constexpr, MASK: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    m = i < n
    if MASK:
        tl.store(o + i, tl.load(x + i, mask=m) + tl.load(y + i, mask=m), mask=m)
    else:
        tl.store(o + i, tl.load(x + i) + tl.load(y + i, mask=m), mask=m)


@triton.jit
def softmax(x, o, d, stride, B: tl.constexpr):
    r, c = tl.program_id(0), tl.arange(0, B)
    v = tl.load(x + r * stride + c, mask=c < d, other=-float("inf"))
    v = tl.exp(v - tl.max(v, 0))
    tl.store(o + r * d + c, v / tl.sum(v, 0), mask=c < d)


@triton.jit
def colstat(x, s, q, n, d, BR: tl.constexpr, BC: tl.constexpr):
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    a = tl.zeros([BC], tl.float64)
    b = tl.zeros([BC], tl.float64)
    for r0 in range(tl.program_id(1) * BR, n, tl.num_programs(1) * BR):
        r = r0 + tl.arange(0, BR)
        v = tl.load(x + r[:, None] * d + c[None, :], mask=(r < n)[:, None] & (c < d)[None, :], other=0.0)
        a += tl.sum(v, 0).to(tl.float64)
        b += tl.sum(v * v, 0).to(tl.float64)
    tl.atomic_add(s + c, a, mask=c < d)
    tl.atomic_add(q + c, b, mask=c < d)


@triton.jit
def gram(x, g, n, d, BM: tl.constexpr, BK: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr, STAGES: tl.constexpr):
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BM + tl.arange(0, BM)
    acc = tl.zeros([BM, BM], ACC)
    for k0 in tl.range(0, n, BK, num_stages=STAGES):
        k = k0 + tl.arange(0, BK)
        a = tl.load(x + k[None, :] * d + i[:, None], mask=(k < n)[None, :] & (i < d)[:, None], other=0.0)
        b = tl.load(x + k[:, None] * d + j[None, :], mask=(k < n)[:, None] & (j < d)[None, :], other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PREC, out_dtype=ACC)
    tl.store(g + i[:, None] * d + j[None, :], acc, mask=(i < d)[:, None] & (j < d)[None, :])


@triton.jit
def ticket(x, part, cnt, out, n, B: tl.constexpr, NP: tl.constexpr):
    p = tl.program_id(0)
    i = p * B + tl.arange(0, B)
    v = tl.load(x + i, mask=i < n, other=0.0).to(tl.float64)
    tl.store(part + p, tl.sum(v * v, 0))
    tl.debug_barrier()
    t = tl.atomic_add(cnt, 1)
    if t == tl.num_programs(0) - 1:
        k = tl.arange(0, NP)
        w = tl.load(part + k, mask=k < tl.num_programs(0), other=0.0, cache_modifier=".cg")
        tl.store(out, tl.sum(w, 0))
        tl.store(cnt, 0)


@triton.jit
def fused(x, y, out, n, k, BM: tl.constexpr, BK: tl.constexpr, PREC: tl.constexpr):
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BM + tl.arange(0, BM)
    a = tl.zeros([BM, BM], tl.float32)
    b = tl.zeros([BM, BM], tl.float32)
    for k0 in range(0, k, BK):
        c = k0 + tl.arange(0, BK)
        mi = (i < n)[:, None] & (c < k)[None, :]
        mj = (j < n)[None, :] & (c < k)[:, None]
        p = i[:, None] * k + c[None, :]
        q = j[None, :] * k + c[:, None]
        a = tl.dot(tl.load(x + p, mask=mi, other=0.0), tl.load(x + q, mask=mj, other=0.0), a, input_precision=PREC)
        b = tl.dot(tl.load(y + p, mask=mi, other=0.0), tl.load(y + q, mask=mj, other=0.0), b, input_precision=PREC)
    r = tl.where((i < n)[:, None] & (j < n)[None, :], a * a * (1.0 - b * b), 0.0).to(tl.float64)
    tl.atomic_add(out, tl.sum(tl.sum(r, 1), 0))
