"""What came out of a run: run.json."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_type_hints

from itrd_distill.options import Count, CountFromZero, Line, Share, Weight, misfit
from itrd_distill.training.callbacks import Row
from itrd_distill.training.checkpoints import check_goes_on, latest, read
from itrd_distill.training.earlier import check_replaceable, is_run
from itrd_distill.training.files import write_atomically
from itrd_distill.training.record import Damaged, Record
from itrd_distill.training.settings import Seed

# What a row of the history holds beside the means of the loss and its terms. Those may be infinite, since in half
# precision the sum over the batches of an epoch may leave the range; the loss is never NaN, which ends a run.
_ROW = {"epoch": CountFromZero, "test_accuracy": Share, "images_per_second": Weight}


@dataclass
class RunResult:
    """method, seed; accuracy after the last epoch; training images a second; the student's size; one row an epoch.

    made_from: digests of the images and weights; results of older versions have none.
    """

    method: Line
    seed: Seed
    test_accuracy: Share
    images_per_second: Weight
    parameters: Count
    history: list[Row]
    made_from: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> "RunResult":
        """That of run.json in a run's folder; Damaged if it is no result."""
        path = directory / "run.json"
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise Damaged(path, f"no JSON: {error}") from error
        if wrong := _wrong(content):
            raise Damaged(path, wrong)
        return cls(**content)

    def write(self, directory: Path) -> None:
        text = json.dumps(asdict(self), indent=1)
        write_atomically(directory / "run.json", lambda path: path.write_text(text, "utf-8"))


def finished(directory: Path, now: Record, longer: bool = False) -> RunResult | None:
    """The result of a run that is complete; None if there is none yet.

    Args:
        directory: of the run.
        now: what is asked for.
        longer: a run of fewer epochs is one that may go on.

    Raises:
        ValueError: the folder holds a run made from something else, or a damaged file.
    """
    if not is_run(directory) or not (directory / "recipe.yaml").is_file():
        return None
    if not (directory / "run.json").is_file():
        # What images and weights it is made from is known by its checkpoint, and compared where that is read.
        Record.beside(directory, now.digests).check(now, directory, longer)
        return None
    result = RunResult.read(directory)
    noted = Record.beside(directory, result.made_from)
    noted.check(now, directory, longer)
    if (result.method, result.seed) != (noted.method, noted.flat["seed"]):
        raise Damaged(
            directory / "run.json",
            f"it is of method {result.method} and seed {result.seed}, but recipe.yaml of method {noted.method} and "
            f"seed {noted.flat['seed']}",
        )
    return result if len(result.history) == now.epochs else None


def look(directory: Path, now: Record) -> tuple[RunResult | None, Path | None]:
    """What a run finds in its folder that goes on by itself with what is there: its result if it is complete, else the
    checkpoint to go on from, or neither.

    Raises:
        ValueError: as `finished`, also of its checkpoint; or there is a run that has none.
    """
    if result := finished(directory, now):
        return result, None
    if checkpoint := latest(directory):
        check_goes_on(checkpoint, now, longer=False)
    elif is_run(directory):
        raise nothing_to_go_on_from(directory)
    else:
        check_replaceable(directory)
    return None, checkpoint


def nothing_to_go_on_from(directory: Path) -> ValueError:
    return ValueError(
        f"{directory} holds an earlier run but no checkpoint to go on from: replace it by `train --overwrite`, "
        "remove it, or choose another --out"
    )


def digests_in(directory: Path) -> dict[str, str]:
    """Those of what the run in a folder is made from, by its result or its checkpoint; older runs note none."""
    if (directory / "run.json").is_file():
        return RunResult.read(directory).made_from
    checkpoint = latest(directory)
    return read(checkpoint).get("record", {}).get("digests", {}) if checkpoint else {}


def _wrong(content: object) -> str:
    """Which of the keys is missing, unknown or not what it may be; empty if all are well."""
    if not isinstance(content, dict):
        return "it is no mapping"
    hints = get_type_hints(RunResult, include_extras=True)
    for name in [name for name in hints if name not in ("history", "made_from")]:
        if wrong := misfit(name, content.get(name), hints[name]):
            return wrong
    rows = content.get("history")
    if not isinstance(rows, list) or not rows:
        return "history has no rows"
    for row in rows:
        if (
            not isinstance(row, dict)
            or not {"epoch", "loss", "test_accuracy"} <= row.keys()
            or rows[0].keys() != row.keys()
        ):
            return "a row of history is not like the others"
        for name, value in row.items():
            if wrong := misfit(f"history: {name}", value, _ROW[name]) if name in _ROW else _no_mean(name, value):
                return wrong
    digests = content.get("made_from", {})
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        return f"made_from must be a mapping to text, got {digests!r}"
    unknown = content.keys() - hints
    return f"there is no {', '.join(sorted(unknown))}" if unknown else ""


def _no_mean(name: str, value: object) -> str:
    good = isinstance(value, int | float) and not (name == "loss" and math.isnan(value))
    return "" if good else f"history: {name} must be a number, got {value!r}"
