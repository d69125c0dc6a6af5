"""tests/test_gpu.py, in parallel where pytest-xdist is there; a row is a test that did not pass.

Its tests with compute-sanitizer are marked slow, and left to the section `sanitizer`.
"""

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.day import Case, Day, Wrong
from benchmarks.gpu.libraries import ROOT

PROCESSES = 12
TESTS = ROOT / "tests/test_gpu.py"


def cases(day: Day) -> Iterator[Case]:
    yield Case("pytest", lambda: run(day))


def run(day: Day) -> list[dict]:
    report = day.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu and not slow", "-p", "no:cacheprovider"]
    # From another folder than the checkout, whose package would come before a library that was built for the day.
    command += [f"--junitxml={report}", f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"), str(TESTS)]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(2 if day.rehearse else PROCESSES)]
    if day.rehearse:
        command += ["-k", "repeat or module"]
    told = os.environ | ({"ITRD_GPU_TESTS_ON_CPU": "1"} if day.rehearse else {})
    try:
        done = subprocess.run(
            command, cwd=day.folder, env=told, capture_output=True, text=True, timeout=max(5, day.left)
        )
    except subprocess.TimeoutExpired as late:
        text = (late.stdout or b"").decode(errors="replace")
        raise Wrong(f"not done after {late.timeout:.0f} s", tail=text.splitlines()[-20:]) from late
    if not report.exists():
        said = (done.stdout + done.stderr).splitlines()[-20:]
        raise Wrong(f"pytest ended with exit status {done.returncode}", tail=said)
    rows = outcomes(report)
    summary = {"summary": (done.stdout.splitlines() or [""])[-1], "exit_status": done.returncode}
    if done.returncode and not any(row.get("failed") for row in rows):
        summary["failed"] = f"pytest ended with exit status {done.returncode}"
    return [*rows, summary]


def outcomes(report: Path) -> list[dict]:
    """What failed or was skipped, each with its message."""
    rows = []
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        for outcome in case:
            message = (outcome.get("message") or "")[:400]
            if outcome.tag in ("failure", "error"):
                rows.append({"test": case.get("name"), "failed": message})
            elif outcome.tag == "skipped":
                rows.append({"test": case.get("name"), "skipped": message})
    return rows
