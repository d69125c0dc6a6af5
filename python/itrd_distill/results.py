"""results.json of a comparison: its runs, and what they were made with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from itrd_distill.report import versions
from itrd_distill.training.files import write_atomically
from itrd_distill.training.result import RunResult


def run_folder(out: Path, method: str | None, seed: int) -> Path:
    """Where a comparison, or its probes, leave the run of one method and seed."""
    return out / str(method) / f"seed{seed}"


def write_results(path: Path, dataset: str, teacher: dict[str, Any], student: str, runs: list[RunResult], command: str):
    results = {
        "command": command,
        "dataset": dataset,
        "teacher": teacher,
        "student": {"model": student, "parameters": runs[0].parameters},
        "runs": [asdict(run) for run in runs],
        "versions": versions(),
    }
    write_atomically(path, lambda partial: partial.write_text(json.dumps(results, indent=1), "utf-8"))
