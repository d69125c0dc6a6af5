"""tests/test_gpu.py and test_gpu_pairs.py, in parallel where pytest-xdist is there; a row is a test that did not pass.

Its tests with compute-sanitizer are marked slow, and left to the section `sanitizer`.
"""

import importlib.util
import os
import re
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.day import Case, Day, Wrong
from benchmarks.gpu.libraries import ROOT

PROCESSES = 12
TESTS = [str(ROOT / "tests" / name) for name in ("test_gpu.py", "test_gpu_pairs.py")]


def cases(day: Day) -> Iterator[Case]:
    yield Case("pytest", lambda: run(day))


def run(day: Day) -> list[dict]:
    report, log = day.folder / "tests.xml", day.folder / "pytest.log"
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu and not slow", "-p", "no:cacheprovider"]
    # From another folder than the checkout, whose package would come before a library that was built for the day.
    command += [f"--junitxml={report}", f"--rootdir={ROOT}", "-c", str(ROOT / "pyproject.toml"), *TESTS]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(2 if day.rehearse else PROCESSES)]
    if day.rehearse:
        command += ["-k", "repeat or module"]
    told = os.environ | ({"ITRD_GPU_TESTS_ON_CPU": "1"} if day.rehearse else {})
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command, cwd=day.folder, env=told, stdout=output, stderr=subprocess.STDOUT, timeout=max(5, day.left)
            )
        except subprocess.TimeoutExpired:
            return so_far(log.read_text("utf-8", "replace"))
    lines = log.read_text("utf-8", "replace").splitlines()
    if not report.exists():
        raise Wrong(f"pytest ended with exit status {done.returncode}", tail=lines[-20:])
    rows = outcomes(report)
    summary = {"summary": lines[-1].strip("= ") if lines else "", "exit_status": done.returncode}
    if done.returncode and not any(row.get("failed") for row in rows):
        summary["failed"] = f"pytest ended with exit status {done.returncode}"
    return [*rows, summary]


def so_far(text: str) -> list[dict]:
    """What the lines of `pytest -v` say, where there was no time for its report."""
    found = re.findall(
        r"(PASSED|FAILED|ERROR)\s+(\S*test_gpu\w*\.py\S+)|(\S*test_gpu\w*\.py\S+)\s+(PASSED|FAILED|ERROR)", text
    )
    ended = [(first or second, outcome_1 or outcome_2) for outcome_1, first, second, outcome_2 in found]
    rows = [{"test": name, "failed": "see the log"} for name, outcome in ended if outcome != "PASSED"]
    passed = sum(outcome == "PASSED" for _, outcome in ended)
    summary = f"{passed} passed, {len(rows)} failed when the time was over"
    return [*rows, {"summary": summary, "left_out": "no time for all tests"}]


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
