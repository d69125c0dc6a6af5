"""Nsight Compute's counters for the kernels of both backends: speed of light, occupancy, and why warps wait.

A row is a kernel of a backend in a cell. The clocks are left alone.
"""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

from benchmarks.gpu.day import Case, Day, Wrong

CELLS = ("64×512", "4096×512", "4096×2048", "16384×512")
SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "WarpStateStats", "MemoryWorkloadAnalysis")
OURS = (
    "regex:statistics|gram_tiles|gram_gradients|gradients|correlation|potential_kernel|product_kernel|gradient_kernel"
)
# Where W comes in panels a step has dozens of launches; each is replayed for every counter.
LAUNCHES = 12
# What is kept of the hundred lines that ncu prints for a kernel.
KEPT = (
    "Duration", "Compute (SM) Throughput", "Memory Throughput", "DRAM Throughput", "L2 Cache Throughput",
    "L1/TEX Cache Throughput", "SM Frequency", "Registers Per Thread", "Theoretical Occupancy", "Achieved Occupancy",
    "Block Limit Registers", "Block Limit Shared Mem", "Warp Cycles Per Issued Instruction", "L2 Hit Rate", "Grid Size",
    "Block Size", "Waves Per SM",
)  # fmt: skip


def cases(day: Day) -> Iterator[Case]:
    if day.rehearse:
        _write_stub(day)
    for cell in CELLS[:1] if day.rehearse else CELLS:
        for backend in day.backends:
            yield Case(f"{backend} {cell}", lambda backend=backend, cell=cell: count(day, backend, cell))


def count(day: Day, backend: str, cell: str) -> list[dict]:
    path = os.pathsep.join([*([str(day.folder / "stub")] if day.rehearse else []), os.environ.get("PATH", "")])
    about = {"backend": backend, "kind": "bfloat16", "cell": cell}
    if shutil.which("ncu", path=path) is None:
        return [about | {"left_out": "no ncu on the PATH"}]
    command = ["ncu", "--csv", "--page", "details", "--clock-control", "none", "--kernel-name", OURS]
    command += ["--launch-count", str(LAUNCHES)]
    command += [part for section in SECTIONS for part in ("--section", section)]
    problem = "bfloat16:" + ("6×5" if day.rehearse else cell)
    step = [sys.executable, "-m", "benchmarks.gpu.sections.one_step", day.device, backend, problem]
    done = subprocess.run(
        [*command, *step], capture_output=True, text=True, env=os.environ | {"PATH": path}, timeout=max(10, day.left)
    )
    rows = kernels(done.stdout)
    if done.returncode or not rows:
        tail = (done.stdout + done.stderr).splitlines()[-20:]
        raise Wrong(f"ncu ended with exit status {done.returncode} and {len(rows)} kernels", **about, tail=tail)
    return [about | row for row in rows]


def kernels(text: str) -> list[dict]:
    """Rows of ncu's CSV, which has one line per kernel and metric behind what the program itself printed."""
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found: dict[str, dict] = defaultdict(dict)
    for line in csv.DictReader(io.StringIO("\n".join(lines[begin:]))):
        row = found[line["ID"]]
        row.setdefault("kernel", line["Kernel Name"][:120])
        if line["Metric Name"] in KEPT:
            unit = line["Metric Unit"]
            row[line["Metric Name"]] = f"{line['Metric Value']} {unit}".strip()
    return list(found.values())


def _write_stub(day: Day) -> None:
    """In a rehearsal: takes ncu's options, runs the program, and prints one kernel in ncu's form."""
    stub = day.folder / "stub"
    stub.mkdir(exist_ok=True)
    script = stub / "ncu"
    table = (
        '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n'
        '"0","gram_tiles","GPU Speed Of Light Throughput","Duration","us","12.5"\n'
        '"0","gram_tiles","Occupancy","Achieved Occupancy","%","11.9"\n'
    )
    script.write_text(
        f'#!/bin/sh\nwhile [ "$1" != "{sys.executable}" ]; do shift; done\n"$@" || exit 1\ncat <<END\n{table}END\n'
    )
    script.chmod(0o755)
