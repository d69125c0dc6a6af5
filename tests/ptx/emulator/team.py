"""Blocks that run together, their shared and local memory, and the barriers at which their threads wait."""

import numpy as np

from .group import Group, ProfiledGroup
from .memory import LOG2
from .parsing import PTXError


class Team:
    """Blocks that run together. Lanes: the threads of all of them, each block padded to whole warps."""

    def __init__(self, launch, blocks):
        self.launch, kern = launch, launch.kernel
        nb, per = len(blocks), launch.padded
        self.blocks, self.padded, self.lanes = nb, per, nb * per
        t = np.arange(self.lanes) % per
        b = np.repeat(np.asarray(blocks), per)
        bx, by, _ = launch.block
        gx, gy, _ = launch.grid
        u = np.uint32
        lane = (t % 32).astype(u)
        one = u(1)
        self.special = {
            "%tid.x": t % bx,
            "%tid.y": t // bx % by,
            "%tid.z": t // (bx * by),
            "%ctaid.x": b % gx,
            "%ctaid.y": b // gx % gy,
            "%ctaid.z": b // (gx * gy),
            "%laneid": lane,
            "%warpid": t // 32,
            "%nwarpid": t * 0 + per // 32,
            "%lanemask_eq": one << lane,
            "%lanemask_lt": (one << lane) - one,
            "%lanemask_le": (one << lane) | ((one << lane) - one),
            "%lanemask_ge": ~((one << lane) - one),
            "%lanemask_gt": ~((one << lane) | ((one << lane) - one)),
            "%nsmid": t * 0 + 1,
            "%dynamic_smem_size": t * 0 + launch.dynamic_shared,
            "%total_smem_size": t * 0 + launch.shared_end,
            **{f"%ntid.{c}": t * 0 + v for c, v in zip("xyz", launch.block, strict=True)},
            **{f"%nctaid.{c}": t * 0 + v for c, v in zip("xyz", launch.grid, strict=True)},
        }
        self.thread, self.block, self.slot = t, b, np.arange(self.lanes) // per
        self.live = t < launch.threads
        self.shared = np.full(max(nb * launch.shared, 32), 0xFF, np.uint8)  # poison: NaN in every float type
        self.local = np.full(max(self.lanes * kern.flat.local_size, 32), 0xFF, np.uint8)
        self.views = {"shared": {}, "local": {}, "global": launch.memory.views}
        self.mem = {"shared": self.shared, "local": self.local, "global": launch.memory.bytes}
        self.checking = bool(launch.races) and launch.shared > 0
        self.g = LOG2[kern.shared_width]
        if self.checking:
            self.written = np.zeros((self.shared.size >> self.g) + 16, np.int32)
            self.readers = self.written.copy()
        self.epoch = np.ones(nb, np.int32)
        self.version = 0
        self.wait_barrier, self.wait_pc = np.full(self.lanes, -1), np.zeros(self.lanes, int)
        self.wait_count, self.wait_at = np.zeros(self.lanes, int), np.zeros(self.lanes, int)
        self.wait_value = np.zeros(self.lanes, bool)
        self.wait_reduction = {}
        self.arrived = {}
        step = self.lanes if launch.schedule == "lockstep" else 32
        kind = ProfiledGroup if launch.stats.profile else Group
        self.groups = [kind(self, lo, lo + step) for lo in range(0, self.lanes, step)]
        self.full_epoch = bool(self.live.all())

    def run(self):
        """Runs the groups in turn, and releases barriers, until every thread has left."""
        groups, rng = self.groups, self.launch.rng
        while True:
            for j in rng.permutation(len(groups)) if rng is not None else range(len(groups)):
                groups[j].run()
            if not self.live.any():
                return
            if not self.release() and not any(g.ready for g in groups):
                at = {
                    int(p): int((self.wait_at[self.live & (self.wait_barrier >= 0)] == p).sum())
                    for p in np.unique(self.wait_at[self.live & (self.wait_barrier >= 0)])
                }
                g = groups[0]
                raise PTXError(
                    f"{g.name}: deadlock: threads wait at barriers "
                    + "; ".join(f"line {g.line(p)} ({n} threads): {g.text(p)}" for p, n in at.items())
                )

    def release(self):
        """Lets the threads go that wait at a barrier which all others have reached; True if there was one."""
        done = False
        for b in range(self.blocks):
            sl = slice(b * self.padded, (b + 1) * self.padded)
            w, live = self.wait_barrier[sl], self.live[sl]
            for bid in np.unique(w[w >= 0]):
                lanes = (w == bid) & live
                cnt = int(self.wait_count[sl][lanes].max())
                if cnt:
                    if lanes.sum() + self.arrived.get((b, int(bid)), 0) < cnt:
                        continue
                    self.arrived.pop((b, int(bid)), None)
                    self.checking = self.checking and cnt >= live.sum()  # partial barriers: no shared race check
                elif (lanes != live).any():
                    continue
                g = self.groups[0]
                pcs = np.unique(self.wait_at[sl][lanes])
                if len(pcs) > 1:
                    raise PTXError(
                        f"{g.name}: divergent barrier in block {self.block[sl][0]}: threads wait at "
                        + ", ".join(f"line {g.line(p)} ({(self.wait_at[sl][lanes] == p).sum()} threads)" for p in pcs)
                    )
                if not cnt:
                    self.early(int(pcs[0]))
                full = np.zeros(self.lanes, bool)
                full[sl] = lanes
                self.finish(full, int(self.wait_pc[full][0]), self.wait_reduction.get((b, int(bid))))
                self.wait_barrier[full] = -1
                self.epoch[b] += 1
                done = True
        self.version += 1
        return done

    def early(self, i):
        """Notes threads that have left the kernel while others still meet at barrier i."""
        n = self.live.reshape(self.blocks, -1).sum(1)
        n = self.launch.threads - n[(n > 0) & (n < self.launch.threads)]
        if n.size:
            g = self.groups[0]
            self.launch.stats.add("threads exited before a barrier", g.line(i), f"{n.max()} threads: {g.text(i)}")

    def finish(self, full, pc, red):
        """Lanes `full` go on at block pc, with the result of the barrier's reduction where it has one."""
        if red:
            op, dst = red
            v = self.wait_value[full]
            v = v.sum() if op == "popc" else v.all() if op == "and" else v.any()
        for g in self.groups:
            part = full[g.part]
            if part.any():
                if red:
                    g.R[dst] = np.where(part, g.R[dst].dtype.type(v), g.R[dst])
                g.push(pc, part)
