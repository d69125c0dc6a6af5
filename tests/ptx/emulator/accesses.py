"""Loads, stores and atomics of a group of lanes, with what is checked at each of them."""

import bisect

import numpy as np

from . import arithmetic
from .generation import DTYPES
from .memory import FAR, GLOBAL, LOCAL_WINDOW, LOG2, SHARED_WINDOW
from .parsing import SIZES

# Warps are numbered from 1 to 32 in the shadow of shared memory; this number stands for several of them.
SEVERAL_WARPS = 63

ATOMIC_FUNCTIONS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}

# How values of half precision are read as float32 for arithmetic, and written back.
HALVES = {
    "f16": (lambda x: x.astype("f4"), lambda x: x.astype("f2")),
    "bf16": (arithmetic.bf2f, arithmetic.f2bf),
    "f16x2": (arithmetic.hx2f, arithmetic.f2hx),
    "bf16x2": (arithmetic.bx2f, arithmetic.f2bx),
}


class Accesses:
    """The part of a group that reads and writes memory; `Group` mixes it in."""

    def where(self, addr):
        """An address as a buffer's name and a byte in it, for messages."""
        m, off = self.launch.memory, int(addr) - GLOBAL
        if off >= FAR // 2:
            off += m.far
        if not m.start or not 0 <= off < m.bytes.size:
            return f"address {int(addr):#x}"
        j = max(0, bisect.bisect_right(sorted(m.start), off) - 1)
        j = m.start.index(sorted(m.start)[j])
        s, e = m.start[j], m.end[j]
        return f"{m.names[j]} ({e - s} bytes) at byte {off - s}"

    def addr(self, i, sp, base, off, nb, k):
        """Byte index of each accessing lane in the memory of space sp, and those lanes (None: all)."""
        a = base.astype(np.int64)
        if off:
            a += off
        ix = None
        if k is not None:
            ix = k.nonzero()[0]
            if ix.size == self.width:
                ix = None
            elif ix.size == 0:
                return None, ix
            else:
                a = a[ix]
        if nb > 1:
            bad = a & (nb - 1)
            if bad.any():
                j = int(bad.argmax() if bad[bad.argmax()] else bad.nonzero()[0][0])
                self.fault(i, f"misaligned {nb}-byte access at {int(a[j]):#x}", j if ix is None else int(ix[j]))
        lo, hi = int(a.min()), int(a.max()) + nb
        if sp == "global":
            m = self.launch.memory
            a -= GLOBAL
            lo, hi = lo - GLOBAL, hi - GLOBAL
            if hi > FAR // 2:
                a = np.where(a >= FAR // 2, a + m.far, a)
                lo, hi = int(a.min()), int(a.max()) + nb
            j = bisect.bisect_right(m.start, lo) - 1
            if j < 0 or hi > m.end[j]:
                q = np.searchsorted(m.start, a, "right") - 1
                bad = (q < 0) | (a + nb > np.asarray(m.end)[q])
                if bad.any():
                    j = int(bad.argmax())
                    addr = int(base[j if ix is None else ix[j]]) + off
                    self.fault(
                        i,
                        f"out-of-bounds global access of {nb} bytes: {self.where(addr)}",
                        j if ix is None else int(ix[j]),
                    )
            return a, ix
        size = self.launch.shared_end if sp == "shared" else self.kernel.flat.local_size
        if lo < 0 or hi > size:
            j = int(((a < 0) | (a + nb > size)).argmax())
            self.fault(
                i,
                f"out-of-bounds {sp} access of {nb} bytes at {int(a[j])} (size {size})",
                j if ix is None else int(ix[j]),
            )
        b = self.shared_base if sp == "shared" else self.local_base
        a += b if ix is None else b[ix]
        return a, ix

    def view(self, sp, d, n):
        """Memory of a space as vectors of n elements of dtype d."""
        v = self.team.views[sp].get((d, n))
        if v is None:
            mem = self.team.mem[sp]
            v = self.team.views[sp][d, n] = mem.view(d) if n == 1 else mem.view(d).reshape(-1, n)
        return v

    def generic(self, base, off, k):
        """Split a generic access: [(space, offset, mask)]."""
        w = np.minimum((base + np.uint64(off & (1 << 64) - 1)) >> np.uint64(32), np.uint64(3))
        on = w if k is None else w[k]
        kinds = np.unique(on).tolist()
        out = []
        for q in kinds:
            sp, sub = {1: ("shared", SHARED_WINDOW), 2: ("local", LOCAL_WINDOW)}.get(q, ("global", 0))
            kk = k if len(kinds) == 1 else (w == q) if k is None else (w == q) & k
            out.append((sp, off - sub, kk))
        return out

    def ld(self, i, sp, base, off, d, n, k):
        """A load of n elements of dtype d at base + off by lanes k: one array over the lanes for each."""
        if sp == "generic":
            parts = self.generic(base, off, k)
            if len(parts) == 1:
                sp, off, k = parts[0]
            else:
                out = np.zeros((n, self.width), d)
                for s, o, kk in parts:
                    out = np.where(kk, np.stack(list(self.ld(i, s, base, o, d, n, kk))), out)
                return out
        nb = np.dtype(d).itemsize * n
        a, ix = self.addr(i, sp, base, off, nb, k)
        if a is None:
            return np.zeros((n, self.width), d)
        if sp == "shared":
            if self.team.checking:
                self.shared_read(i, a, nb, ix)
        elif sp == "global" and self.launch.order:
            self.launch.order.check(self, i, a, nb, "read", ix)
        v = self.view(sp, d, n).take(a >> LOG2[nb], axis=0)
        if ix is None:
            return (v,) if n == 1 else np.ascontiguousarray(v.T)
        out = np.zeros((n, self.width), d)
        out[:, ix] = v.T
        return out

    def st(self, i, sp, base, off, d, vals, k):
        """A store of vectors of elements of dtype d."""
        if sp == "generic":
            for s, o, kk in self.generic(base, off, k):
                self.st(i, s, base, o, d, vals, kk)
            return
        n = len(vals)
        nb = np.dtype(d).itemsize * n
        a, ix = self.addr(i, sp, base, off, nb, k)
        if a is None:
            return
        v = vals[0] if n == 1 else np.stack(vals, 1)
        if ix is not None:
            v = v[ix]
        view, e = self.view(sp, d, n), a >> LOG2[nb]
        if sp == "shared":
            if self.team.checking:
                self.shared_write(i, a, nb, ix, view, e, v)
        elif sp == "global" and self.launch.order:
            self.launch.order.check(self, i, a, nb, "write", ix)
        view[e] = v

    def units(self, a, nb, ix):
        """Shadow indices and warp keys of an access; the key also carries the block's barrier epoch."""
        team = self.team
        if self.version != team.version:
            self.version = team.version
            self.epoch_key = (team.epoch[self.slot] << 6).astype(np.int32)
            self.key = (self.epoch_key | (self.thread // 32 + 1)).astype(np.int32)
        g = team.g
        key, epoch_key = (self.key, self.epoch_key) if ix is None else (self.key[ix], self.epoch_key[ix])
        n = nb >> g
        if n <= 1:
            return a >> g, key, epoch_key
        return ((a >> g)[:, None] + np.arange(n)).ravel(), key.repeat(n), epoch_key.repeat(n)

    def race(self, i, what, bad, nb, ix):
        """Notes a finding at the first lane of which `bad` is true."""
        j = int(bad.argmax()) // max(1, nb >> self.team.g)
        j = j if ix is None else int(ix[j])
        self.launch.stats.add(
            what, self.line(i), f"block {self.block[j]} thread {self.thread[j]}: {self.text(i)}", int(bad.sum())
        )

    def shared_read(self, i, a, nb, ix):
        """Checks and notes that lanes ix read shared memory: written by their own warp, or before a barrier?"""
        idx, key, epoch_key = self.units(a, nb, ix)
        team = self.team
        w = team.written.take(idx)
        bad = (w >= epoch_key) & (w != key)
        if bad.any():
            self.race(i, "shared race: read after write of another warp without barrier", bad, nb, ix)
        if w.min() == 0:
            self.race(i, "uninitialised shared read", w == 0, nb, ix)
        r = team.readers.take(idx)
        team.readers[idx] = np.where((r >= epoch_key) & (r != key), epoch_key | SEVERAL_WARPS, key)
        dup = team.readers.take(idx) != key
        if dup.any():
            team.readers[idx[dup]] = epoch_key[dup] | SEVERAL_WARPS

    def shared_write(self, i, a, nb, ix, view=None, e=None, v=None):
        """Checks and notes that lanes ix write shared memory; `view`, `e` and `v` say what, where it matters."""
        idx, key, epoch_key = self.units(a, nb, ix)
        team = self.team
        r = team.readers.take(idx)
        bad = (r >= epoch_key) & (r != key)
        if bad.any():
            self.race(i, "shared race: write after read of another warp without barrier", bad, nb, ix)
        w = team.written.take(idx)
        team.written[idx] = key
        bad = ((w >= epoch_key) & (w != key)) | (team.written.take(idx) != key)
        if bad.any():
            if view is not None:  # several warps writing the same value is harmless
                old = view[e]
                view[e] = v
                rows = lambda x: x.reshape(a.size, -1)  # noqa: E731
                fresh = ~rows((w >= epoch_key) & (w != key)).any(1)  # only raced within this instruction
                same = rows(view[e] == v).all(1) & (rows(old == v).all(1) | fresh)
                bad = bad & ~same.repeat(bad.size // a.size)
            if bad.any():
                self.race(i, "shared race: write after write of another warp without barrier", bad, nb, ix)

    def atom(self, i, sp, base, off, t, what, vals, want, sem, k):
        """An atomic `what` of PTX type t; the old values where they are wanted."""
        if sp == "generic":
            out = np.zeros(self.width, DTYPES[t])
            for s, o, kk in self.generic(base, off, k):
                r = self.atom(i, s, base, o, t, what, vals, want, sem, kk)
                out = r if kk is None else np.where(kk, r, out)
            return out
        d = DTYPES[t]
        nb = SIZES[t]
        a, ix = self.addr(i, sp, base, off, nb, k)
        out = np.zeros(self.width, d)
        if a is None:
            return out
        if sp == "shared" and self.team.checking:
            idx, key, epoch_key = self.units(a, nb, ix)
            w = self.team.written[idx]
            if ((w >= epoch_key) & (w != key)).any():
                self.race(
                    i,
                    "shared race: atomic after write of another warp without barrier",
                    (w >= epoch_key) & (w != key),
                    nb,
                    ix,
                )
            self.team.written[idx] = 1  # atomics neither race with each other nor leave the word unwritten
        elif sp == "global" and self.launch.order:
            if sem:
                self.launch.order.synchronise(self, a, ix)
            self.launch.order.check(self, i, a, nb, "atomic", ix)
        vals = [v if ix is None else v[ix] for v in vals]
        view, e = self.view(sp, d, 1), a >> LOG2[nb]
        if not want and what in ATOMIC_FUNCTIONS and t not in HALVES:
            ATOMIC_FUNCTIONS[what].at(view, e, vals[0])
            return out
        old = np.empty(e.size, d)
        # The r-th access to each address, all addresses at once.
        rank = _ranks(e)
        for r in range(int(rank.max()) + 1):
            chosen = rank == r
            old[chosen] = view[e[chosen]]
            view[e[chosen]] = _updated(what, t, old[chosen], [v[chosen] for v in vals])
        self.poll(i, (old,))
        if ix is None:
            return old
        out[ix] = old
        return out


def _ranks(places):
    """How many of the same place come earlier, for each."""
    order = np.argsort(places, kind="stable")
    ordered, position = places[order], np.arange(places.size)
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    rank = np.empty(places.size, int)
    rank[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return rank


def _updated(what, t, old, values):
    """What an atomic of type t leaves where `old` was."""
    if what in ATOMIC_FUNCTIONS:
        unpack, pack = HALVES.get(t, (np.asarray, np.asarray))
        return pack(ATOMIC_FUNCTIONS[what](unpack(old), unpack(values[0])))
    if what == "exch":
        return values[0]
    if what == "cas":
        return np.where(old == values[0], values[1], old)
    if what == "inc":
        return np.where(old >= values[0], 0, old + 1)
    return np.where((old == 0) | (old > values[0]), values[0], old - 1)
