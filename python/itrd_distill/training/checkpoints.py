"""Checkpoints that survive a full disk and a kill at any moment: the last good one is always there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from itrd_distill.lines import say
from itrd_distill.training.files import load_whole, write_atomically
from itrd_distill.training.record import Record

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


# What Lightning takes up again.
_NEEDED = {
    "epoch": int, "global_step": int, "state_dict": dict, "loops": dict, "callbacks": dict, "optimizer_states": list,
    "lr_schedulers": list,
}  # fmt: skip


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole before it takes the place of the last one, which is kept as the previous one.

    Args:
        written: called after each.
    """

    def __init__(self, written: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.written = written

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        fresh = path.with_name(path.name + ".fresh")
        try:
            write_atomically(fresh, lambda partial: torch.save(checkpoint, partial))
        except (OSError, RuntimeError) as error:
            kept = f"the last good one is {path}" if path.exists() else "there is none yet"
            raise OSError(f"the checkpoint {path} cannot be written ({error}); {kept}") from error
        if path.exists():
            path.replace(path.with_name(PREVIOUS))
        fresh.replace(path)
        self.written()


def latest(directory: Path) -> Path | None:
    """The newest readable checkpoint of a run; None if there is none at all.

    Raises:
        ValueError: there are some, and none can be read.
    """
    # A kill between two renames leaves a complete checkpoint under the name `fresh`.
    found = [path for name in (f"{LAST}.fresh", LAST, PREVIOUS) if (path := directory / "checkpoints" / name).is_file()]
    for path in found:
        try:
            read(path)
        except ValueError as error:
            say(f"{error}; going back to the checkpoint before it")
        else:
            return path
    if found:
        raise ValueError(
            f"no checkpoint in {directory / 'checkpoints'} can be read: train that run again, "
            f"by `train --overwrite` or after removing {directory}"
        )
    return None


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint of a run holds.

    Raises:
        ValueError: the file is none that can be read, or lacks what going on needs.
    """
    try:
        content = load_whole(path)
    except Exception as error:
        raise ValueError(f"the checkpoint {path} is damaged ({type(error).__name__})") from error
    if not isinstance(content, dict) or "loops" not in content:
        raise ValueError(f"{path} is no checkpoint of a run; weights of a teacher go to --teacher.checkpoint")
    wrong = [name for name, kind in _NEEDED.items() if not isinstance(content.get(name), kind)]
    # What Lightning would do without, and begin again at the first epoch, with no history, or without momentum.
    for name, part, what in (("loops", "fit_loop", "epoch_progress"), ("callbacks", "History", "rows")):
        if name not in wrong and what not in (content[name].get(part) or ()):
            wrong.append(name)
    wrong += [name for name in ("optimizer_states", "lr_schedulers") if content.get(name) == []]
    if "record" in content and not Record.is_one(content["record"]):
        wrong.append("record")
    if wrong:
        raise ValueError(
            f"{path} is no checkpoint to go on from: {', '.join(wrong)} missing or not what a run writes; take a "
            "last.ckpt or previous.ckpt as a run left it"
        )
    return content


def check_goes_on(path: Path, now: Record, longer: bool = True) -> None:
    """Raise a ValueError if what is asked for is no continuation of this checkpoint's run; say what is not known.

    `longer`: more epochs than that run's are a continuation.
    """
    content = read(path)
    epochs = content["epoch"] + 1
    if now.epochs < epochs:
        raise ValueError(
            f"trainer.epochs is {now.epochs}, but {path} has {epochs} epochs already: ask for as many at least, or "
            "for another --out"
        )
    run = path.parent.parent
    if "record" in content:
        Record(**content["record"]).check(now, path, longer)
    elif (run / "recipe.yaml").is_file():
        # Checkpoints of older versions know nothing of their settings.
        Record.beside(run, {}).check(now, run, longer)
    else:
        say(f"{path} is older and does not note how it was made: taken to be of the same settings, images and teacher")
