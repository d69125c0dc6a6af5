"""Scalar PTX semantics as numpy functions over lane arrays (names used by the generated code)."""

import numpy as np

u1, u2, u4, u8 = np.uint8, np.uint16, np.uint32, np.uint64
i1, i2, i4, i8 = np.int8, np.int16, np.int32, np.int64
f2, f4, f8, b1 = np.float16, np.float32, np.float64, np.bool_
SPLIT = f8(134217729.0)


# -- floating point -------------------------------------------------------------------------------
def fma4(a, b, c):
    """f32 fma: the product is exact in f64 (the sum rounds twice, which matters only at exact ties)."""
    return (np.multiply(a, b, dtype=f8) + c).astype(f4)


def fmah(a, b, c):
    return np.multiply(a, b, dtype=f8) + c


def fma8(a, b, c):
    """f64 fma by error-free transformations (within one rounding of the exact result)."""
    p = a * b
    t = SPLIT * a
    ah = t - (t - a)
    t = SPLIT * b
    bh = t - (t - b)
    al, bl = a - ah, b - bh
    e = ((ah * bh - p) + ah * bl + al * bh) + al * bl
    s = p + c
    v = s - p
    r = s + (((p - (s - v)) + (c - v)) + e)
    ok = np.isfinite(r)
    return r if ok.all() else np.where(ok, r, s)


def ftz(x):
    return np.where(np.abs(x) < f4(1.1754943508222875e-38), np.copysign(f4(0), x), x)


def sat(x):
    return np.where(x > 0, np.minimum(x, x.dtype.type(1)), x.dtype.type(0))


def relu(x):
    return np.maximum(x, x.dtype.type(0))


def bf2f(x):
    return (np.asarray(x).astype(u4) << u4(16)).view(f4)


def f2bf(x, mode="rn"):
    """f32/f64 -> bf16 bits; f64 goes through f32."""
    u = np.asarray(x).astype(f4).view(u4)
    r = u >> u4(16) if mode == "rz" else u + u4(32767) + (u >> u4(16) & u4(1)) >> u4(16)
    return np.where((u & u4(0x7FFFFFFF)) > u4(0x7F800000), u4(0x7FFF), r).astype(u2)


def hx2f(x):
    return np.atleast_1d(x).view(f2).reshape(-1, 2).astype(f4)


def bx2f(x):
    return bf2f(np.atleast_1d(x).view(u2).reshape(-1, 2))


def f2hx(x):
    return np.ascontiguousarray(x.astype(f2)).view(u4).reshape(-1)


def f2bx(x):
    return np.ascontiguousarray(f2bf(x)).view(u4).reshape(-1)


def cvtx2(hi, lo, half, mode, post=None):
    x = np.stack([lo, hi], 1)
    if post is not None:
        x = post(x)
    return (
        (f2hx(x) if mode != "rz" else rnd(x, f2, "rz").view(u4).reshape(-1))
        if half
        else np.ascontiguousarray(f2bf(x, mode)).view(u4).reshape(-1)
    )


def tf32(x, mode):
    u = np.asarray(x).astype(f4).view(u4)
    if mode == "rna":
        r = u + u4(0x1000)
    elif mode == "rz":
        r = u
    else:
        r = u + u4(0xFFF) + ((u >> u4(13)) & u4(1))
    return np.where((u & u4(0x7F800000)) == u4(0x7F800000), u, r & u4(0xFFFFE000))


def rnd(x, d, mode):
    """Convert to the float type d with a directed rounding."""
    r = x.astype(d)
    back = r.astype(x.dtype)
    inf = d(np.inf)
    lo, hi = np.nextafter(r, -inf), np.nextafter(r, inf)
    down = np.where(back > x, lo, r)
    up = np.where(back < x, hi, r)
    return down if mode == "rm" else up if mode == "rp" else np.where(x > 0, down, up)


def rint(x, mode):
    return {"rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.get(mode, np.rint)(x)


def f2i(x, d):
    """Saturating conversion of an integral float; NaN -> 0."""
    lim = np.iinfo(d)
    x = np.where(np.isnan(x), 0, x).astype(f8)
    r = np.clip(x, float(lim.min), float(lim.max)).astype(d)
    return np.where(x >= float(lim.max), d(lim.max), r)


def isat(x, d):
    lim, src = np.iinfo(d), np.iinfo(x.dtype)
    return np.clip(x, max(lim.min, src.min), min(lim.max, src.max)).astype(d)


# -- integers -------------------------------------------------------------------------------------
def tdiv(a, b):
    if np.asarray(a).dtype.kind == "u":
        return a // b
    q = a // b
    return q + (((a - q * b) != 0) & ((a ^ b) < 0)).astype(q.dtype)


def mulhi(a, b):
    d = np.asarray(a).dtype
    n = d.itemsize * 8
    if n < 64:
        w = i8 if d.kind == "i" else u8
        return ((a.astype(w) * b.astype(w)) >> w(n)).astype(d)
    x, y = a.astype(u8), b.astype(u8)
    m, s = u8(0xFFFFFFFF), u8(32)
    x0, x1, y0, y1 = x & m, x >> s, y & m, y >> s
    t = x1 * y0 + ((x0 * y0) >> s)
    h = x1 * y1 + (t >> s) + ((x0 * y1 + (t & m)) >> s)
    if d.kind == "i":
        h = h - np.where(a < 0, y, u8(0)) - np.where(b < 0, x, u8(0))
    return h.astype(d)


def carry(a, b, cc, sign):
    """-> (a +/- b +/- carry, carry out)."""
    c = a.dtype.type(0) if cc is None else cc.astype(a.dtype)
    if sign == "+":
        r = a + b
        q = r + c
        return q, (r < a) | (q < r)
    r = a - b
    q = r - c
    return q, (a < b) | (r < c)


def sad(a, b, c):
    return np.where(a > b, a - b, b - a) + c


def bfind(x, shiftamt=False):
    n = x.dtype.itemsize * 8
    if x.dtype.kind == "i":
        x = np.where(x < 0, ~x, x)
    c = clz(x.view(f"u{n // 8}"))
    return np.where(c == n, u4(0xFFFFFFFF), c if shiftamt else u4(n - 1) - c)


def clz(x):
    x = np.atleast_1d(x)
    n = x.dtype.itemsize * 8
    if n == 64:
        hi, lo = (x >> u8(32)).astype(u4), x.astype(u4)
        return np.where(hi != 0, clz(hi), u4(32) + clz(lo))
    return (n - np.frexp(x.view(u4).astype(f8))[1]).astype(u4)


def brev(x):
    d = x.dtype
    return (
        np.packbits(np.unpackbits(x.view(u1).reshape(-1, d.itemsize)[:, ::-1], axis=1), axis=1, bitorder="little")
        .view(d)
        .reshape(-1)
        if d.itemsize > 1
        else x
    )


def bfe(a, pos, ln):
    n, d = a.dtype.itemsize * 8, a.dtype
    pos, ln = (pos & u4(255)).astype(u8), (ln & u4(255)).astype(u8)
    u = a.view(f"u{n // 8}").astype(u8)
    mask = np.where(ln >= n, u8(0xFFFFFFFFFFFFFFFF), (u8(1) << ln) - u8(1))
    r = (u >> pos) & mask
    if d.kind == "i":
        sbit = np.where(ln == 0, u8(0), (u >> np.minimum(pos + ln - u8(1), u8(n - 1))) & u8(1))
        avail = np.minimum(ln, np.where(pos >= n, u8(0), u8(n) - pos))
        ext = np.where(avail >= 64, u8(0), u8(0xFFFFFFFFFFFFFFFF) << avail)
        r = np.where((sbit != 0) & (ln != 0), r | ext, r)
    return r.astype(f"u{n // 8}").view(d)


def bfi(a, b, pos, ln):
    d = a.dtype
    pos, ln = (pos & u4(255)).astype(u8), (ln & u4(255)).astype(u8)
    mask = np.where(ln >= 64, u8(0xFFFFFFFFFFFFFFFF), (u8(1) << ln) - u8(1)) << pos
    return ((b.astype(u8) & ~mask) | ((a.astype(u8) << pos) & mask)).astype(d)


def shf(a, b, c, left, wrap):
    n = (c & u4(31) if wrap else np.minimum(c, u4(32))).astype(u8)
    v = (b.astype(u8) << u8(32)) | a
    return ((v << n) >> u8(32) if left else v >> n).astype(u4)


def prmt(a, b, c, mode=""):
    by = np.concatenate([a.view(u1).reshape(-1, 4), b.view(u1).reshape(-1, 4)], 1)
    if mode:
        s = (c & u4(3)).astype(i8)
        table = {
            "f4e": [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]],
            "b4e": [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]],
            "rc8": [[i] * 4 for i in range(4)],
            "ecl": [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]],
            "ecr": [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
            "rc16": [[0, 1, 0, 1], [2, 3, 2, 3]] * 2,
        }[mode]
        sel = np.array(table)[s]
        sgn = np.zeros(sel.shape, bool)
    else:
        nib = (c[:, None] >> np.array([0, 4, 8, 12], u4)) & u4(15)
        sel, sgn = (nib & u4(7)).astype(i8), nib >= 8
    r = np.take_along_axis(by, sel, 1)
    r = np.where(sgn, np.where(r >= 128, u1(255), u1(0)), r)
    return np.ascontiguousarray(r).view(u4).reshape(-1)


def unpack(x, d):
    """Split each lane's value into parts, low first."""
    return np.ascontiguousarray(x.view(d).reshape(x.size, -1).T)


def pack(*parts):
    d = parts[0].dtype.itemsize * len(parts)
    return np.stack(parts, 1).view(f"u{d}").reshape(-1)
