"""results.json of a comparison: its runs, and what they were made with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from itrd_distill.report import versions
from itrd_distill.training.files import write_atomically
from itrd_distill.training.run import RunResult


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


def known_accuracy(checkpoint: str) -> float | None:
    """What this tool noted beside the teacher's weights; other people's checkpoints say nothing in this form."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception:
        # Of a form that `load_state` knows how to read.
        return None
    accuracy = content.get("test_accuracy") if isinstance(content, dict) else None
    return accuracy if isinstance(accuracy, float) else None
