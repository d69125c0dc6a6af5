"""Nsight Compute's counters for the kernels of both backends: speed of light, occupancy, and why warps wait.

A row is a kernel of a backend in a cell, with the student's gradient wanted, as in the section `times`. The clocks are
left alone.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator

from benchmarks.gpu import tools
from benchmarks.gpu.day import Case, Day, Wrong

# The most telling first.
CELLS = ("4096×512", "4096×2048", "64×512", "16384×512")
SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "WarpStateStats", "MemoryWorkloadAnalysis")
STALLS = r"smsp__average_warps_issue_stalled_(\w+?)_per_issue_active"
OURS = "regex:statistics|gram_tiles|gradients|correlation"
# Where W comes in panels a step has dozens of launches; each is replayed for every counter.
LAUNCHES = 12
# What is kept of the hundred lines that ncu prints for a kernel.
KEPT = (
    "Duration", "Compute (SM) Throughput", "Memory Throughput", "DRAM Throughput", "L2 Cache Throughput",
    "L1/TEX Cache Throughput", "SM Frequency", "Registers Per Thread", "Theoretical Occupancy", "Achieved Occupancy",
    "Block Limit Registers", "Block Limit Shared Mem", "Warp Cycles Per Issued Instruction", "L2 Hit Rate", "Grid Size",
    "Block Size", "Waves Per SM",
)  # fmt: skip
# What it prints for one kernel, in a rehearsal.
STAND_IN = """"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"
"0","gram_tiles","GPU Speed Of Light Throughput","Duration","us","12.5"
"0","gram_tiles","Occupancy","Achieved Occupancy","%","11.9"
"""


def cases(day: Day) -> Iterator[Case]:
    if day.rehearse:
        tools.write_stand_in(day, "ncu", STAND_IN)
    for cell in CELLS[:1] if day.rehearse else CELLS:
        for backend in day.backends:
            yield Case(f"{backend} {cell}", lambda backend=backend, cell=cell: count(day, backend, cell))


def options() -> list[str]:
    found = ["--csv", "--page", "details", "--clock-control", "none", "--target-processes", "application-only"]
    found += ["--kernel-name", OURS, "--launch-count", str(LAUNCHES)]
    found += [part for section in SECTIONS for part in ("--section", section)]
    return [*found, "--metrics", "regex:smsp__average_warps_issue_stalled_.*_per_issue_active"]


def count(day: Day, backend: str, cell: str) -> list[dict]:
    about = {"backend": backend, "kind": "bfloat16", "cell": cell}
    program = tools.find(day, "ncu")
    if program is None:
        return [about | {"left_out": "there is no ncu"}]
    problem = "bfloat16:" + ("6×5" if day.rehearse else cell) + ":student"
    status, text = tools.watch(day, [program, *options()], backend, [problem])
    rows = kernels(text)
    if status or not rows:
        tail = text.splitlines()[-20:]
        raise Wrong(f"ncu ended with exit status {status} and {len(rows)} kernels", **about, tail=tail)
    return [about | row for row in rows]


def kernels(text: str) -> list[dict]:
    """Rows of ncu's CSV, which has one line per kernel and metric behind what the program itself printed."""
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    table = [line for line in lines[begin:] if line.startswith('"')]
    found: dict[str, dict] = defaultdict(dict)
    for line in csv.DictReader(io.StringIO("\n".join(table))):
        row, name, value = found[line["ID"]], line["Metric Name"], line["Metric Value"]
        row.setdefault("kernel", line["Kernel Name"][:120])
        stall = re.match(STALLS, name)
        if stall:
            row.setdefault("stalls", {})[stall[1]] = value
        elif name in KEPT:
            # "Memory Throughput" comes twice: first as a share of the speed of light, which is meant.
            row.setdefault(name, f"{value} {line['Metric Unit']}".strip())
    return list(found.values())
