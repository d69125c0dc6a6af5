"""Inside a section's process: what it is told, and the loop over its cases.

`python -m benchmarks.gpu.day SPEC` runs the section of the JSON file SPEC. Before a case starts its name is noted, so
that whoever finds the process dead knows the culprit and starts again without it; rows lie on disk as they come.
"""

import contextlib
import importlib
import json
import os
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import pretend
from benchmarks.gpu.results import write_json

# The exit status of a process that gives up a case because the device is beyond use.
DEVICE_LOST = 70


class Case(NamedTuple):
    """`run` returns a row, or several."""

    name: str
    run: Callable[[], dict | list[dict]]


class Wrong(Exception):
    """A result that is not what it must be; the row says which."""

    def __init__(self, message: str, **row: Any) -> None:
        super().__init__(message)
        self.row = row


class DeviceLost(Exception):
    """After an illegal access every later call fails: only a new process can go on."""


@contextlib.contextmanager
def kept(row: dict) -> Iterator[None]:
    """What goes wrong within it costs this row alone: no memory is a result, anything else a failure.

    Where the device is lost nothing after it can succeed, and the loop over cases ends.
    """
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError:
        row["out_of_memory"] = True
    except Exception as error:
        traceback.print_exc()
        if device_lost():
            raise DeviceLost from error
        row["failed"] = described(error)


def described(error: BaseException) -> str:
    """The error, and what went wrong first: a graph's capture ends with an error of its own after what broke it."""
    first = error
    while first.__context__ is not None:
        first = first.__context__
    told = [f"{type(e).__name__}: {e}" for e in dict.fromkeys((error, first))]
    return ", after ".join(text[: 500 // len(told)] for text in told)


def device_lost() -> bool:
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


class Day:
    """What a section knows: spec fields as attributes, the clock of the device, and earlier sections' rows."""

    def __init__(self, spec: dict, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.section: str = spec["section"]
        self.stage: str = spec["stage"]
        self.rehearse: bool = spec["rehearse"]
        self.backends: list[str] = spec["backends"]
        self.scratch = Path(spec["scratch"])
        self.until: float = spec["until"]
        self.skip: list[str] = spec["skip"]
        self.device = "cpu" if self.rehearse else "cuda"
        self.case = ""

    @property
    def left(self) -> float:
        """Seconds until the section should be done."""
        return self.until - time.time()

    def seed(self, name: str) -> int:
        """Another one for every case and every day; the row of a fault names it."""
        return zlib.crc32(f"{self.spec['seed']} {name}".encode())

    @property
    def ceilings(self) -> list[dict]:
        """The rows of the section `ceilings`, where it has run before."""
        return self.spec["ceilings"]

    def part(self, name: str) -> bool:
        """Note which part of the case runs now; False where an earlier attempt died in it."""
        note = f"{self.case} · {name}"
        if note in self.skip:
            return False
        (self.folder / "now").write_text(note, "utf-8")
        return True

    def run(self, cases: Iterable[Case]) -> dict:
        path = self.folder / "section.json"
        known = json.loads(path.read_text("utf-8")) if path.exists() else {"rows": [], "done": []}
        rows, done, left_out, written = known["rows"], known["done"], [], 0.0
        for index, case in enumerate(cases):
            if case.name in done or case.name in self.skip:
                continue
            if self.left <= 0:
                left_out.append(case.name)
                continue
            self.case = case.name
            (self.folder / "now").write_text(case.name, "utf-8")
            self._go_wrong(index)
            begin = time.time()
            try:
                found = self._outcome(case)
            except DeviceLost as error:
                # The case is not done: a new process takes it up again, but for the part that was noted last.
                write_json(path, {"rows": rows, "done": done, "left_out": left_out})
                print(f"the device is lost: {error.__cause__}", flush=True)
                sys.exit(DEVICE_LOST)
            if found:
                # None where an earlier attempt died in every part of it: those deaths are the driver's to record.
                found[-1]["case_seconds"] = time.time() - begin
            rows += [{"case": case.name, **plain(row)} for row in found]
            done.append(case.name)
            if time.time() - written > 1:
                written = time.time()
                write_json(path, {"rows": rows, "done": done, "left_out": left_out})
        content = {"rows": rows, "done": done, "left_out": left_out}
        write_json(path, content)
        # Whatever happens at the end of the process is no case's fault.
        (self.folder / "now").write_text("", "utf-8")
        return content

    def _outcome(self, case: Case) -> list[dict]:
        try:
            found = case.run()
            return found if isinstance(found, list) else [found]
        except Wrong as wrong:
            print(f"{case.name}: {wrong}", flush=True)
            return [{"failed": str(wrong), **wrong.row}]
        except DeviceLost:
            raise
        except Exception as error:
            traceback.print_exc()
            if device_lost():
                raise DeviceLost from error
            return [{"failed": described(error)}]

    def _go_wrong(self, index: int) -> None:
        """The fault that a rehearsal plans for this section, in its second case."""
        if self.spec["fault"] and index == 1:
            print(f"rehearsal: this case is made to {self.spec['fault']}", flush=True)
            if self.spec["fault"] == "crash":
                os.abort()
            time.sleep(3600)


def plain(value: Any) -> Any:
    """As JSON has it: what is not finite becomes text, and seven digits of a number are enough."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if value - value == 0 else str(value)
    return value if isinstance(value, str | int | bool | None) else str(value)


def main() -> None:
    path = Path(sys.argv[1])
    day = Day(json.loads(path.read_text("utf-8")), path.parent)
    if day.rehearse:
        pretend.install()
    module = importlib.import_module(f"benchmarks.gpu.sections.{day.section}")
    day.run(module.cases(day))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    main()
