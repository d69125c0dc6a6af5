"""Lanes that execute together, and how they part and meet again."""

import numpy as np

from .accesses import Accesses
from .collectives import Collectives
from .copies import Copies
from .generation import DTYPES, WAIT
from .memory import GLOBAL
from .parsing import PTXError
from .profiling import Recorder


class Group(Accesses, Copies, Collectives):
    """Lanes that execute together: all of the team ("lockstep") or one warp.

    Where lanes part, the earliest basic block runs first, so that they meet again as soon as they can.

    The generated code calls the methods that carry the names of instructions. Everywhere i is the number of an
    instruction, k or m a mask over the lanes (None: all), ix the numbers of lanes (None: all), a their byte addresses,
    nb the width of an access in bytes, sp a memory space, and d a NumPy dtype.
    """

    def __init__(self, team, lo, hi):
        self.team, self.launch, self.width, self.part = team, team.launch, hi - lo, slice(lo, hi)
        kern = self.kernel = team.launch.kernel
        self.name = kern.flat.fn.name
        self.live = team.live[self.part]
        self.slot, self.block, self.thread = team.slot[self.part], team.block[self.part], team.thread[self.part]
        self.lane = self.thread % 32
        self.warp_base = np.arange(self.width) // 32 * 32
        self.shared_base = self.slot * team.launch.shared
        self.local_base = (np.arange(self.width) + lo) * kern.flat.local_size
        self.cc = np.zeros(self.width, bool)
        poison = {
            d: np.full(self.width * np.dtype(d).itemsize, 0xFF, "u1").view(d)
            if d != "b1"
            else np.zeros(self.width, bool)
            for d in set(kern.home)
        }
        self.R = [poison[h] for h in kern.home]
        for key, r in kern.flat.const.items():
            self.R[r] = self.constant(key).view(kern.home[r])
        self.ready = {}
        self.push(0, self.live.copy())
        self.pending, self.group_number = [], np.zeros(self.width, int)
        self.version, self.shuffles = -1, {}
        self.polls, self.polled = 0, {}

    def constant(self, key):
        """A special register, a kernel parameter or an immediate as an array over the lanes."""
        if isinstance(key, str):
            v = self.team.special.get(key)
            d = "u8" if key in ("%clock64", "%globaltimer") else "u4"
            return np.zeros(self.width, d) if v is None else v[self.part].astype(d)
        if key[0] == "param":
            d = DTYPES[key[2]]
            return np.full(self.width, np.frombuffer(self.launch.params, d, 1, key[1])[0])
        return np.full(self.width, np.frombuffer(key[0], key[1])[0])

    def param_addr(self, off):
        """The generic address of a kernel parameter."""
        return np.full(self.width, GLOBAL + self.launch.memory.params + off, np.uint64)

    def line(self, i):
        """The PTX line of instruction i."""
        return self.kernel.flat.instrs[i].line

    def text(self, i):
        """The PTX text of instruction i."""
        return self.kernel.flat.instrs[i].text

    def fault(self, i, msg, lane=None):
        """Raises for instruction i, with the block and thread of a lane."""
        at = ""
        if lane is not None:
            bx, by, _ = self.launch.block
            t, b, (gx, gy, _) = int(self.thread[lane]), int(self.block[lane]), self.launch.grid
            at = f", block ({b % gx},{b // gx % gy},{b // (gx * gy)}) thread ({t % bx},{t // bx % by},{t // (bx * by)})"
        raise PTXError(f"{self.name}, line {self.line(i)}{at}: {msg}: {self.text(i)}")

    def push(self, pc, m):
        """Lanes m (None: all) continue at block pc."""
        if pc == self.kernel.exit:
            if m is None:
                self.live[:] = False
            else:
                self.live &= ~m
            return
        old = self.ready.get(pc, self)
        if old is not self and m is not None:
            m = None if old is None else old | m
        self.ready[pc] = None if m is None or m.all() else m

    def run(self):
        """Runs basic blocks until all lanes wait at a barrier or have left."""
        ready, full, masked, R, count = self.ready, self.kernel.full, self.kernel.masked, self.R, self.kernel.count
        n, end = 0, self.kernel.exit
        limit = self.launch.limit - self.launch.stats.instructions
        while ready:
            pc = min(ready)
            if self.polls > 32:  # a spin loop waits for other lanes, or for another warp
                self.polls = 0
                if len(ready) == 1 and len(self.team.groups) > 1:
                    break
                pc = max(ready)
            m = ready.pop(pc)
            if m is not None and not m.any():
                continue
            while True:
                if m is None:
                    n += count[pc] * self.width
                    nxt = full[pc](R, self, None)
                else:
                    n += count[pc] * int(m.sum())
                    nxt = masked[pc](R, self, m)
                if nxt.__class__ is int:
                    if nxt == WAIT:
                        break
                    if nxt == end or ready or self.polls > 32:
                        self.push(nxt, m)
                        break
                    pc = nxt
                    if n > limit:
                        break
                else:
                    for t, k in nxt:
                        self.push(t, k)
                    break
            if n > limit:
                raise PTXError(
                    f"{self.name}: more than {self.launch.limit} instructions: endless loop or a wait for a block "
                    "that does not run at the same time?"
                )
        self.launch.stats.instructions += n

    def bar(self, i, k, m, bid, cnt, nxt, kind, red=None, dst=-1, val=None):
        """Barrier: lanes k (None: all) wait; those of m that are not in k go on."""
        team = self.team
        if kind == "arrive":
            for b in np.unique(self.slot if k is None else self.slot[k]):
                sel = (self.slot == b) & (True if k is None else k)
                key = int(b), int(np.broadcast_to(bid, self.width)[sel][0])
                team.arrived[key] = team.arrived.get(key, 0) + int(sel.sum())
            return nxt
        waiting = np.ones(self.width, bool) if k is None else k
        if (
            not red
            and len(team.groups) == 1
            and (k is None or (waiting == self.live).all())
            and np.ndim(cnt) == 0
            and cnt == 0
            and not self.ready
            and not team.arrived
        ):
            if k is not None:
                team.early(i)
            team.epoch += 1
            team.version += 1
            return nxt if k is None or k is m else ((nxt, k),)
        idx = np.arange(self.part.start, self.part.stop)[waiting]
        team.wait_barrier[idx], team.wait_count[idx] = (
            np.broadcast_to(bid, self.width)[waiting],
            np.broadcast_to(cnt, self.width)[waiting],
        )
        team.wait_pc[idx], team.wait_at[idx] = nxt, i
        if red:
            team.wait_value[idx] = val[waiting]
            for b in np.unique(self.slot[waiting]):
                team.wait_reduction[int(b), int(np.broadcast_to(bid, self.width)[waiting][0])] = (red, dst)
        else:
            for b in np.unique(self.slot[waiting]):
                team.wait_reduction.pop((int(b), int(np.broadcast_to(bid, self.width)[waiting][0])), None)
        if k is not None and k is not m:
            rest = ~k if m is None else m & ~k
            if rest.any():
                return ((nxt, rest),)
        return WAIT

    def poll(self, i, v):
        """Note the result of an atomic or volatile load: the same again and again means a spin loop."""
        v = b"".join(x.tobytes() for x in v)
        self.polls = self.polls + 1 if self.polled.get(i) == v else 0
        self.polled[i] = v

    def brx(self, idx, targets, m):
        """An indexed branch: [(basic block, lanes that go there)]."""
        out = []
        for j in np.unique(idx if m is None else idx[m]):
            k = idx == j
            out.append((targets[min(int(j), len(targets) - 1)], k if m is None else k & m))
        return out

    def trap(self, i, k):
        """Raises where any lane reaches a trap."""
        if k is None or k.any():
            self.fault(i, "trap", 0 if k is None else int(k.argmax()))


class ProfiledGroup(Recorder, Group):
    """A group whose accesses are counted."""
