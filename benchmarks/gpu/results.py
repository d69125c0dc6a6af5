"""results.json: what every call of gpu_day.py found, written whole or not at all, and merged over calls.

{"format", "rehearsal", "calls": [a call of one stage: when, of which commit, on what, its libraries],
 "sections": {stage: {section: {"status", "why", "started", "seconds", "attempts", "rows", ...}}}}
"""

import json
import os
from pathlib import Path
from typing import Any

FORMAT = 1
NAME = "results.json"


class Unusable(Exception):
    """A message of one line, for the person who called."""


def empty(rehearsal: bool) -> dict:
    return {"format": FORMAT, "rehearsal": rehearsal, "calls": [], "sections": {}}


def write_json(path: Path, content: object) -> None:
    """Atomically: whoever reads finds the old content or the new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    # One line a row: readable as a diff, and not a number a line.
    scratch.write_text(_text(content) + "\n", "utf-8")
    os.replace(scratch, path)


def load(folder: Path) -> dict:
    """Raises: Unusable, where there are no results or some of another kind."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Unusable(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Unusable(f"{path} holds no results of gpu_day.py (format {FORMAT})")
    return content


def merge(several: list[dict]) -> dict:
    """Of one section found twice the later one counts, but never one that was skipped over one that ran."""
    if len({content["rehearsal"] for content in several}) > 1:
        raise Unusable("a rehearsal and a day on a GPU cannot be merged: give them folders of their own")
    devices = dict.fromkeys(call["device"] for content in several for call in content["calls"])
    if len(devices) > 1:
        raise Unusable(f"results of {' and '.join(devices)} cannot be merged: give each device a folder of its own")
    merged = empty(several[0]["rehearsal"])
    for content in several:
        merged["calls"] += [call for call in content["calls"] if call not in merged["calls"]]
        for stage, sections in content["sections"].items():
            for name, record in sections.items():
                add(merged, stage, name, record)
    merged["calls"].sort(key=lambda call: call["started"])
    return merged


def without_places(content: Any, places: dict[str, str]) -> Any:
    """The content with other names for folders, which are of one machine: {folder: its name}."""
    if isinstance(content, dict):
        return {key: without_places(value, places) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [without_places(value, places) for value in content]
    if isinstance(content, str):
        for folder, name in places.items():
            content = content.replace(folder, name)
    return content


def add(found: dict, stage: str, name: str, record: dict) -> None:
    known = found["sections"].setdefault(stage, {}).get(name)
    if known is None or _rank(record) >= _rank(known):
        found["sections"][stage][name] = record


def rows(results: dict, name: str, stage: str | None = None) -> list[dict]:
    """The rows of a section, of all stages that have it."""
    stages = [stage] if stage else list(results["sections"])
    return [row for s in stages for row in results["sections"].get(s, {}).get(name, {}).get("rows", [])]


def _rank(record: dict) -> tuple[bool, str]:
    return record["status"] != "skipped", record["started"]


def _text(content: object, depth: int = 0) -> str:
    """JSON whose containers break into lines for as long as they are longer than one."""
    flat = json.dumps(content, ensure_ascii=False)
    if len(flat) + depth <= 160 or not isinstance(content, dict | list):
        return flat
    pad = " " * (depth + 1)
    if isinstance(content, dict):
        parts = [f"{json.dumps(key, ensure_ascii=False)}: {_text(value, depth + 1)}" for key, value in content.items()]
        return "{\n" + ",\n".join(pad + part for part in parts) + "\n" + " " * depth + "}"
    return "[\n" + ",\n".join(pad + _text(value, depth + 1) for value in content) + "\n" + " " * depth + "]"
