"""compute-sanitizer's four tools over steps of both backends, without PyTorch's pool of memory, which hides overruns.

A row is a tool on a backend: how many errors it counted, and what it said of the first.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.gpu.day import Case, Day, Wrong

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
# One process for all of them: PyTorch starts slowly under these tools.
PROBLEMS = tuple(
    f"{kind}:{shape}" for kind in ("bfloat16", "float32", "tf32", "float64") for shape in ("70×37", "130×64")
)
# racecheck looks into our kernels alone, since cuBLAS' make it slow; initcheck with a filter would report memory that
# kernels outside it have written.
OURS = "regex=itrd|statistics_kernel|potential_kernel|product_kernel|gradient_kernel"


def cases(day: Day) -> Iterator[Case]:
    if day.rehearse:
        _write_stub(day)
    for tool in TOOLS:
        for backend in day.backends:
            yield Case(f"{tool} {backend}", lambda tool=tool, backend=backend: watch(day, tool, backend))


def command(tool: str) -> list[str]:
    filtered = ["--kernel-name", OURS] if tool == "racecheck" else []
    return ["compute-sanitizer", "--tool", tool, *filtered, "--error-exitcode", "9", "--print-limit", "20"]


def watch(day: Day, tool: str, backend: str) -> dict:
    row = {"tool": tool, "backend": backend}
    path = _path(day)
    if shutil.which("compute-sanitizer", path=path) is None:
        return row | {"left_out": "no compute-sanitizer on the PATH"}
    problems = ("float32:6×5",) if day.rehearse else PROBLEMS
    step = [sys.executable, "-m", "benchmarks.gpu.sections.one_step", day.device, backend, *problems]
    told = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PATH": path}
    done = subprocess.run([*command(tool), *step], capture_output=True, text=True, env=told, timeout=max(10, day.left))
    text = done.stdout + done.stderr
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", text)
    row |= {"errors": summary[1] if summary else None, "exit_status": done.returncode}
    if done.returncode or summary is None or "steps done" not in text:
        said = [line for line in text.splitlines() if line.startswith("=========")][:20] or text.splitlines()[-20:]
        raise Wrong(f"exit status {done.returncode}, {row['errors'] or 'no summary'}", **row, tail=said)
    return row


def _path(day: Day) -> str:
    stub = [str(day.folder / "stub")] if day.rehearse else []
    return os.pathsep.join([*stub, os.environ.get("PATH", "")])


def _write_stub(day: Day) -> None:
    """In a rehearsal: takes the tool's options, runs the program, and reports no errors."""
    stub = day.folder / "stub"
    stub.mkdir(exist_ok=True)
    script = stub / "compute-sanitizer"
    script.write_text(
        f'#!/bin/sh\nwhile [ "$1" != "{sys.executable}" ]; do shift; done\n"$@" || exit 9\n'
        'echo "========= ERROR SUMMARY: 0 errors"\n'
    )
    script.chmod(0o755)
