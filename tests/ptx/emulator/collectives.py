"""Instructions that a warp carries out together: shuffles, votes, reductions, ldmatrix and mma."""

import numpy as np

from .fragments import decode, fragments


class Collectives:
    """The part of a group that exchanges values within its warps; `Group` mixes it in."""

    def members(self, i, mask, k):
        """Check a .sync member mask: every live lane named must be here, and every lane here be named."""
        if k is None and mask[0] == 0xFFFFFFFF:
            return
        on = np.ones(self.width, bool) if k is None else k
        mine = (mask >> self.lane.astype("u4")) & np.uint32(1) == 1
        if (on & ~mine).any():
            self.fault(i, "lane not named in its own member mask", int((on & ~mine).argmax()))
        w = np.bitwise_or.reduce(np.where(on, mask, np.uint32(0)).reshape(-1, 32), axis=1).repeat(32)
        lost = ((w >> self.lane.astype("u4")) & np.uint32(1) == 1) & self.live & ~on
        if lost.any():
            self.fault(i, f"{int(lost.sum())} lanes named in the member mask do not take part", int(lost.argmax()))

    def whole(self, i, k):
        """Refuses a warp instruction that only part of a warp has reached."""
        if k is not None:
            w = k.reshape(-1, 32)
            if (w.any(1) != w.all(1)).any():
                self.fault(i, "warp instruction with part of a warp", int(k.argmax()))

    def shfl(self, i, mode, a, b, c, mask, fixed, k):
        """Values of other lanes, and whether they are in range; outcomes for fixed b and c are kept."""
        self.members(i, mask, k)
        key = (mode, b, c) if fixed else None
        if key in self.shuffles and fixed:
            src, ok = self.shuffles[key]
        else:
            lane = self.lane
            b, c = (np.asarray(b).astype(int), np.asarray(c).astype(int))
            bv, seg, cl = b & 31, (c >> 8) & 31, c & 31
            top, low = (lane & seg) | (cl & ~seg), lane & seg
            j = {"up": lane - bv, "down": lane + bv, "bfly": lane ^ bv, "idx": low | (bv & ~seg)}[mode]
            ok = j >= top if mode == "up" else j <= top
            src = self.warp_base + np.where(ok, j, lane)
            if fixed:
                self.shuffles[key] = src, ok
        out = a.take(src)
        if k is not None:
            dead = ~k.take(src)
            if (dead & k).any():
                out = np.where(dead, np.uint32(0xFFFFFFFF), out)  # value of an inactive lane: undefined
        return out, ok

    def vote(self, i, kind, p, mask, k):
        """ballot, all, any, uni and the mask of active lanes."""
        p = np.broadcast_to(p, self.width)
        on = np.ones(self.width, bool) if k is None else k
        if kind != "active":
            self.members(i, mask, k)
        w, o = p.reshape(-1, 32), on.reshape(-1, 32)
        if kind in ("ballot", "active"):
            r = ((w & o).astype("u4") << np.arange(32, dtype="u4")).sum(1, dtype="u4")
        elif kind == "all":
            r = (w | ~o).all(1)
        elif kind == "any":
            r = (w & o).any(1)
        else:
            r = (w | ~o).all(1) | ~(w & o).any(1)
        return r.repeat(32)

    def match(self, i, every, a, mask, k):
        """Which lanes hold the same value, or for `every` whether all do."""
        self.members(i, mask, k)
        on = (np.ones(self.width, bool) if k is None else k).reshape(-1, 32)
        w = a.reshape(-1, 32)
        eq = (w[:, :, None] == w[:, None, :]) & on[:, None, :]
        bits = (eq.astype("u4") << np.arange(32, dtype="u4")).sum(2, dtype="u4")
        full = (on.astype("u4") << np.arange(32, dtype="u4")).sum(1, dtype="u4")[:, None]
        ok = ((bits == full) | ~on).all(1, keepdims=True) & np.ones((1, 32), bool)
        return (np.where(ok, full, 0).astype("u4") if every else bits).ravel(), ok.ravel()

    def redux(self, i, kind, a, mask, k):
        """A reduction over the lanes of each warp."""
        self.members(i, mask, k)
        w = a.reshape(-1, 32)
        lim = np.iinfo(a.dtype)
        if k is not None:
            neutral = {
                "add": 0,
                "or": 0,
                "xor": 0,
                "max": lim.min,
                "min": lim.max,
                "and": -1 if lim.min < 0 else lim.max,
            }[kind]
            w = np.where(k.reshape(-1, 32), w, a.dtype.type(neutral))
        f = {
            "add": np.add,
            "or": np.bitwise_or,
            "xor": np.bitwise_xor,
            "and": np.bitwise_and,
            "max": np.maximum,
            "min": np.minimum,
        }
        return f[kind].reduce(w, axis=1, dtype=a.dtype).repeat(32)

    def ldmatrix(self, i, base, off, n, trans, k):
        """n matrices of 8 × 8 halves, whose rows' addresses the lanes give."""
        self.whole(i, k)
        use = np.tile(np.arange(32) < 8 * n, self.width // 32)
        if k is not None:
            use &= k
        a, ix = self.addr(i, "shared", base, off, 16, use)
        out = np.zeros((n, self.width), "u4")
        if a is None:
            return out
        if self.team.checking:
            self.shared_read(i, a, 16, ix)
        rows = self.view("shared", "u2", 8).take(a >> 4, axis=0).reshape(-1, n, 8, 8)
        if trans:
            rows = np.ascontiguousarray(rows.swapaxes(2, 3))
        v = rows.reshape(-1, n, 64).view("u4").transpose(1, 0, 2).reshape(n, -1)
        if k is None:
            return np.ascontiguousarray(v)
        out[:, k] = v
        return out

    def mma(self, i, dims, ta, tb, tc, td, a, b, c, k):
        """D = A B + C per warp; products exact, sums in f32 (f64, s32), tf32 operands truncated to 10 bits."""
        self.whole(i, k)
        m, n, kk = dims
        W = self.width // 32
        pa, pb, pc = fragments(m, n, kk, len(a), len(b))
        A = decode(a, ta, W)[:, pa].reshape(W, m, kk)
        B = decode(b, tb, W)[:, pb].reshape(W, kk, n)
        half = tc == "f16"
        C = decode(c, tc, W)
        C = C[:, pc[1] if half else pc[0]].reshape(W, m, n)
        D = np.matmul(A, B) + C
        D = D.reshape(W, m * n)
        if td == "f16":  # two registers of two halves
            D = D[:, pc[3]].astype("f2", order="C").reshape(W, 2, 64).view("u4")
            return np.ascontiguousarray(D.reshape(W, 2, 32).transpose(1, 0, 2)).reshape(2, -1)
        r = m * n // 32
        return np.ascontiguousarray(D[:, pc[2]].reshape(W, r, 32).transpose(1, 0, 2)).reshape(r, -1)
