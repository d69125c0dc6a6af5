"""Where the elements of the matrices of mma.sync lie in the registers of a warp, as the PTX manual lays them out."""

import functools

import numpy as np

from . import arithmetic


def decode(regs, t, W):
    """Registers of a fragment -> [warp, register*lane*part] in the type of the arithmetic."""
    x = np.stack(regs).reshape(len(regs), W, 32).transpose(1, 0, 2).reshape(W, -1)
    if t in ("f32", "f64", "s32"):
        return x
    if t == "tf32":
        return (x & np.uint32(0xFFFFE000)).view("f4")
    if t == "bf16":
        return arithmetic.bf2f(x.view("u2"))
    return x.view("f2").astype("f4") if t == "f16" else x.view("i1" if t == "s8" else "u1").astype("i4")


@functools.cache
def fragments(m, n, k, ra, rb):
    """For mma shape m,n,k with ra, rb registers of A, B: positions of the elements A[i,j], B[i,j], C[i,j] in the
    decoded fragments (C also for packed halves), and the inverse maps for D."""
    p = m * k // (32 * ra)  # elements per register
    A, B = np.zeros((m, k), int), np.zeros((k, n), int)
    C, H = np.zeros((m, n), int), np.zeros((m, n), int)
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for e in range(p):
            for r in range(ra):
                A[g + 8 * (r & 1), t * p + (r >> 1) * 4 * p + e] = (r * 32 + lane) * p + e
            for r in range(rb):
                B[t * p + r * 4 * p + e, g] = (r * 32 + lane) * p + e
        for r in range(m * n // 32):
            C[g + 8 * (r >> 1), t * 2 + (r & 1)] = r * 32 + lane
            H[g + 8 * (r >> 1), t * 2 + (r & 1)] = ((r >> 1) * 32 + lane) * 2 + (r & 1)
    C, H = C.ravel(), H.ravel()
    return A.ravel(), B.ravel(), (C, H, np.argsort(C), np.argsort(H))
