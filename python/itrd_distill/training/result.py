"""What came out of a run: run.json."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from itrd_distill.training.callbacks import Row
from itrd_distill.training.earlier import is_run
from itrd_distill.training.files import write_atomically
from itrd_distill.training.record import Damaged, Record

_KINDS = {"method": str, "seed": int, "test_accuracy": float, "images_per_second": float, "parameters": int}


@dataclass
class RunResult:
    """method, seed; accuracy after the last epoch; training images a second; the student's size; one row an epoch.

    made_from: digests of the images and weights; results of older versions have none.
    """

    method: str
    seed: int
    test_accuracy: float
    images_per_second: float
    parameters: int
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
        longer: a run of another number of epochs is one that may go on.

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
    Record.beside(directory, result.made_from).check(now, directory, longer)
    return result if len(result.history) == now.epochs else None


def _wrong(content: object) -> str:
    """Which of the keys is missing, unknown or of another type; empty if all are well."""
    if not isinstance(content, dict):
        return "it is no mapping"
    for name, kind in _KINDS.items():
        value = content.get(name)
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
            return f"{name} must be of type {kind.__name__}, got {value!r}"
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
        if not all(isinstance(value, (int, float)) for value in row.values()):
            return "a row of history holds something else than numbers"
    digests = content.get("made_from", {})
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        return f"made_from must be of type dict of str, got {digests!r}"
    unknown = content.keys() - {*_KINDS, "history", "made_from"}
    return f"there is no {', '.join(sorted(unknown))}" if unknown else ""
