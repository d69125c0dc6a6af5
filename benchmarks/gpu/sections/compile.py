"""Compiles what the stage's sections run, by twelve processes at once, into caches that these sections share.

A row is a kernel with the seconds that Triton took, or a cell of torch.compile. Whether it is the compiler or a kernel
that fails shows here, before anything is measured.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu import compiling, process
from benchmarks.gpu.day import Case, Day
from benchmarks.gpu.results import write_json

WORKERS = 12


def cases(day: Day) -> Iterator[Case]:
    yield Case("all variants", lambda: compile_all(day))


def compile_all(day: Day) -> list[dict]:
    folder = day.folder / "jobs"
    folder.mkdir(exist_ok=True)
    lost = _work_off(day, folder, tuned=False, workers=2 if day.rehearse else WORKERS)
    tuned = compiling.tuned_jobs(day)
    if tuned:
        lost += _work_off(day, folder, tuned=True, workers=1)
    rows = [row for path in sorted(folder.glob("rows-*")) for row in _rows(path)]
    finished = {row["job"] for row in rows + lost}
    left = [job.name for job in compiling.jobs(day) + tuned if job.name not in finished]
    if left:
        lost.append({"job": "left out", "left_out": f"no time to compile {len(left)}: {', '.join(left[:8])}"})
    return rows + lost


def _work_off(day: Day, folder: Path, *, tuned: bool, workers: int) -> list[dict]:
    """Workers claim jobs from one list; one that dies is started again, and its job is given up: these are returned."""
    spec = folder / f"spec-{tuned}.json"
    write_json(spec, day.spec | {"claims": str(folder), "tuned": tuned})
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    # Where many compile at once, each has few helpers.
    environment["TORCHINDUCTOR_COMPILE_THREADS"] = str(max(2, WORKERS // workers))
    running, lost = {}, []
    for number in range(workers):
        running[number] = _start(spec, folder, number, environment)
    while running and day.left > 0:
        time.sleep(0.1)
        (day.folder / "now").write_text(day.case, "utf-8")
        for number, child in list(running.items()):
            if child.poll() is None:
                continue
            del running[number]
            claimed = folder / f"claimed-{number}"
            if child.returncode:
                job = claimed.read_text("utf-8") if claimed.exists() else f"worker {number}"
                lost.append(_lost(job, child.returncode, folder / f"log-{number}"))
                if claimed.exists():
                    claimed.unlink()
                    running[number] = _start(spec, folder, number, environment)
    for child in running.values():
        child.kill()
    return lost


def _rows(path: Path) -> Iterator[dict]:
    """Those that were written whole: a worker may have been killed while it wrote the last one."""
    for line in path.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _start(spec: Path, folder: Path, number: int, environment: dict[str, str]) -> subprocess.Popen:
    with (folder / f"log-{number}").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.compiling", str(spec), str(number)], env=environment, stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _lost(job: str, status: int, log: Path) -> dict:
    return {"job": job, "failed": f"its process ended with exit status {status}", "tail": process.last_lines(log, 15)}
