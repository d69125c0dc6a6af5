"""cp.async: a copy is carried out at the wait that covers it, and until then its destination holds NaN."""

import numpy as np

from .memory import LOG2


class Copies:
    """The part of a group that copies asynchronously; `Group` mixes it in."""

    def cp_async(self, i, dst, doff, src, soff, size, n, k):
        """Starts copies of `size` bytes, of which n come from global memory and the others are zeros."""
        a, ix = self.addr(i, "shared", dst, doff, size, k)
        if a is None:
            return
        n = n if ix is None else n[ix]
        if n.max() > size:
            self.fault(i, f"src-size {int(n.max())} > cp-size {size}")
        lanes = np.arange(self.width) if ix is None else ix
        need = n > 0
        g = None
        if need.any():
            kk = np.zeros(self.width, bool)
            kk[lanes[need]] = True
            if (n[need] == size).all():
                g, _ = self.addr(i, "global", src, soff, size, kk)
            else:  # partial copies: check every size by itself
                g = np.zeros(need.sum(), np.int64)
                for q in np.unique(n[need]):
                    w = np.zeros(self.width, bool)
                    w[lanes[n == q]] = True
                    s = src.astype(np.int64) + soff
                    self.addr(i, "global", src, soff + int(q) - 1, 1, w)
                    g[n[need] == q] = self.addr(i, "global", src, soff, 1, w)[0]
                    if (s[w] & (size - 1)).any():
                        self.fault(i, f"misaligned {size}-byte cp.async source")
        if self.team.checking:
            self.shared_write(i, a, size, ix)
        if self.launch.order and g is not None:
            self.launch.order.check(self, i, g, size, "read", lanes[need])
        w = min(size, 8)
        self.view("shared", f"u{w}", size // w)[a >> LOG2[size]] = np.array(0xFFFFFFFFFFFFFFFF, "u8").astype(f"u{w}")
        self.pending.append((i, lanes, self.group_number[lanes], a, need, g, n, size))

    def commit(self, k):
        """Closes the group of copies that lanes k have started."""
        self.group_number = self.group_number + (1 if k is None else k.astype(int))

    def wait(self, i, left, k):
        """Carries out all groups of lanes k but the last `left`; all copies where that is negative."""
        rest = []
        for rec in self.pending:
            i, lanes, grp, a, need, g, n, size = rec
            done = np.ones(lanes.size, bool) if left < 0 else grp < self.group_number[lanes] - left
            if k is not None:
                done &= k[lanes]
            if done.all():
                self.copy(rec)
            elif not done.any():
                rest.append(rec)
            else:
                gi = done[need]
                self.copy((i, lanes[done], grp[done], a[done], need[done], None if g is None else g[gi], n[done], size))
                q = ~done
                rest.append((i, lanes[q], grp[q], a[q], need[q], None if g is None else g[~gi], n[q], size))
        self.pending = rest

    def copy(self, rec):
        """Carries out a record of copies."""
        i, lanes, _, a, need, g, n, size = rec
        w = min(size, 8)
        d, c = f"u{w}", size // w
        v = np.zeros((lanes.size, c) if c > 1 else lanes.size, d)
        if g is not None and g.size:
            if (n[need] == size).all():
                v[need] = self.view("global", d, c).take(g >> LOG2[size], axis=0)
            else:
                by = np.zeros((g.size, size), "u1")
                for q in range(size):
                    s = n[need] > q
                    by[s, q] = self.team.mem["global"][g[s] + q]
                v[need] = by.view(d).reshape(v[need].shape)
        if self.team.checking:
            self.shared_write(i, a, size, lanes)
        self.view("shared", d, c)[a >> LOG2[size]] = v
