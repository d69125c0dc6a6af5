"""What a run's folder held before: recognised, set aside while a new start may still fail, and put back if it does."""

import contextlib
import itertools
import os
import re
import shutil
from pathlib import Path
from types import TracebackType

from itrd_distill.lines import say
from itrd_distill.stopping import go_on_from_here
from itrd_distill.training.record import Damaged, Record

# What a run leaves; the features of a probe are kept whatever becomes of its classifier.
_RESULTS = ("recipe.yaml", "weights.pt", "run.json", "nan_batch.pt")
_COURSE = ("checkpoints", "csv", "tensorboard")
# All that a run makes under these names, and half of it, where one was killed as it wrote.
_MADE = re.compile(
    r"(recipe\.yaml|weights\.pt|run\.json|nan_batch\.pt|checkpoints/(last\.ckpt|last\.ckpt\.fresh|previous\.ckpt)"
    r"|csv/version_\d+/(metrics\.csv|hparams\.yaml)|tensorboard/(hparams\.yaml|events\.out\.tfevents\..+))"
    r"(\.\d+\.partial)?"
    # What file managers leave wherever one looks.
    r"|.*/(\.DS_Store|Thumbs\.db|desktop\.ini)"
)
_FOLDERS = re.compile(r"checkpoints|csv|csv/version_\d+|tensorboard")
# In the message of a loss that is no number: what is left of a start that fails by that.
_NAMED = "nan_batch.pt"
# A subfolder is ours if one of the marks is in it, which say what becomes of the rest.
_ASIDE, _KEPT, _DONE = "itrd-distill.earlier", "is_put_back.itrd-distill", "is_removed.itrd-distill"


def is_run(directory: Path) -> bool:
    """Whether a run got as far as a checkpoint here; one that did not is nothing to keep."""
    results = [directory / name for name in ("weights.pt", "run.json")]
    checkpoints = [path for kind in ("*.ckpt", "*.ckpt.fresh") for path in (directory / "checkpoints").glob(kind)]
    return any(path.exists() for path in results + checkpoints)


def is_of(checkpoint: Path, directory: Path) -> bool:
    """Whether a checkpoint is that of the run in a folder, be it through a link."""
    ways = (os.path.abspath, os.path.realpath)
    return any(Path(way(checkpoint)).is_relative_to(way(directory)) for way in ways)


def check_replaceable(directory: Path) -> None:
    """Raise a ValueError if something stands where a run writes that no run has made."""
    if others := _others(directory):
        raise ValueError(
            f"{others[0]} was made by no run, and one here would replace it: move it elsewhere, or choose another --out"
        )


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
        aside = self.directory / _ASIDE
        if aside.is_dir() and any(aside.iterdir()):
            raise FileExistsError(f"{aside} holds something that no run put there: move it elsewhere")
        if not is_run(self.directory):
            _spare_recipe(self.directory)
        if there := [name for name in self.moved if os.path.lexists(self.directory / name)]:
            aside.mkdir(exist_ok=True)
            (aside / _KEPT).touch()
        try:
            for name in there:
                (self.directory / name).rename(aside / name)
        except BaseException:
            _put_back(self.directory)
            raise
        self.kept = set(_files(self.directory))
        return self

    def stands(self) -> None:
        """What was before is no longer needed."""
        if not self.over:
            self.over = True
            go_on_from_here()
            aside = self.directory / _ASIDE
            if (aside / _KEPT).exists():
                # In one step: half of it must never be put back.
                (aside / _KEPT).rename(aside / _DONE)
                _remove(aside)

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            return self.stands()
        if not self.over:
            self.over = True
            _unmake(self.directory, set(_files(self.directory)) - self.kept)
            if _put_back(self.directory):
                say(f"{self.directory}: the start ended before its first checkpoint; what was there before it is back")
        return None


def recover(directory: Path) -> None:
    """Put back what a start that was killed before its first checkpoint had set aside."""
    if (directory / _ASIDE / _DONE).exists():
        _remove(directory / _ASIDE)
    if _put_back(directory):
        say(f"{directory}: a start was killed before its first checkpoint; what was there before it is back")


def _files(directory: Path) -> list[Path]:
    """All that stands in a folder where a run writes, folders included."""
    roots = [directory / name for name in _RESULTS + _COURSE if os.path.lexists(directory / name)]
    return roots + [path for root in roots for path in root.rglob("*")]


def _others(directory: Path) -> list[Path]:
    """Of `_files`, what no run makes."""

    def made(path: Path) -> bool:
        # A run makes no links: what it puts into a folder behind one it would not set aside.
        names = _FOLDERS if path.is_dir() else _MADE
        return not path.is_symlink() and bool(names.fullmatch(path.relative_to(directory).as_posix()))

    return [path for path in _files(directory) if not made(path)]


def _spare_recipe(directory: Path) -> None:
    """Give recipe.yaml another name if it is not word for word what a start leaves that died."""
    path = directory / "recipe.yaml"
    try:
        if not path.exists() or Record.beside(directory, {}).text == path.read_text("utf-8"):
            return
    except Damaged:
        pass
    numbers = itertools.count(1)
    free = next(name for i in numbers if not (name := directory / f"recipe.yaml.kept-{i}").exists())
    path.rename(free)
    say(f"{path} was written by no run: it is kept as {free.name}")


def _unmake(directory: Path, paths: set[Path]) -> None:
    """Remove what a start has made, but for the batch that its message names, and folders that are empty then."""
    for path in sorted(paths - set(_others(directory)), reverse=True):
        if path.is_dir():
            # What others have put there stays.
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.name != _NAMED:
            path.unlink()


def _put_back(directory: Path) -> bool:
    aside = directory / _ASIDE
    if not (aside / _KEPT).exists():
        return False
    for name in _RESULTS + _COURSE:
        path, place = aside / name, directory / name
        if not os.path.lexists(path):
            continue
        if name == _NAMED and place.exists():
            path.unlink()
            continue
        if place.is_dir():
            _unmake(directory, {place, *place.rglob("*")})
        if place.is_dir():
            raise OSError(f"{place} holds what no run made, and what was there before is in {path}: move it elsewhere")
        path.replace(place)
    (aside / _KEPT).unlink()
    with contextlib.suppress(OSError):  # something of others in it
        aside.rmdir()
    return True


def _remove(aside: Path) -> None:
    """The mark goes last: whoever is killed before leaves it to the next one."""
    for name in _RESULTS + _COURSE:
        path = aside / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (aside / _DONE).unlink()
    with contextlib.suppress(OSError):  # something of others in it
        aside.rmdir()
