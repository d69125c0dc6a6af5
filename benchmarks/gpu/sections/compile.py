"""Compiles what the stage's sections run, by twelve processes at once, into caches that these sections share.

A row is a kernel with the seconds that Triton took, or a cell of torch.compile. Whether it is the compiler or a kernel
that fails shows here, before anything is measured.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu import process
from benchmarks.gpu.compiling import jobs
from benchmarks.gpu.day import Case, Day
from benchmarks.gpu.results import write_json

WORKERS = 12


def cases(day: Day) -> Iterator[Case]:
    yield Case("all variants", lambda: compile_all(day))


def compile_all(day: Day) -> list[dict]:
    """Workers claim jobs from one list; one that dies is started again, and its job is given up."""
    folder = day.folder / "jobs"
    folder.mkdir(exist_ok=True)
    names = [job.name for job in jobs(day)]
    spec = folder / "spec.json"
    write_json(spec, day.spec | {"claims": str(folder)})
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    workers = {}
    for number in range(min(2 if day.rehearse else WORKERS, len(names))):
        workers[number] = _start(spec, folder, number, environment)
    lost = []
    while workers and day.left > 0:
        time.sleep(0.1)
        (day.folder / "now").write_text(day.case)
        for number, child in list(workers.items()):
            if child.poll() is None:
                continue
            del workers[number]
            claimed = folder / f"claimed-{number}"
            if child.returncode and claimed.exists():
                lost.append(_lost(claimed.read_text(), child.returncode, folder / f"log-{number}"))
                claimed.unlink()
                workers[number] = _start(spec, folder, number, environment)
            elif child.returncode:
                lost.append(_lost(f"worker {number}", child.returncode, folder / f"log-{number}"))
    for child in workers.values():
        child.kill()
    rows = [json.loads(line) for path in sorted(folder.glob("rows-*")) for line in path.read_text().splitlines()]
    finished = {row["job"] for row in rows + lost}
    left = [name for name in names if name not in finished]
    if left:
        lost.append({"job": "left out", "failed": f"no time for {len(left)}: {', '.join(left[:8])}"})
    return rows + lost


def _start(spec: Path, folder: Path, number: int, environment: dict[str, str]):
    with (folder / f"log-{number}").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.compiling", str(spec), str(number)], env=environment, stdout=log,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip


def _lost(job: str, status: int, log: Path) -> dict:
    return {"job": job, "failed": f"its process ended with exit status {status}", "tail": process.last_lines(log, 15)}
