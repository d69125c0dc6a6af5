"""Hardware-relevant counters of a launch, from the accesses that the emulator executed (launch option profile=True).

Counted are PTX instructions (before ptxas), exact addresses of every access of every warp, and nothing about time.
"""

import bisect

import numpy as np

from .generation import DTYPES, FLOATS

COUNTERS = ("accesses", "requested", "sectors", "lines128", "wavefronts", "ideal", "atomics")
SFU = {"ex2", "lg2", "sin", "cos", "rcp", "rsqrt", "sqrt", "tanh", "div"}
CLASS = {
    "mma": "mma",
    "ldmatrix": "ldmatrix",
    "shfl": "shfl",
    "bar": "barrier",
    "barrier": "barrier",
    "atom": "atomic",
    "red": "atomic",
    "bra": "branch",
    "brx": "branch",
    "ret": "branch",
    "exit": "branch",
    "mov": "mov",
    "cvta": "mov",
    "createpolicy": "mov",
    "cvt": "cvt",
    "selp": "int",
    "vote": "vote",
    "match": "vote",
    "redux": "vote",
    "activemask": "vote",
    "trap": "other",
}


def classify(x):
    """Class of an instruction; 'mov' holds what ptxas mostly removes (register copies, address casts, parameters)."""
    t = next((q for q in reversed(x.mods) if q in DTYPES), None)
    if x.op in ("ld", "ldu", "st"):
        sp = next(
            (q.split("_")[0] for q in x.mods if q.split("_")[0] in ("global", "shared", "local", "const", "param")),
            "generic",
        )
        return "mov" if sp == "param" else f"{x.op[:2]} {sp}"
    if x.op == "cp":
        return "other" if "commit_group" in x.mods or "wait_group" in x.mods or "wait_all" in x.mods else "cp.async"
    if x.op in CLASS:
        return CLASS[x.op]
    if t == "f64":
        return "fp64"
    if t in FLOATS and x.op in SFU:
        return "sfu"
    if t == "f32":
        return "fp32 " + {"fma": "fma", "mad": "fma", "add": "add", "sub": "add", "mul": "mul"}.get(x.op, "other")
    return "fp16" if t in FLOATS else "int" if t else "other"


def warp_rows(v, ix, T, width=1):
    """Values of the accessing lanes (ix None: all) as rows of 32, -1 for the others; `width` of them per lane."""
    if width > 1:
        v = v[:, None] + np.arange(width)
    if ix is not None:
        out = np.full((T, width) if width > 1 else T, -1, v.dtype)
        out[ix] = v
        v = out
    return v.reshape(-1, 32)


def first_of_each(r):
    """Sorted rows, and where in them each value >= 0 comes for the first time."""
    if (r[:, 1:] < r[:, :-1]).any():
        r = np.sort(r, axis=1)
    new = r >= 0
    new[:, 1:] &= r[:, 1:] != r[:, :-1]
    return r, new


class Profile:
    """Counters of one launch. total, classes {class: (warp instructions, active lanes)}, mma {(shape, type): (count,
    FLOPs)}, flops {'fp32', 'fp64'}, buffers {argument: counters}, lines [counters per PTX line]; str() prints them.
    A sector is 32 bytes; bytes 'unique' are those of each buffer touched at least once."""

    def __init__(self, launch):
        k = self._kern = launch.kernel
        self.name, self.text, self.registers = k.flat.fn.name, launch.module.text, None
        self.grid, self.block, self.shared_bytes = launch.grid, launch.block, launch.shared_end
        self.blocks, self.threads = int(np.prod(launch.grid)), launch.threads
        self._mem, n = launch.memory, len(k.flat.instrs)
        self._class = [classify(x) for x in k.flat.instrs]
        self._block = np.zeros((len(k.blocks), 2), np.int64)
        self._on = np.zeros(n, np.int64)
        self._c = {c: np.zeros(n, np.int64) for c in COUNTERS}
        self._seen = np.zeros((2, launch.memory.bytes.size), np.uint8)  # loaded, stored: per byte
        self._buf = np.zeros((len(launch.memory.start), 4), np.int64)  # sectors and requested bytes, loaded and stored
        self._hot = {}  # address -> atomics

    # -- called while the kernel runs ------------------------------------------------------------
    def enter(self, b, m, T):
        """A basic block starts with lanes m (None: all T)."""
        self._block[b] += (T // 32, T) if m is None else (int(m.reshape(-1, 32).any(1).sum()), int(np.count_nonzero(m)))

    def on(self, i, k):
        self._on[i] += np.count_nonzero(k)

    def memory(self, i, sp, a, nb, ix, T, store, requested=None, atomic=False):
        """An access of nb bytes per lane at byte addresses a (of lanes ix, None: all)."""
        c, req = self._c, a.size * nb if requested is None else requested
        c["requested"][i] += req
        c["accesses"][i] += T // 32 if ix is None else np.unique(ix >> 5).size
        c["atomics"][i] += a.size * atomic
        if sp == "shared":  # phases of 32 words: a warp, half or quarter warp for 4, 8, 16 bytes per lane
            r = warp_rows(a >> 2, ix, T, max(1, nb // 4))
            if atomic:
                new = r >= 0  # the same word again and again: one after the other
            else:
                r, new = first_of_each(r)
            at = (np.arange(0, r.size, 32)[:, None] + (r & 31))[new]
            n = np.bincount(at, minlength=r.size).reshape(-1, 32).max(1)
            c["wavefronts"][i] += n.sum()
            c["ideal"][i] += np.count_nonzero(n)
        elif sp == "global" and self._class[i] != "ld const":
            r, new = first_of_each(warp_rows(a >> 5, ix, T))
            u = r[new]
            c["sectors"][i] += u.size
            c["lines128"][i] += np.count_nonzero(first_of_each(r >> 2)[1])
            start = self._mem.start
            lo, hi = (bisect.bisect_right(start, int(x) * 32 + 31) - 1 for x in (u.min(), u.max()))
            if lo == hi:
                self._buf[lo, store::2] += u.size, req
            else:  # one instruction, several buffers
                self._buf[:, int(store)] += np.bincount(
                    np.searchsorted(start, u * 32 + 31, "right") - 1, minlength=len(start)
                )
                self._buf[:, 2 + store] += (
                    np.bincount(np.searchsorted(start, a, "right") - 1, minlength=len(start)) * req // a.size
                )
            w = min(nb, 8)
            v = self._seen[int(store)].view(f"u{w}")
            ones = int.from_bytes(b"\1" * w, "little")
            if nb > 8:
                v.reshape(-1, 2)[a >> 4] = ones
            else:
                v[a // w] = ones
            if atomic:
                for p, n in zip(*(q.tolist() for q in np.unique(a, return_counts=True)), strict=True):
                    self._hot[p] = self._hot.get(p, 0) + n

    # -- results ---------------------------------------------------------------------------------
    def finish(self):
        k, c, ins, m = self._kern, self._c, self._kern.flat.instrs, self._mem
        warps, lanes = np.zeros((2, len(ins)), np.int64)
        for (a, b), (w, n) in zip(k.blocks, self._block, strict=True):
            warps[a:b], lanes[a:b] = w, n
        pred = np.array([bool(x.pred) for x in ins])
        lanes[pred] = self._on[pred]
        self.classes, self.mma, self.flops, rows = {}, {}, {"fp32": 0, "fp64": 0}, {}
        for i, x in enumerate(ins):
            if not warps[i]:
                continue
            cls, n = self._class[i], int(lanes[i])
            if cls.endswith("generic"):
                cls = cls.replace(
                    "generic", "shared" if c["wavefronts"][i] else "global" if c["sectors"][i] else "local"
                )
            w, ln = self.classes.get(cls, (0, 0))
            self.classes[cls] = w + int(warps[i]), ln + n
            if cls == "mma":
                dims = next(q for q in x.mods if q[0] == "m" and q[1].isdigit())
                f = 2 * int(np.prod([int(v) for v in dims[1:].replace("n", " ").replace("k", " ").split()]))
                key = dims, [q for q in x.mods if q in DTYPES][1]
                q = self.mma.get(key, (0, 0))
                self.mma[key] = q[0] + n // 32, q[1] + n // 32 * f
            elif cls in ("fp64", "fp32 fma", "fp32 add", "fp32 mul"):
                self.flops[cls[:4]] += n * (2 if x.op in ("fma", "mad") else x.op in ("add", "sub", "mul"))
            r = rows.setdefault(
                x.line, dict(line=x.line, cls=cls, text=x.text, warps=0, lanes=0, **dict.fromkeys(COUNTERS, 0))
            )
            r["warps"] += int(warps[i])
            r["lanes"] += n
            for name in COUNTERS:
                r[name] += int(c[name][i])
        self.lines = list(rows.values())
        self.buffers = {}
        for name, s, e, (ls, ss, lb, sb) in zip(m.names, m.start, m.end, self._buf.tolist(), strict=True):
            if ls + ss:
                t = self._seen[:, s // 32 * 32 : -(-e // 32) * 32].astype(bool)
                u, q = t.sum(1).tolist(), t.reshape(2, -1, 32).any(2)
                self.buffers[name] = {
                    "bytes": e - s,
                    "load_sectors": ls,
                    "store_sectors": ss,
                    "load_bytes": lb,
                    "store_bytes": sb,
                    "unique_loaded": u[0],
                    "unique_stored": u[1],
                    "unique_sectors": int(q[0].sum() + q[1].sum()),
                    "reread": 32 * ls / u[0] if u[0] else 0.0,
                    "rewrite": 32 * ss / u[1] if u[1] else 0.0,
                }
        B = list(self.buffers.values())
        s = lambda key: sum(b[key] for b in B)  # noqa: E731
        wf, ideal = int(c["wavefronts"].sum()), int(c["ideal"].sum())
        issued, sec = sum(w for w, _ in self.classes.values()), s("load_sectors") + s("store_sectors")
        self.total = {
            "warp_instructions": issued,
            "lane_utilisation": sum(n for _, n in self.classes.values()) / max(32 * issued, 1),
            "load_sectors": s("load_sectors"),
            "store_sectors": s("store_sectors"),
            "requested": s("load_bytes") + s("store_bytes"),
            "coalescing": (s("load_bytes") + s("store_bytes")) / (32 * sec) if sec else 1.0,
            "sector_bytes": 32 * sec,
            "unique_bytes": s("unique_loaded") + s("unique_stored"),
            "compulsory_bytes": 32 * s("unique_sectors"),
            "wavefronts": wf,
            "ideal_wavefronts": ideal,
            "bank_conflicts": wf / ideal if ideal else 1.0,
            "atomics": int(c["atomics"].sum()),
            "hottest_atomic": max(self._hot.values(), default=0),
            "mma_flops": sum(f for _, f in self.mma.values()),
        }
        for a in ("_kern", "_mem", "_class", "_block", "_on", "_c", "_seen", "_buf", "_hot"):
            delattr(self, a)

    def __str__(self, top=12):
        """A summary, and the PTX lines that cost most."""
        t = self.total
        classes = sorted(self.classes.items(), key=lambda item: -item[1][0])
        out = [
            f"{self.name}: grid {self.grid} block {self.block} shared {self.shared_bytes} B "
            f"registers {self.registers or '?'}",
            f"  {t['warp_instructions']} warp instructions, lanes active {t['lane_utilisation']:.1%}: "
            + ", ".join(f"{name} {count}" for name, (count, _) in classes),
        ]
        out += [f"  mma {shape} {d}: {n} = {f / 1e6:.3f} MFLOP" for (shape, d), (n, f) in self.mma.items()]
        out.append(
            f"  global: {t['load_sectors']} + {t['store_sectors']} sectors (ld + st), "
            f"coalescing {t['coalescing']:.3f}, "
            f"{t['unique_bytes']} unique bytes, "
            f"{t['atomics']} atomics (at most {t['hottest_atomic']} on one global address)"
        )
        for name, b in self.buffers.items():
            read, written = (f"{b[key]:.2f}x of {b[of]} B" for key, of in
                             (("reread", "unique_loaded"), ("rewrite", "unique_stored")))  # fmt: skip
            out.append(f"    {name}: read {read}, written {written}")
        out.append(
            f"  shared: {t['wavefronts']} wavefronts, ideal {t['ideal_wavefronts']}: "
            f"bank conflicts x{t['bank_conflicts']:.2f}"
        )
        out.append("    line   warps  lanes  coalesc  sectors  wavefr  ideal  text")
        for r in sorted(self.lines, key=lambda r: -max(r["sectors"] / 4, r["wavefronts"], r["warps"]))[:top]:
            coalescing = f"{r['requested'] / r['sectors'] / 32:7.3f}" if r["sectors"] else "      -"
            out.append(
                f"  {r['line']:6} {r['warps']:7} {r['lanes'] / 32 / r['warps']:6.2f}  {coalescing} {r['sectors']:8} "
                f"{r['wavefronts']:7} {r['ideal']:6}  {r['text'][:60]}"
            )
        return "\n".join(out)


class Recorder:
    """Mixed into a group when its launch is profiled."""

    def __init__(self, team, lo, hi):
        super().__init__(team, lo, hi)
        self.profile = team.launch.stats.profile

    def addr(self, i, sp, base, off, nb, k):
        a, ix = super().addr(i, sp, base, off, nb, k)
        op = self.kernel.flat.instrs[i].op
        if a is not None and op != "cp":
            atomic = op in ("atom", "red")
            self.profile.memory(i, sp, a, nb, ix, self.width, op == "st" or atomic, None, atomic)
        return a, ix

    def cp_async(self, i, *args):
        old = len(self.pending)
        super().cp_async(i, *args)
        if len(self.pending) > old:
            _, lanes, _, a, need, g, n, size = self.pending[-1]
            self.profile.memory(i, "shared", a, size, lanes, self.width, True, 0)
            if g is not None:
                self.profile.memory(i, "global", g, size, lanes[need], self.width, False, int(n[need].sum()))
