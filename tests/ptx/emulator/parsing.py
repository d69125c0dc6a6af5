"""PTX text -> functions, module variables and, per kernel, a flat list of resolved instructions.

Device functions (.func) are inlined at their call sites, so that a kernel is one list of
instructions over one flat set of registers; call parameters become per-thread local memory.
"""

import re
import struct
from bisect import bisect_right


class PTXError(Exception):
    """Anything the emulator refuses: bad PTX, unsupported opcode, illegal access, deadlock."""


SIZES = {
    "b8": 1,
    "u8": 1,
    "s8": 1,
    "b16": 2,
    "u16": 2,
    "s16": 2,
    "f16": 2,
    "bf16": 2,
    "b32": 4,
    "u32": 4,
    "s32": 4,
    "f32": 4,
    "f16x2": 4,
    "bf16x2": 4,
    "tf32": 4,
    "b64": 8,
    "u64": 8,
    "s64": 8,
    "f64": 8,
    "pred": 1,
}
_TYPE = re.compile(r"\.(b8|u8|s8|b16|u16|s16|f16x2|f16|bf16x2|bf16|b32|u32|s32|f32|b64|u64|s64|f64|pred)\b")
_STMT = re.compile(
    r"\s*(?:(?P<label>[A-Za-z_$%][\w$]*)\s*:(?!:)|(?P<brace>[{}])"
    r"|(?P<stmt>[^;{}]*(?:\{[^{};]*\}[^;{}]*)*;)|(?P<head>[^;{}]+)(?=\{))"
)
_IDENT = r"[A-Za-z_$%][\w$]*"
UNSUPPORTED = re.compile(
    r"wgmma|tcgen05|mbarrier|wmma|clusterlaunchcontrol|mapa|getctarank|barrier\.cluster|tex\.|tld4|"
    r"(st|red)\.(async|bulk)|su(ld|st|red|q)\.|multimem|tensormap|stack(save|restore)|alloca|istypep|"
    r"cp\.(reduce\.)?async\.(bulk|mbarrier)|.*shared::cluster|stmatrix|elect|fns"
)
BLOCK_ENDS = {"bra", "brx", "ret", "exit", "bar", "barrier"}
SPECIALS = {
    "%laneid",
    "%warpid",
    "%nwarpid",
    "%gridid",
    "%clock",
    "%clock_hi",
    "%clock64",
    "%smid",
    "%nsmid",
    "%globaltimer",
    "%globaltimer_lo",
    "%globaltimer_hi",
    "%dynamic_smem_size",
    "%total_smem_size",
    "%lanemask_eq",
    "%lanemask_le",
    "%lanemask_lt",
    "%lanemask_ge",
    "%lanemask_gt",
} | {f"%{r}.{c}" for r in ("tid", "ntid", "ctaid", "nctaid") for c in "xyz"}


class Var:
    """A declared variable: name, element type, size in bytes, alignment, initialiser."""

    def __init__(self, text, line):
        self.line, self.extern = line, ".extern" in text
        decl, _, init = text.partition("=")
        m = _TYPE.search(decl)
        if not m:
            raise PTXError(f"line {line}: cannot parse declaration: {text}")
        self.type = m.group(1)
        al = re.search(r"\.align\s+(\d+)", decl)
        m2 = re.search(rf"({_IDENT})\s*((?:\[\s*\w*\s*\]\s*)*)$", decl.strip())
        self.name = m2.group(1)
        dims = re.findall(r"\[\s*(\w*)\s*\]", m2.group(2))
        count = 1
        for d in dims:
            count *= int(d, 0) if d else 0
        self.size = SIZES[self.type] * count
        self.align = max(int(al.group(1)) if al else 1, SIZES[self.type])
        self.init = self._init(init.strip()) if init else b""

    def _init(self, text):
        out = b""
        for tok in re.findall(r"[^\s,{}]+", text):
            v = parse_imm(tok)
            if v is None:
                raise PTXError(f"line {self.line}: unsupported initialiser {tok!r} of {self.name}")
            out += imm_bytes(v, self.type)
        return out.ljust(self.size, b"\0")


class Func:
    def __init__(self, head, line):
        self.entry, self.line, self.body = ".entry" in head, line, []
        h = head[re.search(r"\.(entry|func)\b", head).end() :].strip()
        groups = re.findall(r"\(([^()]*)\)", h)
        self.name = re.search(rf"({_IDENT})\s*(?:\(|$|\.)", re.sub(r"^\s*\([^()]*\)", "", h).strip()).group(1)
        self.rets = []
        if h.startswith("("):
            self.rets, groups = [Var(p, line) for p in groups[0].split(",") if p.strip()], groups[1:]
        self.params = [Var(p, line) for p in (groups[0].split(",") if groups else []) if p.strip()]
        m = re.search(r"\.reqntid\s+([\d,\s]+)", head)
        self.reqntid = [int(x) for x in m.group(1).split(",")] if m else None


class Instr:
    __slots__ = ("args", "line", "mods", "op", "pred", "text")

    def __init__(self, pred, op, mods, args, line, text):
        self.pred, self.op, self.mods, self.args, self.line, self.text = pred, op, mods, args, line, text


def parse_imm(t):
    """Immediate token -> ('i', int) or ('f', float value, bits or None, width) or None."""
    if re.fullmatch(r"-?0[fF][0-9a-fA-F]{8}", t):
        b = int(t.lstrip("-")[2:], 16) ^ (0x80000000 if t[0] == "-" else 0)
        return "f", struct.unpack("<f", struct.pack("<I", b))[0], b, 4
    if re.fullmatch(r"-?0[dD][0-9a-fA-F]{16}", t):
        b = int(t.lstrip("-")[2:], 16) ^ (1 << 63 if t[0] == "-" else 0)
        return "f", struct.unpack("<d", struct.pack("<Q", b))[0], b, 8
    if re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?", t):
        s = t.rstrip("U")
        d = s.lstrip("+-")
        v = int(d, 8) if re.fullmatch(r"0[0-7]+", d) else int(d, 0)
        return "i", -v if s[0] == "-" else v
    if re.fullmatch(r"[-+]?\d+\.\d*(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+", t):
        return "f", float(t), None, 8
    return ("i", 32) if t == "WARP_SZ" else None


def imm_bytes(v, typ):
    n = SIZES[typ]
    if typ in ("f32", "f64") and not (v[0] == "f" and v[2] is not None and v[3] == n):
        return struct.pack("<f" if n == 4 else "<d", v[1])
    return ((v[1] if v[0] == "i" else v[2]) & ((1 << 8 * n) - 1)).to_bytes(n, "little")


def split_args(s):
    out, depth, cur = [], 0, ""
    for c in s:
        depth += (c in "[{(") - (c in "]})")
        if c == "," and depth == 0:
            out.append(cur.strip())
            cur = ""
        else:
            cur += c
    return out + [cur.strip()] if cur.strip() else out


def parse_module(text):
    """-> (functions by name, module variables as (space, Var))."""
    keep = lambda m: "\n" * m.group().count("\n")  # noqa: E731  (keeps the line numbers)
    src = re.sub(r"/\*.*?\*/|//[^\n]*|^[ \t]*\.(?:loc|file)\b[^\n]*", keep, text, flags=re.S | re.M)
    src = re.sub(r"\.section\s+\S+\s*\{.*?\}", keep, src, flags=re.S)
    src = re.sub(r"^[ \t]*\.(?:version|target|address_size)\b[^\n]*", "", src, flags=re.M)
    nl = [m.start() for m in re.finditer("\n", src)]
    funcs, variables, cur, depth, pos = {}, [], None, 0, 0
    while True:
        m = _STMT.match(src, pos)
        if not m:
            if src[pos:].strip():
                raise PTXError(f"line {bisect_right(nl, pos) + 1}: cannot parse: {src[pos : pos + 80].strip()!r}")
            break
        pos, kind = m.end(), m.lastgroup
        txt = m.group(kind).strip()
        line = bisect_right(nl, m.start(kind)) + 1
        if cur is None:
            if kind == "head" and re.search(r"\.(entry|func)\b", txt):
                cur, depth = Func(txt, line), 0
                funcs[cur.name] = cur
            elif kind == "stmt":
                sp = re.search(r"\.(shared|global|const)\b", txt)
                if sp and not re.search(r"\.(func|entry)\b", txt):
                    variables.append((sp.group(1), Var(txt[:-1], line)))
            elif kind == "head":
                raise PTXError(f"line {line}: unexpected {txt[:60]!r}")
            continue
        if kind == "brace":
            depth += 1 if txt == "{" else -1
            if depth == 0:
                cur = None
            elif not (txt == "{" and depth == 1):
                cur.body.append((txt, line, ""))
        else:
            cur.body.append((kind, line, txt.rstrip(";").strip() if kind == "stmt" else txt))
    return funcs, variables


class Flat:
    """One kernel flattened: instrs (with labels resolved to indices), registers, shared and local layout.

    Operands: ('r', reg) register or constant lane array, ('i', int), ('f', value, bits, width),
    ('s', space, offset) address of a variable, ('a', operand, offset) memory address, ('v', [operands]),
    ('n', operand) negated predicate, ('d', operand, operand) the pair p|q, ('l', label), ('_',)."""

    def __init__(self, mod, fn):
        self.mod, self.fn = mod, fn
        self.regs = []  # declared type of each register
        self.const = {}  # pseudo-registers: key -> register (special registers, kernel parameters, immediates)
        self.instrs, self.labels, self.tables, self.ninst = [], {}, {}, 0
        self.shared = self.local = 0  # bytes
        self.param_off, off = {}, 0
        for p in fn.params:
            off = -(-off // p.align) * p.align
            self.param_off[p.name] = (off, p)
            off += p.size
        self.param_bytes = off
        self.dynamic_shared, syms = [], {}
        for sp, v in mod.declarations:
            if sp == "shared":
                if v.extern or v.size == 0:
                    self.dynamic_shared.append(v.name)
                else:
                    syms[v.name] = ("s", "shared", self._alloc("shared", v))
            else:
                syms[v.name] = ("s", "global", mod.addresses[v.name])
        for n in self.param_off:
            syms[n] = ("s", "kparam", self.param_off[n][0])
        pend = [Var(s, line) for k, line, s in fn.body if k == "stmt" and re.match(r"(\.extern\s+)?\.shared\b", s)]
        for v in pend:  # static shared variables come first, dynamic ones share the end
            if v.extern or v.size == 0:
                self.dynamic_shared.append(v.name)
            else:
                syms[v.name] = ("s", "shared", self._alloc("shared", v))
        self.static_shared = -(-self.shared // 16) * 16
        for n in self.dynamic_shared:
            syms[n] = ("s", "shared", self.static_shared)
        self._walk(fn, syms, None, ())
        self.local_size = -(-self.local // 32) * 32

    def _alloc(self, space, v):
        off = -(-getattr(self, space) // v.align) * v.align
        setattr(self, space, off + v.size)
        return off

    def pseudo(self, key, typ):
        if key not in self.const:
            self.const[key] = len(self.regs)
            self.regs.append(typ)
        return "r", self.const[key]

    def _walk(self, fn, syms, end, stack):
        if fn.name in stack:
            raise PTXError(f"recursive call of {fn.name} is unsupported")
        self.ninst += 1
        inst, scopes, ids, nxt = self.ninst, [dict(syms)], [0], 0
        where, st, n = {}, [0], 0  # label -> scopes that define it (labels may be local to an asm block)
        for kind, _, txt in fn.body:
            if kind == "{":
                n += 1
                st.append(n)
            elif kind == "}":
                st.pop()
            elif kind == "label":
                where.setdefault(txt, set()).add(st[-1])

        def label(name, line):
            for i in reversed(ids):
                if i in where.get(name, ()):
                    return f"{inst}:{i}:{name}"
            raise PTXError(f"line {line}: unknown label {name}")

        pending = None
        for kind, line, txt in fn.body:
            if kind == "{":
                nxt += 1
                scopes.append({})
                ids.append(nxt)
            elif kind == "}":
                scopes.pop()
                ids.pop()
            elif kind == "label":
                pending = f"{inst}:{ids[-1]}:{txt}"
                self.labels[pending] = len(self.instrs)
            elif txt.startswith(".branchtargets"):
                self.tables[pending] = [label(t.strip(), line) for t in txt[14:].split(",")]
            elif txt.startswith("."):
                self._declare(txt, line, scopes[-1])
            elif txt:
                self._instr(fn, txt, line, scopes, label, end, stack + (fn.name,))
        if end is None:
            self.instrs.append(Instr(None, "exit", [], [], fn.line, "exit (end of kernel)"))

    def _declare(self, txt, line, scope):
        kind = re.match(r"\.(\w+)", txt).group(1)
        if kind == "reg":
            m = re.match(r"\.reg\s*(?:\.v\d\s*)?\.(\w+)\s+(.*)", txt, re.S)
            typ = m.group(1)
            if typ not in SIZES:
                raise PTXError(f"line {line}: unsupported register type .{typ}")
            for name in m.group(2).split(","):
                r = re.fullmatch(rf"\s*({_IDENT})\s*<\s*(\d+)\s*>\s*", name)
                if r:
                    scope[("range", r.group(1))] = (typ, int(r.group(2)))
                else:
                    scope[name.strip()] = ("r", len(self.regs))
                    self.regs.append(typ)
        elif kind in ("local", "param"):
            v = Var(txt, line)
            scope[v.name] = ("s", "local", self._alloc("local", v))
        elif kind not in ("shared", "pragma", "extern", "callprototype", "maxntid", "minnctapersm"):
            raise PTXError(f"line {line}: unsupported directive {txt[:60]!r}")

    def _name(self, t, scopes):
        for s in reversed(scopes):
            if t in s:
                return s[t]
        m = re.fullmatch(r"(.*?)(\d+)", t)
        if m:
            for s in reversed(scopes):
                r = s.get(("range", m.group(1)))
                if r and int(m.group(2)) < r[1]:
                    s[t] = ("r", len(self.regs))
                    self.regs.append(r[0])
                    return s[t]
        return None

    def _operand(self, t, scopes, line):
        if t == "_":
            return ("_",)
        if t[0] == "{":
            return "v", [self._operand(x, scopes, line) for x in split_args(t[1:-1])]
        if t[0] == "[":
            inner = t[1:-1].strip()
            m = re.fullmatch(r"(.*?)\s*([+-])\s*(-?\w+)", inner)
            base, off = (m.group(1), int(m.group(2) + "1") * parse_imm(m.group(3))[1]) if m else (inner, 0)
            return "a", self._operand(base, scopes, line), off
        if t[0] == "!":
            return "n", self._operand(t[1:].strip(), scopes, line)
        if "|" in t:
            return ("d", *[self._operand(x.strip(), scopes, line) for x in t.split("|")])
        v = parse_imm(t)
        if v:
            return v
        if t in SPECIALS:
            return self.pseudo(t, "b64" if t in ("%clock64", "%globaltimer") else "b32")
        r = self._name(t, scopes)
        if r:
            return r
        m = re.fullmatch(rf"({_IDENT})\s*([+-])\s*(\w+)", t)
        if m and (r := self._name(m.group(1), scopes)):
            return r[0], r[1], r[2] + int(m.group(2) + m.group(3), 0)
        raise PTXError(f"line {line}: unknown operand {t!r}")

    def _instr(self, fn, txt, line, scopes, label, end, stack):
        m = re.match(rf"(?:@(!?)\s*({_IDENT})\s+)?([a-z][\w.:]*)\s*(.*)$", txt, re.S)
        if not m:
            raise PTXError(f"line {line}: cannot parse {txt!r}")
        pred = None
        if m.group(2):
            pred = (self._operand(m.group(2), scopes, line), bool(m.group(1)))
        if UNSUPPORTED.match(m.group(3)):
            raise PTXError(f"kernel {fn.name}, line {line}: unsupported opcode {m.group(3)} in: {txt}")
        op, *mods = [x for x in m.group(3).replace("::", "_").split(".") if x]
        rest = m.group(4).strip()
        add = lambda o, md, a: self.instrs.append(Instr(pred, o, md, a, line, " ".join(txt.split())))  # noqa: E731
        if op == "call":
            return self._call(rest, pred, scopes, line, stack, add)
        if op == "bra":
            return add("bra", mods, [("l", label(rest, line))])
        if op == "brx":
            a, b = split_args(rest)
            return add("brx", mods, [self._operand(a, scopes, line), ("l", label(b, line))])
        if op == "ret" and end is not None:
            return add("bra", [], [("l", end)])
        add(op, mods, [self._operand(a, scopes, line) for a in split_args(rest)])
        return None

    def _call(self, rest, pred, scopes, line, stack, add):
        parts = split_args(rest)
        rets = split_args(parts.pop(0)[1:-1]) if parts[0][0] == "(" else []
        name = parts.pop(0)
        args = split_args(parts.pop(0)[1:-1]) if parts else []
        if name == "vprintf":
            return None
        if name == "__assertfail":
            return add("trap", ["assertfail"], [])
        if name not in self.mod.funcs or pred:
            raise PTXError(f"line {line}: unsupported call of {name} (indirect, external or predicated)")
        f = self.mod.funcs[name]
        syms = {
            k: v for k, v in scopes[0].items() if isinstance(v, tuple) and v[0] == "s" and v[1] in ("shared", "global")
        }
        for formal, actual in zip(f.rets + f.params, rets + args, strict=True):
            syms[formal.name] = self._operand(actual, scopes, line)
        end = f"end{len(self.instrs)}:{name}"
        self._walk(f, syms, end, stack)
        self.labels[end] = len(self.instrs)
        return None
