"""Checkpoints that survive a full disk and a kill at any moment: the last good one is always there."""

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from itrd_distill.training.files import write_atomically

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole before it takes the place of the last one, which is kept as the previous one."""

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


def latest(directory: Path) -> Path | None:
    """The newest readable checkpoint of a run; None if there is none at all.

    Raises:
        ValueError: there are some, and none can be read.
    """
    # A kill between two renames leaves a complete checkpoint under the name `fresh`.
    found = [path for name in (f"{LAST}.fresh", LAST, PREVIOUS) if (path := directory / "checkpoints" / name).is_file()]
    for path in found:
        try:
            check(path)
        except ValueError as error:
            warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=2)
        else:
            return path
    if found:
        raise ValueError(f"no checkpoint in {directory / 'checkpoints'} can be read; start again without --resume")
    return None


def check(path: Path) -> None:
    """Raise a ValueError if the file is no readable checkpoint of a run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"the checkpoint {path} is damaged ({type(error).__name__})") from error
    if not isinstance(content, dict) or "loops" not in content:
        raise ValueError(f"{path} is no checkpoint of a run; weights of a teacher go to --teacher.checkpoint")
