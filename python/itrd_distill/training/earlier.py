"""What a run's folder held before: recognised, set aside while a new start may still fail, and put back if it does."""

import shutil
from pathlib import Path
from types import TracebackType

from itrd_distill.lines import say

# What a run leaves; the features of a probe are kept whatever becomes of its classifier.
_RESULTS = ("recipe.yaml", "weights.pt", "run.json", "nan_batch.pt")
_COURSE = ("checkpoints", "csv", "tensorboard")
# In the message of a loss that is no number: what is left of a start that fails by that.
_NAMED = "nan_batch.pt"
_ASIDE, _DONE = "earlier", "earlier.done"


def is_run(directory: Path) -> bool:
    """Whether a run got as far as a checkpoint here; one that did not is nothing to keep."""
    results = [directory / name for name in ("weights.pt", "run.json")]
    checkpoints = [path for kind in ("*.ckpt", "*.ckpt.fresh") for path in (directory / "checkpoints").glob(kind)]
    return any(path.exists() for path in results + checkpoints)


class Start:
    """A run that begins, or goes on, in a folder: what stands there stays as it was if it fails at once.

    Everything of an earlier run, or its results alone if it is gone on with, is moved into a subfolder. It goes when
    `stands` is called, with the first checkpoint, or when all ends well, and comes back when all ends badly before.
    Whoever is killed in between leaves it there for the next one: see `recover`.
    """

    def __init__(self, directory: Path, goes_on: bool) -> None:
        self.directory, self.moved = directory, _RESULTS if goes_on else _RESULTS + _COURSE
        self.over = False

    def __enter__(self) -> "Start":
        there = [name for name in self.moved if (self.directory / name).exists()]
        if there:
            (self.directory / _ASIDE).mkdir(parents=True, exist_ok=True)
        for name in there:
            (self.directory / name).rename(self.directory / _ASIDE / name)
        self.kept = set(self._files())
        return self

    def stands(self) -> None:
        """What was before is no longer needed."""
        if not self.over:
            self.over = True
            _forget(self.directory)

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            return self.stands()
        if not self.over:
            self.over = True
            for path in sorted(set(self._files()) - self.kept, reverse=True):
                if path.is_dir():
                    path.rmdir()
                elif path.name != _NAMED:
                    path.unlink()
            if _put_back(self.directory):
                say(f"{self.directory}: the start failed before its first checkpoint; what was there before it is back")
        return None

    def _files(self) -> list[Path]:
        roots = [self.directory / name for name in _RESULTS + _COURSE if (self.directory / name).exists()]
        return roots + [path for root in roots for path in root.rglob("*")]


def recover(directory: Path) -> None:
    """Put back what a start that was killed before its first checkpoint had set aside."""
    shutil.rmtree(directory / _DONE, ignore_errors=True)
    if _put_back(directory):
        say(f"{directory}: a start was killed before its first checkpoint; what was there before it is back")


def _put_back(directory: Path) -> bool:
    aside = directory / _ASIDE
    if not aside.is_dir():
        return False
    for path in aside.iterdir():
        place = directory / path.name
        if path.name == _NAMED and place.exists():
            path.unlink()
            continue
        if place.is_dir():
            shutil.rmtree(place)
        path.replace(place)
    aside.rmdir()
    return True


def _forget(directory: Path) -> None:
    aside = directory / _ASIDE
    if aside.is_dir():
        # In one step: half of it must never be put back.
        aside.rename(directory / _DONE)
        shutil.rmtree(directory / _DONE)
