"""The records of a run as text tables and as JSON.

`python -m benchmarks.report` judges the committed runs by today's targets, and writes the table of ../README.md.
"""

import datetime
import json
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

import itrd_kernels
from benchmarks import machine
from benchmarks.targets import copy_floor, judge, memory_allowed, null_seconds, over_fma_floor, ratio, ratio_at_floor

# The machines of README.md's table, and their folders in results/.
COMMITTED = {"EPYC": "epyc-avx512", "Xeon": "xeon-amx"}


def write_json(records: dict, facts: dict, directory: Path) -> Path:
    """Everything that was measured, and enough to repeat it, in directory/speed.json."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "speed.json"
    content = {
        **facts,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "versions": {
            "itrd_kernels": itrd_kernels.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "targets": [verdict._asdict() for verdict in judge(records)],
        **records,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return path


def machine_facts() -> dict:
    return {
        "processor": machine.processor_name(),
        "system": platform.platform(),
        "instruction_set": os.environ.get("ITRD_CPU_ISA")
        or next(
            (isa for isa, flag in (("amx", "amx_int8"), ("avx512_bf16", "avx512_bf16")) if machine.has(flag)),
            torch.backends.cpu.get_cpu_capability(),
        ),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "last_level_cache_bytes": machine.last_level_cache(),
    }


def tables(records: dict) -> Iterator[str]:
    """Lines: the machine, the ratios over the grid, the other measurements, the targets."""
    facts, can = machine_facts(), records["capabilities"]
    yield (
        f"{facts['processor']}, {facts['threads']} threads, last-level cache "
        f"{facts['last_level_cache_bytes'] / 2**20:.0f} MiB; torch {torch.__version__}"
    )
    yield (
        f"FMA rate {can['fma_rate_one_thread'] / 1e9:.0f} GFLOP/s on one thread, "
        f"{can['fma_rate_all_threads'] / 1e9:.0f} on all; copy bandwidth {can['copy_bandwidth'] / 1e9:.1f} GB/s"
    )
    for title, lines in (
        ("forward + backward, float32, medians", list(_grid(records))),
        ("other measurements", list(_others(records))),
        ("targets", list(_targets(records))),
    ):
        if lines:
            yield from ("", title, *lines)


def _grid(records: dict) -> Iterator[str]:
    if not records.get("grid"):
        return
    peers = ("plain", "compiled", "onednn")
    rows = [("n × d", "fused", *peers, *(f"{peer} ÷ fused (at the floor)" for peer in peers), "fused ÷ FMA floor")]
    for r in records["grid"]:
        seconds, null = r["seconds"], null_seconds(records, r)
        rows.append(
            (
                f"{r['n']} × {r['d']}",
                *(_time(seconds.get(name)) for name in ("fused", *peers)),
                *(f"{ratio(peer)(r):.2f} ({ratio_at_floor(peer, r, null):.1f})" for peer in peers),
                f"{over_fma_floor(r):.2f}",
            )
        )
    yield from _columns(rows)


def readme_table(runs: dict[str, dict]) -> Iterator[str]:
    """The grid of several machines' runs, {machine: records}, as a table in Markdown."""
    peers = ("plain", "compiled")
    columns = ("fused", *(f"{peer} ÷ fused (at the floor)" for peer in peers), "fused ÷ floor")
    yield "| n × d | " + " | ".join(f"{machine}: {name}" for machine in runs for name in columns) + " |"
    yield "|" + "---|" * (1 + len(runs) * len(columns))
    for rows in zip(*(records["grid"] for records in runs.values()), strict=True):
        cells = [f"{rows[0]['n']} × {rows[0]['d']}"]
        for records, r in zip(runs.values(), rows, strict=True):
            null = null_seconds(records, r)
            cells.append(_time(r["seconds"]["fused"]))
            cells += [f"{ratio(peer)(r):.1f} ({ratio_at_floor(peer, r, null):.1f})" for peer in peers]
            # With few rows the time is not that of the operations.
            cells.append(f"{over_fma_floor(r):.2f}" if r["n"] >= 1024 else "")
        yield "| " + " | ".join(cells) + " |"


def _others(records: dict) -> Iterator[str]:
    rows = [("what", "n × d", "first", "second", "first ÷ second")]
    for section, first, second in (
        ("keops", "KeOps", "fused"),
        ("keops", "plain", "fused"),
        ("threads", "one thread", "two threads"),
        ("bfloat16", "float32", "bfloat16"),
        ("forward_only", "forward without gradients", "forward + backward"),
        ("overhead", "fused", "null operators"),
        ("doubling", "n", "half of n"),
    ):
        for r in records.get(section, []):
            seconds = [r["seconds"][_KEYS.get(name, name)] for name in (first, second)]
            rows.append((f"{first} ÷ {second}", *_row(r, *map(_time, seconds), seconds[0] / seconds[1])))
    for r in records.get("pair_losses", []):
        loss, plain, fused, gram = r["loss"], *(r["seconds"][name] for name in ("plain", "fused", "mutual_information"))
        rows.append((f"{loss}: plain ÷ fused", *_row(r, _time(plain), _time(fused), plain / fused)))
        rows.append((f"{loss} ÷ L_mi", *_row(r, _time(fused), _time(gram), fused / gram)))
    for r in records.get("bandwidth", []):
        fused, floor = r["seconds"]["fused"], copy_floor(r)
        rows.append(("correlation ÷ copying its 20nd bytes", *_row(r, _time(fused), _time(floor), fused / floor)))
    for r in records.get("memory", []):
        peak, allowed = r["bytes"], memory_allowed(r)
        rows.append((f"memory, {r['name']} ÷ target", *_row(r, _mebibytes(peak), _mebibytes(allowed), peak / allowed)))
    if len(rows) > 1:
        yield from _columns(rows)


def _targets(records: dict) -> Iterator[str]:
    rows = [("what", "target", "measured", "worst at", "met")]
    for verdict in judge(records):
        measured = "not measured" if verdict.measured is None else f"{verdict.measured:.2f}"
        met = {True: "yes", False: "NO", None: ""}[verdict.met]
        rows.append((verdict.what, verdict.target, measured, verdict.where, met))
    yield from _columns(rows)


# The names of the table for the keys of a record.
_KEYS = {
    "KeOps": "keops",
    "two threads": "fused",
    "bfloat16": "fused",
    "forward without gradients": "fused",
    "null operators": "null",
    "n": "fused",
    "half of n": "half",
}


def _row(record: dict, first: str, second: str, quotient: float) -> tuple[str, ...]:
    return f"{record['n']} × {record['d']}", first, second, f"{quotient:.2f}"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def _columns(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The first column to the left, the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        yield "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])


def _write_readme() -> None:
    """The table of README.md, and the verdicts in the committed runs, from what those have measured."""
    folder, runs = Path(__file__).parent / "results", {}
    for machine_name, name in COMMITTED.items():
        path = folder / name / "speed.json"
        runs[machine_name] = records = json.loads(path.read_text("utf-8"))
        records["targets"] = [verdict._asdict() for verdict in judge(records)]
        path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", "utf-8")
    readme = Path(__file__).parents[1] / "README.md"
    text, begin, end = readme.read_text("utf-8"), "<!-- speed: begin -->", "<!-- speed: end -->"
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    readme.write_text("\n".join([before, *readme_table(runs), after]), "utf-8")


if __name__ == "__main__":
    _write_readme()
