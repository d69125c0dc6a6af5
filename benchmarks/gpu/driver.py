"""Runs the sections of a stage one after another, each as a process, and writes down how each of them ended."""

import datetime
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu import plan, process, results
from benchmarks.gpu.libraries import ROOT, Library, environment

# What a section may take longer than it should before it is killed.
GRACE = 6.0
# How long the sections that need the native library wait for a build; after that Triton's half goes on alone.
BUILD_SECONDS = 75


class Driver:
    """One call of gpu_day.py. `found` are the results so far, those of earlier calls included."""

    def __init__(self, out: Path, scratch: Path, rehearse: bool, found: dict, facts: dict) -> None:
        self.out, self.scratch, self.rehearse, self.found, self.facts = out, scratch, rehearse, found, facts
        self.library = Library(scratch, rehearse, facts.get("capability"))

    def run_stage(self, name: str, seconds: float, only: list[str] | None) -> None:
        """The sections of a stage within so many seconds; `only` those of a list, where there is one."""
        until = time.time() + seconds
        call = {"stage": name, "started": _now(), **self.facts}
        self.found["calls"].append(call)
        self.faults = plan.REHEARSED_FAULTS[name] if self.rehearse else {}
        self.library.withheld = "libraries" in self.faults
        print(f"stage {name}, {seconds:.0f} s", flush=True)
        if not self.library.usable and not self.library.withheld:
            print(f"  {self.library.why}: building", flush=True)
            self.library.build(environment(self.scratch, self.rehearse, []))
        for section in plan.STAGES[name].sections:
            if only and section.name not in only:
                continue
            record = self.run_section(name, section, until)
            results.add(self.found, name, section.name, record)
            call["libraries"], call["seconds"] = self.library.record(), round(time.time() - until + seconds, 1)
            self.write()
            print(f"  {section.name:<12} {record['status']:<8} {record['seconds']:6.1f} s  {record['why']}", flush=True)
            if section.name == "environment":
                self._rebuild_what_does_not_load(record)
        self.library.stop()
        call["libraries"] = self.library.record()
        self.write()

    def run_section(self, stage: str, section: plan.Section, until: float) -> dict:
        seconds = section.rehearsal_seconds if self.rehearse else section.seconds
        if section.needs_libraries:
            self.library.wait(min(until - section.fewest, time.time() + BUILD_SECONDS))
        begin = time.time()
        record = {"status": "skipped", "why": "", "started": _now(), "seconds": 0.0, "attempts": [], "rows": []}
        record |= {"device": self.facts["device"], "commit": self.facts["commit"]}
        if until - begin < section.fewest:
            return record | {"why": f"{max(0, until - begin):.0f} s were left of the {section.fewest} that it needs"}
        deadline = min(begin + seconds, until)
        folder = self.scratch / "sections" / stage / section.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        skip: list[str] = []
        # Once more without the case in which it died, for as long as it dies in another one.
        while len(skip) < plan.MOST_DEATHS:
            attempt = self._attempt(stage, section, folder, deadline, skip)
            record["attempts"].append(attempt)
            culprit = attempt.get("died_in")
            if culprit is None or culprit in skip or deadline - time.time() < section.fewest / 2:
                break
            skip.append(culprit)
        verdict = self._verdict(folder, record["attempts"], backends_lost(skip))
        return record | verdict | {"seconds": round(time.time() - begin, 1)}

    def _attempt(self, stage: str, section: plan.Section, folder: Path, deadline: float, skip: list[str]) -> dict:
        spec = {
            "section": section.name,
            "stage": stage,
            "rehearse": self.rehearse,
            "backends": [name for name in self._backends() if name not in backends_lost(skip)],
            "scratch": str(self.scratch),
            "until": deadline - (0.08 * (deadline - time.time()) if not self.rehearse else 1),
            "skip": skip,
            "seed": time.time_ns(),
            "fault": self.faults.get(section.name),
            "ceilings": results.rows(self.found, "ceilings"),
        }
        path = folder / "spec.json"
        results.write_json(path, spec)
        now = folder / "now"
        now.unlink(missing_ok=True)
        told = environment(self.scratch, self.rehearse, self.library.import_path())
        if self.library.withheld:
            told.pop("ITRD_CUDA_ON_HOST", None)
        attempt = process.run(
            [sys.executable, "-m", "benchmarks.gpu.day", str(path)],
            told,
            folder / f"log-{len(skip)}",
            deadline + (GRACE if not self.rehearse else 0),
            lambda: now.stat().st_mtime if now.exists() else time.time(),
            plan.PATIENCE_WITH_A_HANG if spec["fault"] == "hang" else section.patience,
        )
        noted = now.read_text("utf-8") if attempt.exit_status and now.exists() else ""
        return attempt._asdict() | ({"died_in": noted} if noted else {})

    def _backends(self) -> list[str]:
        return [name for name in plan.FUSED if name != "cuda" or self.library.usable]

    def _verdict(self, folder: Path, attempts: list[dict], lost: list[str]) -> dict:
        """What the section's file and exits amount to: "passed", "partly" (some of it was left out) or "failed"."""
        path = folder / "section.json"
        content = {"rows": [], "left_out": []} | (json.loads(path.read_text("utf-8")) if path.exists() else {})
        rows, left_out = content["rows"], content["left_out"]
        why = [_death(attempt) for attempt in attempts if attempt["exit_status"]]
        why += [f"{name} was given up after {plan.DEATHS_OF_A_BACKEND} deaths" for name in lost]
        failed = [row for row in rows if row.get("failed")]
        if failed:
            why.append(f"{len(failed)} of {len(rows)} rows failed, the first in {failed[0]['case']}")
        status = "failed" if why else "passed"
        missing = dict.fromkeys(row["left_out"] for row in rows if row.get("left_out"))
        if left_out:
            missing[f"no time for {len(left_out)} cases"] = None
        if missing:
            why += missing
            status = "partly" if status == "passed" else status
        rows += [{"case": a["died_in"], "failed": _death(a)} for a in attempts if a.get("died_in")]
        return {"status": status, "why": "; ".join(why), "rows": rows, "left_out": left_out}

    def _rebuild_what_does_not_load(self, record: dict) -> None:
        """A library of the right sources may still be for another torch, Python or system."""
        reasons = [row["load_error"] for row in record["rows"] if row.get("load_error")]
        if reasons and self.library.state == "found" and not self.library.withheld:
            self.library.build(environment(self.scratch, self.rehearse, []), reasons[0])

    def write(self) -> None:
        results.write_json(self.out / results.NAME, results.without_places(self.found, self.places))

    @property
    def places(self) -> dict[str, str]:
        """Folders of this machine, the innermost first, by what the results call them."""
        return {str(self.out): "OUT", str(self.scratch): "SCRATCH", str(ROOT): ".", sys.prefix: "PYTHON"}


def commit(given: str | None) -> str | None:
    """The commit that was given, else what git says of the checkout; None where there is no git."""
    if given:
        return given
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + (" with changes" if changed else "")


def backends_lost(deaths: list[str]) -> list[str]:
    """Backends that so many cases died in that the other one should have the time that is left."""
    of = lambda name: sum(bool(re.search(rf"\b{name}\b", death)) for death in deaths)  # noqa: E731
    return [name for name in plan.FUSED if of(name) >= plan.DEATHS_OF_A_BACKEND]


def _death(attempt: dict) -> str:
    how = "took too long" if attempt["timed_out"] else f"ended with exit status {attempt['exit_status']}"
    said = attempt["tail"][-1] if attempt["tail"] and not attempt["timed_out"] else ""
    return how + (f" in {attempt['died_in']}" if attempt.get("died_in") else "") + (f": {said[:200]}" if said else "")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
