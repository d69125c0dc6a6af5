"""compute-sanitizer's four tools over steps of both backends, without PyTorch's pool of memory, which hides overruns.

A row is a tool on a backend: how many errors it counted, and what it said of the first. Each backend runs once without
a tool before: what fails there is not the tool's finding, and Triton's kernels are compiled then.
"""

import re
from collections.abc import Iterator

from benchmarks.gpu import tools
from benchmarks.gpu.day import Case, Day, Wrong

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# One process for all of them: PyTorch starts slowly under these tools. An odd width of z_s takes the unaligned paths.
PROBLEMS = [
    f"{kind}:{shape}:raw" for kind in ("bfloat16", "float32", "tf32", "float64") for shape in ("70×37", "130×64")
]
# racecheck looks into our kernels alone, since cuBLAS' make it slow; initcheck with a filter would report memory that
# kernels outside it have written.
OURS = "regex=itrd|statistics|gram_tiles|gram_gradients|gradients"


def cases(day: Day) -> Iterator[Case]:
    if day.rehearse:
        tools.write_stand_in(day, "compute-sanitizer", "========= ERROR SUMMARY: 0 errors")
    for tool in ("no tool", *TOOLS):
        for backend in day.backends:
            yield Case(f"{tool} {backend}", lambda tool=tool, backend=backend: watch(day, tool, backend))


def options(tool: str) -> list[str]:
    filtered = ["--kernel-name", OURS] if tool == "racecheck" else []
    # Not into the assemblers that Triton starts.
    mine = ["--target-processes", "application-only"]
    return ["--tool", tool, *mine, *filtered, "--error-exitcode", "9", "--print-limit", "20"]


def watch(day: Day, tool: str, backend: str) -> dict:
    row = {"tool": tool, "backend": backend}
    problems = ["float32:6×5:raw"] if day.rehearse else PROBLEMS
    if tool == "no tool":
        status, text = tools.watch(day, [], backend, problems)
        if status:
            raise Wrong(f"exit status {status}", **row, tail=text.splitlines()[-20:])
        return row | {"errors": "it runs"}
    program = tools.find(day, "compute-sanitizer")
    if program is None:
        return row | {"left_out": "there is no compute-sanitizer"}
    status, text = tools.watch(day, [program, *options(tool)], backend, problems, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", text)
    row |= {"errors": summary[1] if summary else None, "exit_status": status}
    if status or summary is None or "steps done" not in text:
        said = [line for line in text.splitlines() if line.startswith("=========")][:20] or text.splitlines()[-20:]
        raise Wrong(f"exit status {status}, {row['errors'] or 'no summary'}", **row, tail=said)
    return row
