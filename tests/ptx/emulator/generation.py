"""Flat PTX kernels -> Python functions, two per basic block (all lanes active / under a lane mask).

A generated function has the form f(R, G, m): R the registers (one numpy array over the lanes each),
G the group of lanes being executed (group.Group), m the active-lane mask; it returns where to go next.
"""

import numpy as np

from . import arithmetic
from .parsing import BLOCK_ENDS, SIZES, PTXError, imm_bytes

DTYPES = {
    "b8": "u1",
    "u8": "u1",
    "s8": "i1",
    "b16": "u2",
    "u16": "u2",
    "s16": "i2",
    "f16": "f2",
    "bf16": "u2",
    "b32": "u4",
    "u32": "u4",
    "s32": "i4",
    "f32": "f4",
    "f16x2": "u4",
    "bf16x2": "u4",
    "tf32": "u4",
    "b64": "u8",
    "u64": "u8",
    "s64": "i8",
    "f64": "f8",
    "pred": "b1",
}
FLOATS = {"f16", "bf16", "f16x2", "bf16x2", "f32", "f64"}
WAIT = -1
# how a float type is read into / written from the type in which it is computed
UNPACK = {"f16": "{}.astype(f4)", "bf16": "bf2f({})", "f16x2": "hx2f({})", "bf16x2": "bx2f({})"}
REPACK = {"f16": "({}).astype(f2)", "bf16": "f2bf({})", "f16x2": "f2hx({})", "bf16x2": "f2bx({})"}
FLOAT_OPS = {
    "add": "{0}+{1}",
    "sub": "{0}-{1}",
    "mul": "{0}*{1}",
    "div": "{0}/{1}",
    "min": "np.fmin({0},{1})",
    "max": "np.fmax({0},{1})",
    "abs": "np.abs({0})",
    "neg": "-{0}",
    "sqrt": "np.sqrt({0})",
    "rcp": "1/{0}",
    "rsqrt": "1/np.sqrt({0})",
    "ex2": "np.exp2({0})",
    "lg2": "np.log2({0})",
    "sin": "np.sin({0})",
    "cos": "np.cos({0})",
    "tanh": "np.tanh({0})",
    "copysign": "np.copysign({1},{0})",
}
INT_OPS = {
    "add": "{0}+{1}",
    "sub": "{0}-{1}",
    "min": "np.minimum({0},{1})",
    "max": "np.maximum({0},{1})",
    "abs": "np.abs({0})",
    "neg": "-{0}",
    "not": "~{0}",
    "and": "{0}&{1}",
    "or": "{0}|{1}",
    "xor": "{0}^{1}",
    "cnot": "np.where({0}==0,{0}.dtype.type(1),{0}.dtype.type(0))",
    "div": "tdiv({0},{1})",
    "rem": "np.fmod({0},{1})",
    "popc": "np.bitwise_count({0}).astype(u4)",
    "clz": "clz({0})",
    "brev": "brev({0})",
    "sad": "sad({0},{1},{2})",
}
CMP = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
    "hs": ">=",
}
IGNORED = {
    "membar",
    "fence",
    "prefetch",
    "prefetchu",
    "nanosleep",
    "applypriority",
    "discard",
    "griddepcontrol",
    "pmevent",
    "createpolicy",
    "setmaxnreg",
}


class Kernel:
    """Generated code of one kernel; flat is its parsing.Flat."""

    def __init__(self, flat, profile=False):
        self.flat, ins, self.profile = flat, flat.instrs, profile
        self.votes = [{} for _ in flat.regs]
        self.home = [DTYPES[t] for t in flat.regs]
        self.fence = any(i.op in ("membar", "fence") for i in ins)
        self.scalars = {}  # (bytes, dtype) -> name of a numpy scalar in the generated code
        self.shared_width = self.global_width = 16  # granularity of the race checks: the smallest access
        starts = {0, *flat.labels.values()} | {i + 1 for i, x in enumerate(ins) if x.op in BLOCK_ENDS}
        starts = sorted(s for s in starts if s < len(ins))
        self.exit = len(starts)
        ends = [*starts[1:], len(ins)]
        self.index = {s: n for n, s in enumerate(starts)}  # start of each basic block -> number
        order = block_order([self.successors(a, b) for a, b in zip(starts, ends, strict=True)])
        self.blocks = [(starts[n], ends[n]) for n in order]
        self.index = {a: n for n, (a, _) in enumerate(self.blocks)}
        self._emit()  # first pass: count as which type each register is used
        self.votes += [{} for _ in flat.regs[len(self.votes) :]]
        self.home = [max(v, key=v.get) if v else DTYPES[t] for v, t in zip(self.votes, flat.regs, strict=True)]
        self.source = self._emit()
        env = {k: v for k, v in vars(arithmetic).items() if not k.startswith("__")}
        env.update((n, np.frombuffer(b, d)[0]) for (b, d), n in self.scalars.items())
        exec(compile(self.source, f"<{flat.fn.name}>", "exec"), env)
        self.full, self.masked = env["FULL"], env["MASKED"]
        self.count = [b - a for a, b in self.blocks]

    def successors(self, a, b):
        x = self.flat.instrs[b - 1]
        fall = [self.target(b)] if x.pred or x.op not in ("bra", "brx", "ret", "exit") else []
        to = [x.args[0]] if x.op == "bra" else self.flat.tables[x.args[1][1]] if x.op == "brx" else []
        return [n for n in fall + [self.target(t) for t in to] if n < self.exit]

    # -- emission ---------------------------------------------------------------------------------
    def _emit(self):
        out = []
        for masked in (False, True):
            for n, (a, b) in enumerate(self.blocks):
                self.lines, self.masked_now = [f"G.profile.enter({n},m,G.width)"] if self.profile else [], masked
                done = False
                for i in range(a, b):
                    done = self._instr(i, self.target(b))
                if not done:
                    self.lines.append(f"return {self.target(b)}")
                out.append(f"def {'masked' if masked else 'full'}_{n}(R,G,m):\n  " + "\n  ".join(self.lines))
        n = range(self.exit)
        out.append(f"FULL=[{','.join(f'full_{i}' for i in n)}]\nMASKED=[{','.join(f'masked_{i}' for i in n)}]")
        return "\n".join(out)

    def target(self, o):
        """Number of the block at a label or instruction index."""
        i = o if isinstance(o, int) else self.flat.labels[o[1] if isinstance(o, tuple) else o]
        return self.index.get(i, self.exit)

    def _instr(self, i, nxt):
        x = self.flat.instrs[i]
        self.i, self.x = i, x
        m = "m" if self.masked_now else None
        self.k = m
        if x.pred:
            p = self.src(x.pred[0], "pred")
            self.lines.append(f"k={'~' if x.pred[1] else ''}{p}{'&m' if m else ''}")
            self.k = "k"
            if self.profile:
                self.lines.append(f"G.profile.on({i},k)")
        self.arrays = 0
        if x.op in BLOCK_ENDS:
            return self._branch(x, nxt, m)
        if x.op in IGNORED:
            if x.op == "createpolicy":
                self.dst(x.args[0], "b64", self.const(0, "b64"))
            return False
        f = getattr(self, "op_" + x.op, None)
        t = next((q for q in reversed(x.mods) if q in DTYPES), None)
        try:
            if f:
                f(x.mods, x.args, t)
            elif t in FLOATS and x.op in FLOAT_OPS:
                self.float_op(FLOAT_OPS[x.op], x.mods, x.args, t)
            elif t and x.op in INT_OPS:
                self.int_op(INT_OPS[x.op], x.args, t)
            else:
                raise PTXError("unsupported opcode")
        except (PTXError, IndexError, KeyError, TypeError, StopIteration) as e:
            raise PTXError(
                f"kernel {self.flat.fn.name}, line {x.line}: unsupported: "
                f"{'.'.join([x.op, *x.mods])} ({type(e).__name__}: {e}) in: {x.text}"
            ) from e
        return False

    def _branch(self, x, nxt, m):
        if x.op in ("bar", "barrier"):
            if x.op == "bar" and x.mods[0] == "warp":
                return False
            mods = [q for q in x.mods if q not in ("cta", "aligned")]
            red = mods[1] if mods[0] == "red" else ""
            args = list(x.args)
            dst = args.pop(0)[1] if red else -1
            if red:
                c = args.pop()
                self.vote(("r", dst), x.mods[-1])
                val = ("~" if c[0] == "n" else "") + self.src(c[1] if c[0] == "n" else c, "pred")
            bid = self.src(args[0], "u32") if args else "0"
            cnt = self.src(args[1], "u32") if len(args) > 1 else "0"
            self.lines.append(
                f"return G.bar({self.i},{self.k},m,{bid},{cnt},{nxt},{mods[0]!r}"
                + (f",{red!r},{dst},{val})" if red else ")")
            )
            return True
        if x.op == "brx":
            t = [self.target(label) for label in self.flat.tables[x.args[1][1]]]
            self.lines.append(f"return G.brx({self.src(x.args[0], 'u32')},{t},m)")
            return True
        t = self.target(x.args[0]) if x.op == "bra" else self.exit
        if not x.pred:
            self.lines.append(f"return {t}")
        elif m:
            self.lines += [
                f"if not k.any(): return {nxt}",
                f"if (k==m).all(): return {t}",
                f"return ({t},k),({nxt},m&~k)",
            ]
        else:
            self.lines += [f"if k.all(): return {t}", f"if not k.any(): return {nxt}", f"return ({t},k),({nxt},~k)"]
        return True

    # -- operands ---------------------------------------------------------------------------------
    def vote(self, o, t):
        if o[1] < len(self.votes):
            v = self.votes[o[1]]
            if SIZES[t] == SIZES[self.flat.regs[o[1]]]:
                v[DTYPES[t]] = v.get(DTYPES[t], 0) + 1

    def const(self, v, t):
        """A constant as an array over the lanes (a pseudo-register filled at launch)."""
        if not isinstance(v, tuple):
            v = ("i", v)
        o = self.flat.pseudo((imm_bytes(v, t), DTYPES[t]), t)
        while len(self.home) < len(self.flat.regs):
            self.home.append(DTYPES[self.flat.regs[len(self.home)]])
        return f"R[{o[1]}]" + ("" if self.home[o[1]] == DTYPES[t] else f".view({DTYPES[t]})")

    def src(self, o, t, array=False):
        """Expression for operand o read as PTX type t."""
        d = DTYPES[t]
        if o[0] == "n":
            return "~" + self.src(o[1], t)
        if o[0] == "r":
            self.arrays += 1
            self.vote(o, t)
            if o[1] >= len(self.home):
                self.home += [DTYPES[x] for x in self.flat.regs[len(self.home) :]]
            h, e = self.home[o[1]], f"R[{o[1]}]"
            if h == d:
                return e
            if h[1] == d[1]:
                return f"{e}.view({d})"
            if h == "b1" or d == "b1":
                raise PTXError(f"predicate/number mismatch of register {o[1]}")
            return f"{e}.view(u{h[1]}).astype(u{d[1]}).view({d})"
        if o[0] in "if":
            if t == "pred":
                return self.const(int(o[1] != 0), t)
            b = imm_bytes(o, t)
            if array:
                self.arrays += 1
                return self.const(o, t)
            return self.scalars.setdefault((b, d), f"c{len(self.scalars)}")
        if o[0] == "s":
            self.arrays += 1
            e = self.const(o[2], "b64") if o[1] != "kparam" else f"G.param_addr({o[2]})"
            return e if d[1] == "8" else f"{e}.astype({d})"
        raise PTXError(f"operand {o} cannot be read as .{t}")

    def dst(self, o, t, expr):
        """Assign expr (of PTX type t, an array) to operand o under the current guard."""
        if o[0] == "_":
            return
        if o[0] == "d":  # p|q handled by the callers that define q
            o = o[1]
        if o[0] != "r":
            raise PTXError(f"cannot write to operand {o}")
        self.vote(o, t)
        h, d = self.home[o[1]], DTYPES[t]
        if h != d:
            if h[1] == d[1] and "b1" not in (h, d):
                expr = f"({expr}).view({h})"
            elif int(h[1]) > int(d[1]) and d != "b1":  # sign- or zero-extended into a wider register
                expr = f"({expr}).astype({'i' if d[0] == 'i' else 'u'}{h[1]}).view({h})"
            elif d[0] in "iu" and h != "b1":
                expr = f"({expr}).view(u{d[1]}).astype(u{h[1]}).view({h})"
            else:
                raise PTXError(f"cannot write .{t} to a register of type {h}")
        if self.k:
            expr = f"np.where({self.k},{expr},R[{o[1]}])"
        self.lines.append(f"R[{o[1]}]={expr}")

    def value(self, t, expr):
        """Make sure an expression built from immediates only is an array."""
        return expr if self.arrays else f"np.full(G.width,{expr},{DTYPES[t]})"

    # -- arithmetic -------------------------------------------------------------------------------
    def int_op(self, form, args, t, rt=None):
        a = [self.src(o, t) for o in args[1:]]
        rt = rt or ("u32" if self.x.op in ("popc", "clz") else t)
        e = form.format(*a)
        if "sat" in self.x.mods:
            e = "np.clip({0}.astype(i8){2}{1}.astype(i8),-2**31,2**31-1).astype(i4)".format(
                *a, "+" if self.x.op == "add" else "-"
            )
        self.dst(args[0], rt, self.value(rt, e))

    def float_op(self, form, mods, args, t):
        u = UNPACK.get(t, "{}")
        a = [u.format(self.src(o, t)) for o in args[1:]]
        if "NaN" in mods:
            form = form.replace("fmin", "minimum").replace("fmax", "maximum")
        if "ftz" in mods and t == "f32":
            a = [f"ftz({x})" for x in a]
        rnd = next((r for r in ("rz", "rm", "rp") if r in mods), None)
        if rnd and t == "f32":
            a = [f"{x}.astype(f8)" for x in a]
        e = form.format(*a)
        if rnd:
            if t != "f32":
                raise PTXError(f"rounding mode .{rnd} on .{t}")
            e = f"rnd({e},f4,{rnd!r})"
        if "sat" in mods:
            e = f"sat({e})"
        if "relu" in mods:
            e = f"relu({e})"
        if "ftz" in mods and t == "f32":
            e = f"ftz({e})"
        self.dst(args[0], t, self.value(t, REPACK.get(t, "{}").format(e)))

    def op_fma(self, mods, args, t):
        rnd = t == "f32" and any(r in mods for r in ("rz", "rm", "rp"))
        self.float_op(
            {"f32": "{0}*{1}+{2}" if rnd else "fma4({0},{1},{2})", "f64": "fma8({0},{1},{2})"}.get(
                t, "fmah({0},{1},{2})"
            ),
            mods,
            args,
            t,
        )

    def op_mul(self, mods, args, t):
        if t in FLOATS:
            return self.float_op(FLOAT_OPS["mul"], mods, args, t)
        self.mul(mods, args, t, "")
        return None

    def op_mad(self, mods, args, t):
        if t in FLOATS:
            return self.op_fma(mods, args, t)
        self.mul(mods, args, t, "+{2}")
        return None

    op_madc = op_mad

    def mul(self, mods, args, t, add):
        if "cc" in mods or self.x.op == "madc":
            a, b, c = [self.src(o, t, True) for o in args[1:]]
            return self.carry(args[0], f"mulhi({a},{b})" if "hi" in mods else f"{a}*{b}", c, "u" + t[1:], mods, "+")
        if "wide" in mods:
            w = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}[t]
            d = DTYPES[w]
            a = [f"{self.src(o, t)}.astype({d})" for o in args[1:3]] + [self.src(o, w) for o in args[3:]]
            return self.dst(args[0], w, self.value(w, ("{0}*{1}" + add).format(*a)))
        if "hi" in mods:
            return self.int_op("mulhi({0},{1})" + add, args, t)
        self.int_op("{0}*{1}" + add, args, t)
        return None

    def op_add(self, mods, args, t):
        sign = "-" if self.x.op.startswith("sub") else "+"
        carry = self.x.op in ("addc", "subc")
        if t in FLOATS:
            return self.float_op(f"{{0}}{sign}{{1}}", mods, args, t)
        if not carry and "cc" not in mods:
            return self.int_op(f"{{0}}{sign}{{1}}", args, t)
        u = "u" + t[1:]
        a, b = [self.src(o, u, True) for o in args[1:]]
        self.carry(args[0], a, b, u, mods, sign)
        return None

    def carry(self, d, a, b, t, mods, sign):
        cc = "G.cc" if self.x.op in ("addc", "subc", "madc") else None
        self.lines.append(f"t=carry(({a}).view({DTYPES[t]}),{b}.view({DTYPES[t]}),{cc},{sign!r})")
        if "cc" in mods:
            self.lines.append(f"G.cc=np.where({self.k},t[1],G.cc)" if self.k else "G.cc=t[1]")
        self.dst(d, t, "t[0]")

    op_sub = op_addc = op_subc = op_add

    def op_lop3(self, mods, args, t):
        a, b, c = [self.src(o, "b32") for o in args[1:4]]
        lut = args[4][1]
        form = {0xC0: f"{a}&{b}", 0x80: f"{a}&{b}&{c}", 0xFE: f"{a}|{b}|{c}", 0x96: f"{a}^{b}^{c}"}.get(lut)
        terms = [
            "&".join(f"{'' if n & s else '~'}{v}" for v, s in ((a, 4), (b, 2), (c, 1)))
            for n in range(8)
            if lut >> n & 1
        ]
        self.dst(args[0], "b32", self.value("b32", form or ("|".join(f"({q})" for q in terms) or self.const(0, "b32"))))

    def op_shl(self, mods, args, t):
        b = self.src(args[2], "u32")
        if SIZES[t] == 8:
            b = f"{b}.astype({DTYPES[t]})"
        elif SIZES[t] == 2:
            b = f"np.minimum({b},u4(31)).astype({DTYPES[t]})"
        elif DTYPES[t] == "i4":
            b = self.src(args[2], "s32")
        self.dst(args[0], t, self.value(t, f"{self.src(args[1], t)}{'<<' if self.x.op == 'shl' else '>>'}{b}"))

    op_shr = op_shl

    def op_shf(self, mods, args, t):
        a, b, c = [self.src(o, "u32", True) for o in args[1:]]
        self.dst(args[0], "b32", f"shf({a},{b},{c},{'l' in mods},{'wrap' in mods})")

    def op_bfe(self, mods, args, t):
        self.dst(args[0], t, f"bfe({self.src(args[1], t, True)},{self.src(args[2], 'u32')},{self.src(args[3], 'u32')})")

    def op_bfi(self, mods, args, t):
        a, b = self.src(args[1], t, True), self.src(args[2], t, True)
        self.dst(args[0], t, f"bfi({a},{b},{self.src(args[3], 'u32')},{self.src(args[4], 'u32')})")

    def op_bfind(self, mods, args, t):
        self.dst(args[0], "u32", f"bfind({self.src(args[1], t, True)},{'shiftamt' in mods})")

    def op_prmt(self, mods, args, t):
        mode = mods[-1] if mods[-1] != "b32" else ""
        a, b, c = [self.src(o, "u32", True) for o in args[1:]]
        self.dst(args[0], "b32", f"prmt({a},{b},{c},{mode!r})")

    def op_dp4a(self, mods, args, t):
        ta, tb = [q for q in mods if q in DTYPES][-2:]
        a, b = [
            f"{self.src(o, 'u32', True)}.view({'u1' if q[0] == 'u' else 'i1'}).reshape(-1,4).astype(i4)"
            for o, q in ((args[1], ta), (args[2], tb))
        ]
        self.dst(args[0], "s32", f"({a}*{b}).sum(1,dtype=i4)+{self.src(args[3], 's32')}")

    def op_testp(self, mods, args, t):
        a = self.src(args[1], t, True)
        f = {
            "finite": "np.isfinite({})",
            "infinite": "np.isinf({})",
            "notanumber": "np.isnan({})",
            "number": "~np.isnan({})",
        }
        self.dst(args[0], "pred", f[mods[0]].format(a))

    def op_setp(self, mods, args, t, rt="pred"):
        boolop = next((q for q in mods if q in ("and", "or", "xor")), None)
        cmp = next(q for q in mods if q in CMP or q in ("equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"))
        if cmp in ("lo", "ls", "hi", "hs"):
            t = "u" + t[1:]
        u = UNPACK.get(t, "{}") if t in FLOATS else "{}"
        if t in ("f16x2", "bf16x2"):
            raise PTXError("packed comparison is unsupported")
        a, b = [u.format(self.src(o, t)) for o in args[1:3]]
        if cmp in ("num", "nan"):
            e = f"{'~' if cmp == 'num' else ''}(np.isnan({a})|np.isnan({b}))"
        elif cmp in CMP:
            e = f"({a}{CMP[cmp]}{b})" + (f"&({a}=={a})&({b}=={b})" if cmp == "ne" and t in FLOATS else "")
        else:  # unordered: true if either is NaN
            e = (
                f"~({a}{ {'equ': '!=', 'ltu': '>=', 'leu': '>', 'gtu': '<=', 'geu': '<'}[cmp] }{b})"
                if cmp != "neu"
                else f"({a}!={b})"
            )
            if cmp == "equ":
                e = f"({a}=={b})|({a}!={a})|({b}!={b})"
        e = f"t={self.value('pred', e)}"
        self.lines.append(e)
        o = args[0]
        c = f"{'&' if boolop == 'and' else '|' if boolop == 'or' else '^'}{self.src(args[3], 'pred')}" if boolop else ""
        if rt != "pred":  # set: 1.0 or all ones
            return self.dst(
                o, rt, f"(t{c}).astype({DTYPES[rt]})" if rt in ("f16", "f32") else f"(-((t{c}).astype({DTYPES[rt]})))"
            )
        self.dst(o[1] if o[0] == "d" else o, "pred", f"t{c}")
        if o[0] == "d":
            self.dst(o[2], "pred", f"(~t){c}")
        return None

    def op_set(self, mods, args, t):
        ts = [q for q in mods if q in DTYPES]
        if ts[0] in ("bf16", "f16x2", "bf16x2"):
            raise PTXError("unsupported result type")
        self.op_setp([q for q in mods if q not in DTYPES] + [ts[1]], args, ts[1], ts[0])

    def op_selp(self, mods, args, t):
        self.dst(args[0], t, f"np.where({self.src(args[3], 'pred')},{self.src(args[1], t)},{self.src(args[2], t)})")

    def op_slct(self, mods, args, t):
        ts = [q for q in mods if q in DTYPES]
        a, b = [self.src(o, ts[0]) for o in args[1:3]]
        self.dst(args[0], ts[0], f"np.where({self.src(args[3], ts[1], True)}>=0,{a},{b})")

    def op_mov(self, mods, args, t):
        d, s = args
        if d[0] == "v" or s[0] == "v":
            n = len((d if d[0] == "v" else s)[1])
            et = f"b{8 * SIZES[t] // n}"
            if d[0] == "v":
                self.lines.append(f"t=unpack({self.src(s, t, True)},{DTYPES[et]})")
                for i, o in enumerate(d[1]):
                    self.dst(o, et, f"t[{i}]")
            else:
                self.dst(d, t, f"pack({','.join(self.src(o, et, True) for o in s[1])})")
            return
        self.dst(d, t, self.src(s, t, True))

    def op_cvta(self, mods, args, t):
        sp = next(
            (q for q in mods if q in ("shared", "local", "global", "const", "shared_cta", "param")), "global"
        ).split("_")[0]
        win = {"shared": "0x100000000", "local": "0x200000000"}.get(sp)
        a = self.src(args[1], t if args[1][0] != "s" else "u64", True)
        self.dst(args[0], t, a if not win else f"{a}{'-' if 'to' in mods else '+'}u8({win})")

    def op_isspacep(self, mods, args, t):
        n = {"shared": 1, "shared_cta": 1, "local": 2}.get(mods[0])
        a = f"({self.src(args[1], 'u64', True)}>>u8(32))"
        self.dst(args[0], "pred", f"{a}=={n}" if n else f"{a}>2")

    def op_cvt(self, mods, args, t):
        ts = [q for q in mods if q in DTYPES]
        if len(ts) != 2 or (ts[0] in ("f16x2", "bf16x2")) != (len(args) == 3) or ts[1] in ("f16x2", "bf16x2"):
            raise PTXError("conversion is unsupported")
        dt, st = ts
        rnd = next((r for r in ("rni", "rzi", "rmi", "rpi", "rna", "rn", "rz", "rm", "rp") if r in mods), None)
        u = UNPACK.get(st, "{}") if st in FLOATS else "{}"
        a = [u.format(self.src(o, st, True)) for o in args[1:]]
        if "ftz" in mods and st == "f32":
            a = [f"ftz({q})" for q in a]
        e = a[0]
        if len(args) == 3:  # packed: first operand goes to the upper half
            q = ",sat" if "sat" in mods else ",relu" if "relu" in mods else ""
            e = f"cvtx2({a[0]},{a[1]},{dt == 'f16x2'},{rnd!r}{q})"
        elif dt == "tf32":
            e = f"tf32({e},{rnd!r})"
        elif dt in FLOATS and st in FLOATS:
            if rnd and rnd[-1] == "i":
                e = f"rint({e},{rnd!r})"
            if "sat" in mods:
                e = f"sat({e})"
            if "relu" in mods:
                e = f"relu({e})"
            if dt == "bf16":
                e = f"f2bf({e},{rnd!r})"
            elif dt in ("f16", "f32", "f64"):
                e = f"rnd({e},{DTYPES[dt]},{rnd!r})" if rnd in ("rz", "rm", "rp") else f"({e}).astype({DTYPES[dt]})"
            if "ftz" in mods and dt == "f32":
                e = f"ftz({e})"
        elif dt in FLOATS:
            e = (
                f"f2bf({e}.astype(f8))"
                if dt == "bf16"
                else f"rnd({e}.astype(f8),{DTYPES[dt]},{rnd!r})"
                if rnd in ("rz", "rm", "rp")
                else f"{e}.astype({DTYPES[dt]})"
            )
        elif st in FLOATS:
            e = f"f2i(rint({e},{rnd!r}),{DTYPES[dt]})"
        else:
            e = f"isat({e},{DTYPES[dt]})" if "sat" in mods else f"{e}.astype({DTYPES[dt]})"
        self.dst(args[0], dt, e)

    # -- memory -----------------------------------------------------------------------------------
    def space(self, mods):
        for q in mods:
            if q.split("_")[0] in ("global", "shared", "local", "const", "param"):
                return {"const": "global"}.get(q.split("_")[0], q.split("_")[0])
        return "generic"

    def mem(self, mods, addr, t, n=1):
        """(space, address expression, constant offset) of a memory operand; notes the access width."""
        sp, base, off = self.space(mods), addr[1], addr[2]
        if base[0] == "s":
            off, sp = off + base[2], {"kparam": "kparam"}.get(base[1], base[1])
            base = ("i", 0)
        if sp == "param":
            sp = "generic" if base[0] == "r" else sp
        if sp in ("shared", "generic"):
            self.shared_width = min(self.shared_width, SIZES[t] * n)
        if sp in ("global", "generic"):
            self.global_width = min(self.global_width, SIZES[t] * n)
        if base[0] == "r":
            w = SIZES[self.flat.regs[base[1]]]
            return sp, self.src(base, "u64" if w == 8 else "u32"), off
        return sp, self.const(base[1], "u64"), off

    def vec(self, o):
        return o[1] if o[0] == "v" else [o]

    def op_ld(self, mods, args, t):
        regs = self.vec(args[0])
        sp, a, off = self.mem(mods, args[1], t, len(regs))
        if sp == "kparam":
            for i, o in enumerate(regs):
                r = self.flat.pseudo(("param", off + i * SIZES[t], t), t)
                self.home += [DTYPES[q] for q in self.flat.regs[len(self.home) :]]
                self.dst(o, t, self.src(r, t))
            return
        self.lines.append(f"t=G.ld({self.i},{sp!r},{a},{off},{DTYPES[t]},{len(regs)},{self.k})")
        if any(q in ("volatile", "relaxed", "acquire") for q in mods):
            self.lines.append(f"G.poll({self.i},t)")
        for i, o in enumerate(regs):
            self.dst(o, t, f"t[{i}]")

    op_ldu = op_ld

    def op_st(self, mods, args, t):
        regs = self.vec(args[1])
        sp, a, off = self.mem(mods, args[0], t, len(regs))
        v = ",".join(self.src(o, t, True) for o in regs)
        self.lines.append(f"G.st({self.i},{sp!r},{a},{off},{DTYPES[t]},({v},),{self.k})")

    def op_atom(self, mods, args, t):
        if self.x.op == "red":
            args = [("_",), *args]
        what = next(q for q in mods if q in ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"))
        if args[2][0] == "v":
            raise PTXError("vector atomics are unsupported")
        sp, a, off = self.mem(mods, args[1], t)
        v = ",".join(self.src(o, t, True) for o in args[2 : 4 if what == "cas" else 3])
        sem = any(q in mods for q in ("acq_rel", "release", "acquire")) or self.fence
        self.lines.append(
            f"t=G.atom({self.i},{sp!r},{a},{off},{t!r},{what!r},({v},),{args[0][0] != '_'},{sem},{self.k})"
        )
        self.dst(args[0], t, "t")

    def op_red(self, mods, args, t):
        if "async" in mods:
            raise PTXError("unsupported opcode")
        self.op_atom(mods, args, t)

    def op_cp(self, mods, args, t):
        if mods[0] != "async" or "bulk" in mods or "mbarrier" in mods or "reduce" in mods:
            raise PTXError("TMA/bulk/mbarrier copies are unsupported")
        if "commit_group" in mods:
            self.lines.append(f"G.commit({self.k})")
        elif "wait_group" in mods or "wait_all" in mods:
            self.lines.append(f"G.wait({self.i},{args[0][1] if args else -1},{self.k})")
        else:
            size = args[2][1]
            _, d, doff = self.mem(["shared"], args[0], "b8", size)
            _, s, soff = self.mem(["global"], args[1], "b8", size)
            n = args[3] if (len(args) > 3 and "cache_hint" not in ".".join(mods[-2:])) or len(args) > 4 else ("i", size)
            if n[0] == "r" and self.flat.regs[n[1]] == "pred":  # ignore-src predicate
                n = f"np.where({self.src(n, 'pred')},u4(0),u4({size}))"
            else:
                n = self.src(n, "u32", True)
            self.lines.append(f"G.cp_async({self.i},{d},{doff},{s},{soff},{size},{n},{self.k})")

    # -- warp collectives -------------------------------------------------------------------------
    def op_shfl(self, mods, args, t):
        mode = mods[1] if mods[0] == "sync" else mods[0]
        fixed = args[2][0] == "i" and args[3][0] == "i"
        b, c = [str(o[1]) if fixed else self.src(o, "u32", True) for o in args[2:4]]
        mask = self.src(args[4], "u32", True) if mods[0] == "sync" else self.const(-1, "u32")
        self.lines.append(
            f"t=G.shfl({self.i},{mode!r},{self.src(args[1], 'b32', True)},{b},{c},{mask},{fixed},{self.k})"
        )
        d = args[0]
        self.dst(d[1] if d[0] == "d" else d, "b32", "t[0]")
        if d[0] == "d":
            self.dst(d[2], "pred", "t[1]")

    def op_vote(self, mods, args, t):
        kind = next(q for q in mods if q in ("all", "any", "uni", "ballot"))
        self.lines.append(
            f"t=G.vote({self.i},{kind!r},{self.src(args[1], 'pred')},{self.src(args[2], 'u32', True)},{self.k})"
        )
        self.dst(args[0], t, "t")

    def op_activemask(self, mods, args, t):
        self.dst(args[0], "b32", f'G.vote({self.i},"active",{self.const(1, "pred")},{self.const(0, "u32")},{self.k})')

    def op_match(self, mods, args, t):
        a, mask = self.src(args[1], t, True), self.src(args[2], "u32", True)
        self.lines.append(f"t=G.match({self.i},{'all' in mods},{a},{mask},{self.k})")
        d = args[0]
        self.dst(d[1] if d[0] == "d" else d, "b32", "t[0]")
        if d[0] == "d":
            self.dst(d[2], "pred", "t[1]")

    def op_redux(self, mods, args, t):
        kind = next(q for q in mods if q in ("add", "min", "max", "and", "or", "xor"))
        self.dst(
            args[0],
            t,
            f"G.redux({self.i},{kind!r},{self.src(args[1], t, True)},{self.src(args[2], 'u32', True)},{self.k})",
        )

    def op_mma(self, mods, args, t):
        shape = next(q for q in mods if q[0] == "m" and q[1].isdigit())
        ts = [q for q in mods if q in DTYPES]
        if (
            len(ts) != 4
            or tuple(q for q in mods if q in ("row", "col")) != ("row", "col")
            or "sp" in mods
            or "sync" not in mods
        ):
            raise PTXError("unsupported mma variant")
        td, ta, tb, tc = ts
        dims = tuple(int(v) for v in shape[1:].replace("n", " ").replace("k", " ").split())
        m, n, k = dims
        rt = {"f64": "f64", "s32": "s32"}
        ra = "f64" if ta == "f64" else "b32"
        a, b, c = [
            f"({','.join(self.src(o, q, True) for o in self.vec(x))},)"
            for x, q in ((args[1], ra), (args[2], ra), (args[3], rt.get(tc, "f32" if tc == "f32" else "b32")))
        ]
        bits = 64 if ta == "f64" else 32 if ta == "tf32" else 8 * SIZES[ta]
        if (
            ta not in ("f64", "tf32", "f16", "bf16", "s8", "u8")
            or (m, n) != ((8, 8) if ta == "f64" else (16, 8))
            or len(self.vec(args[1])) * 32 * max(32, bits) != m * k * bits
        ):
            raise PTXError("unsupported mma shape/type")
        self.lines.append(f"t=G.mma({self.i},{dims},{ta!r},{tb!r},{tc!r},{td!r},{a},{b},{c},{self.k})")
        for i, o in enumerate(self.vec(args[0])):
            self.dst(o, rt.get(td, "f32" if td == "f32" else "b32"), f"t[{i}]")

    def op_ldmatrix(self, mods, args, t):
        if "m8n8" not in mods:
            raise PTXError("unsupported ldmatrix shape")
        regs = self.vec(args[0])
        _, a, off = self.mem(["shared"], args[1], "b64", 2)
        self.lines.append(f"t=G.ldmatrix({self.i},{a},{off},{len(regs)},{'trans' in mods},{self.k})")
        for i, o in enumerate(regs):
            self.dst(o, "b32", f"t[{i}]")

    def op_trap(self, mods, args, t):
        self.lines.append(f"G.trap({self.i},{self.k})")

    op_brkpt = op_trap


def block_order(succ):
    """Basic blocks in an order in which lanes that run smallest-number-first meet again: a reverse postorder
    of the flow graph in which every loop comes before the blocks it exits to."""
    n = len(succ)
    loops = [[] for _ in range(n)]  # loops around each block, outermost first

    def postorder(roots, nodes, out):
        seen, post = set(), []
        for r in roots:
            if r in seen:
                continue
            seen.add(r)
            stack = [(r, iter(out(r)))]
            while stack:
                _b, it = stack[-1]
                q = next((q for q in it if q in nodes and q not in seen), None)
                if q is None:
                    post.append(stack.pop()[0])
                else:
                    seen.add(q)
                    stack.append((q, iter(out(q))))
        return post

    work, count = [set(range(n))], 0
    while work:  # strongly connected components, then again without their headers
        nodes = work.pop()
        pred = {b: [] for b in nodes}
        for b in nodes:
            for q in succ[b]:
                if q in nodes:
                    pred[q].append(b)
        left = set(nodes)
        for r in reversed(postorder(sorted(nodes), nodes, lambda b: succ[b])):
            if r not in left:
                continue
            comp = set(postorder([r], left, pred.get))
            left -= comp
            if len(comp) > 1 or r in succ[r]:
                count += 1
                for b in comp:
                    loops[b].append(count)
                entry = [b for b in sorted(comp) if b == 0 or any(b in succ[q] for q in range(n) if q not in comp)]
                work.append(comp - {(entry or sorted(comp))[0]})
    common = lambda b, q: len(set(loops[b]) & set(loops[q]))  # noqa: E731
    post = postorder(range(n), set(range(n)), lambda b: sorted(succ[b], key=lambda q: (common(b, q), -q)))
    return post[::-1] if n == 0 or post[-1] == 0 else [0] + [b for b in post[::-1] if b != 0]
