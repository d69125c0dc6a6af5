"""The tables of the report: each a function from the results to Markdown, which is empty where nothing was found."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.gpu import figures
from benchmarks.gpu.plan import FUSED
from benchmarks.gpu.results import rows

NAMES = {"triton": "Triton", "cuda": "CUDA C++", "plain": "plain", "compiled": "torch.compile"}


def title(found: dict) -> str:
    devices = dict.fromkeys(call["device"] for call in found["calls"])
    return " and ".join(devices) or "no device yet"


def calls(found: dict) -> str:
    lines = []
    for call in found["calls"]:
        library = call.get("libraries", {})
        why = f" ({library['why']})" if library.get("why") else ""
        lines.append(
            f"- {call['started'][:16].replace('T', ' ')} UTC, stage {call['stage']}, {call.get('seconds', 0):.0f} s, "
            f"commit {call['commit'] or 'unknown'}; `{library.get('name', '')}` {library.get('state', '')}{why}: "
            f"`{call['command']}`"
        )
    commits = dict.fromkeys(r["commit"] for sections in found["sections"].values() for r in sections.values())
    if len(commits) > 1:
        lines.append(f"- **Sections of {len(commits)} commits stand side by side:** {', '.join(map(str, commits))}")
    for row in rows(found, "environment")[:1]:
        packages = ", ".join(f"{name} {version}" for name, version in row.get("packages", {}).items() if version)
        lines.append(f"- Python {row.get('python')}, {packages}; CUDA of torch {row.get('torch_cuda')}")
    for row in [row for row in rows(found, "environment") if row.get("case") == "device"][:1]:
        lines.append(
            f"- {row['name']}, sm_{row['capability'].replace('.', '')}, {row['processors']} processors, "
            f"{row['memory_bytes'] / 2**30:.0f} GiB; driver, state, power limit, ECC: "
            f"{row['driver, state, power limit, ECC']}"
        )
    return "\n".join(lines)


def what_ran(found: dict) -> str:
    lines = []
    for stage, sections in found["sections"].items():
        for name, record in sections.items():
            sm = [a["clocks"]["sm_mhz"] for a in record["attempts"] if a["clocks"]]
            clocks = f"{min(s[0] for s in sm):.0f}–{max(s[2] for s in sm):.0f}" if sm else ""
            lines.append((stage, name, record["status"], f"{record['seconds']:.0f}", clocks, _cell(record["why"])))
    return _table(("stage", "section", "status", "s", "SM MHz", "why"), lines)


class _Judged(NamedTuple):
    """A loss or gradient of a problem, as sections/parity.py judged it."""

    error: float
    allowed: float
    verdict: str
    what: str
    case: str

    def of_budget(self) -> float:
        return self.error / self.allowed if self.allowed else 0.0


def parity(found: dict) -> str:
    groups = defaultdict(list)
    for row in rows(found, "parity"):
        if "backend" in row:
            groups[row["backend"], row["kind"]].append(row)
    lines = []
    for (backend, kind), members in groups.items():
        judged = [_Judged(*v, name, row["case"]) for row in members for name, v in row.get("results", {}).items()]
        verdicts = Counter(result.verdict for result in judged)
        nearest = max((r for r in judged if isinstance(r.error, float)), key=_Judged.of_budget, default=None)
        where = f"{nearest.error:.1e} of {nearest.allowed:.1e}: {nearest.what}, {nearest.case}" if nearest else ""
        counts = (verdicts[verdict] for verdict in ("within", "allowance", "fault"))
        lines.append((NAMES[backend], kind, len(members), *counts, where))
    header = ("backend", "kind", "problems", "within", "within the allowance", "faults", "nearest to the budget")
    return _join(_table(header, lines), _failures(found, "parity"))


def behaviour(found: dict) -> str:
    checks: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows(found, "behaviour"):
        backend, _, check = row["case"].partition(": ")
        checks[check][backend] = "yes" if row.get("ok") else "**NO**"
    lines = [(check, *(found_.get(backend, "") for backend in FUSED)) for check, found_ in checks.items()]
    return _join(_table(("", *(NAMES[name] for name in FUSED)), lines), _failures(found, "behaviour"))


def tests(found: dict) -> str:
    summaries = [f"`{row['summary']}`" for row in rows(found, "tests") if "summary" in row]
    return _join(*summaries, _failures(found, "tests"))


def ceilings(found: dict) -> str:
    copy, products = figures.reached(rows(found, "ceilings"))
    lines = [("copy", f"{copy / 1e12:.2f} TB/s")] if copy else []
    lines += [(f"product, {kind}", f"{rate / 1e12:.1f} TFLOP/s") for kind, rate in products.items()]
    return _table(("", "reached"), lines)


def device_times(found: dict) -> str:
    """Graph replay: the fused times, what the others take beside `auto`, and how far that is above the floor."""
    cells = figures.times(found, "graph")
    if not cells:
        return ""
    others = sorted({name for cell in cells.values() for name in cell} - set(FUSED), key=_order)
    fallen, full, lines = figures.fell_back(found), figures.out_of_memory(found), []
    for cell, by_name in cells.items():
        auto, floor = by_name.get(figures.automatic(by_name)), figures.floor(found, cell)
        ratios = []
        for other in others:
            text = f"{by_name[other] / auto:.2f}" if auto and other in by_name else ""
            text += " †" if (cell, other) in fallen else ""
            ratios.append(text or ("no memory" if (cell, other) in full else ""))
        above = f"{auto / floor:.1f}" if auto and floor else ""
        lines.append((_name(cell), *(_us(by_name.get(name)) for name in FUSED), *ratios, above))
    header = ("kind, n × d", *(NAMES[name] for name in FUSED), *(f"{peer(other)} ÷ auto" for other in others))
    means = [
        f"{peer(other)} ÷ {NAMES[name]}: geometric mean {figures.geometric_mean(found_):.2f}, "
        f"{min(found_):.2f} to {max(found_):.2f} over {len(found_)} cells"
        for other in others
        for name in FUSED
        if (found_ := figures.ratios(found, "graph", other, name))
    ]
    note = (
        "Forward and backward of both terms, the student's gradient, by graph replay on inputs that left the L2 cache. "
        "`auto` takes Triton, and CUDA C++ where there is none. The floor is the larger of 4n²d operations and the "
        "bytes that must move (3nd), at the rates above."
    )
    spreads = figures.spreads(found)
    if spreads:
        note += f" Two passes differ by {spreads[len(spreads) // 2]:.1%} in the median and {spreads[-1]:.1%} at most."
    note += " †: not one graph, so that part of it ran eagerly." if fallen else ""
    table = _table((*header, "auto ÷ floor"), lines)
    return _join(table, "\n".join(f"- {mean}" for mean in means), note, _failures(found, "first_times", "times"))


def compilation(found: dict) -> str:
    lines = [(peer(n), count, f"{most:.1f}") for n, (count, most) in figures.counts_of_compilation(found).items()]
    return _join(_table(("what", "compiled", "longest, s"), lines), _failures(found, "compile"))


def other_times(found: dict) -> str:
    cold, host = figures.times(found, "cold"), figures.times(found, "host")
    names = sorted({name for cell in (*cold.values(), *host.values()) for name in cell}, key=_order)
    both = lambda cell, name: (_us(figure.get(cell, {}).get(name)) for figure in (cold, host))  # noqa: E731
    lines = [(_name(cell), *(" · ".join(both(cell, name)).strip(" ·") for name in names)) for cell in cold]
    note = (
        "One eager step with its inputs outside the L2 cache and the queue full · what the host takes to issue a step."
    )
    return _join(_table(("kind, n × d", *map(peer, names)), lines), note) if lines else ""


def pair_losses(found: dict) -> str:
    by_cell: dict[tuple, dict[str, str]] = defaultdict(dict)
    for row in rows(found, "pair_losses"):
        if "graph" in row:
            cell = row["loss"], _name((row["kind"], row["n"], row["d"]))
            by_cell[cell][row["contender"]] = f"{_us(row['graph'])} · {_us(row['host'])}"
    names = [*FUSED, "plain"]
    lines = [(*cell, *(times.get(name, "") for name in names)) for cell, times in by_cell.items()]
    note = (
        "The device by graph replay · what the host takes to issue a step. L_mi is the fused loss of the same inputs."
    )
    table = _table(("loss", "kind, n × d", *map(peer, names)), lines)
    return _join(table, note if lines else "", _failures(found, "pair_losses"))


def launches(found: dict) -> str:
    lines = []
    for row in rows(found, "launches"):
        about = (_name((row.get("kind"), row.get("n"), row.get("d"))), peer(row.get("contender", "")))
        if "launches" in row:
            lines.append((*about, f"**{row['launches']} launches**", _us(row["device_us"]), "", "", ""))
        elif row.get("share", 0) >= 0.03 and row.get("contender") in FUSED:
            fractions = (f"{row[key]:.0%}" if key in row else "" for key in ("of_copy", "of_product"))
            name = row["kernel"].split("(")[0][-60:]
            lines.append((*about, f"`{name}` × {row['calls']}", _us(row["us"]), f"{row['share']:.0%}", *fractions))
    table = _table(("kind, n × d", "contender", "kernel", "each", "share", "of copy", "of product"), lines)
    return _join(table, _failures(found, "launches"))


def memory(found: dict) -> str:
    by_n: dict[int, dict[str, str]] = defaultdict(dict)
    for row in rows(found, "memory"):
        if "n" in row:
            text = f"{row['bytes'] / 2**20:,.0f} MiB" if row.get("bytes") else "does not fit"
            by_n[row["n"]][row["contender"]] = text
    names = [*FUSED, "plain"]
    lines = [(f"{n:,}", *(found_.get(name, "") for name in names)) for n, found_ in sorted(by_n.items())]
    return _join(_table(("n (d = 256, float32)", *map(peer, names)), lines), _failures(found, "memory"))


def training(found: dict) -> str:
    lines = []
    for row in rows(found, "training"):
        if "step_ms" in row:
            own = (f"{row['loss_ms']:.3f}", f"{row['share']:.1%}") if "loss_ms" in row else ("", "")
            speed = (f"{row['step_ms']:.2f}", f"{row['images_per_second']:,.0f}", f"{row['spread']:.1%}")
            lines.append((f"{row['setting']}, batch {row['batch']}", peer(row["contender"]), *speed, *own))
        elif "left_out" in row:
            lines.append((row["setting"], f"left out: {row['left_out']}", "", "", "", "", ""))
    header = ("setting", "loss", "ms a step", "images/s", "rounds differ by", "loss alone, ms", "of the step")
    return _join(_table(header, lines), _failures(found, "training"))


def sanitizer(found: dict) -> str:
    lines = [
        (row["tool"], NAMES[row["backend"]], row.get("errors") or row.get("left_out") or "no summary")
        for row in rows(found, "sanitizer")
        if "tool" in row
    ]
    return _join(_table(("tool", "backend", "found"), lines), _failures(found, "sanitizer"))


def counters(found: dict) -> str:
    shown = ("Duration", "Compute (SM) Throughput", "Memory Throughput", "DRAM Throughput", "Achieved Occupancy")
    lines = []
    for row in rows(found, "counters"):
        if "kernel" in row:
            name = f"`{row['kernel'].split('(')[0][-60:]}`"
            stalls = sorted(row.get("stalls", {}).items(), key=lambda pair: -_number(pair[1]))[:2]
            why = ", ".join(f"{stall.replace('_', ' ')} {_number(value):.1f}" for stall, value in stalls)
            figures_ = (row.get(column, "") for column in (*shown, "Registers Per Thread"))
            lines.append((NAMES[row["backend"]], row["cell"], name, *figures_, why))
    header = ("backend", "n × d", "kernel", *shown, "Registers", "warps wait for (instructions each)")
    return _join(_table(header, lines), _failures(found, "counters"))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return 0.0


def _failures(found: dict, *sections: str) -> str:
    failed = [row for section in sections for row in rows(found, section) if row.get("failed")]
    lines = [f"- {_failed_name(row)}: {_cell(row['failed'])}" for row in failed[:40]]
    more = [f"- and {len(failed) - 40} more"] if len(failed) > 40 else []
    return "\n".join(["Failures:\n", *lines, *more]) if failed else ""


def _failed_name(row: dict) -> str:
    return row.get("test") or " · ".join(str(row[key]) for key in ("case", "contender", "job") if row.get(key))


def _order(name: str) -> tuple[int, str]:
    known = (*FUSED, "plain", "compiled")
    return known.index(name) if name in known else len(known), name


def peer(name: str) -> str:
    return NAMES.get(name) or name.replace("compiled", "torch.compile")


def _name(cell: tuple) -> str:
    kind, n, d = cell
    return f"{kind} {n} × {d}"


def _us(microseconds: float | None) -> str:
    if microseconds is None:
        return ""
    return f"{microseconds:.1f} µs" if microseconds < 1e3 else f"{microseconds / 1e3:.2f} ms"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:300]


def _table(header: Iterable[str], lines: list[tuple]) -> str:
    header = list(header)
    if not lines:
        return ""
    text = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(text + ["| " + " | ".join(str(value) for value in line) + " |" for line in lines])


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
