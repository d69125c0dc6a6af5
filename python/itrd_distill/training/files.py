"""Files of a run: written whole or not at all, read without executing anything."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from itrd_distill.models import create_model
from itrd_distill.training.reading import check_sums, read_checkpoint
from itrd_distill.training.weights import differences, find_state, number_of_classes, unread

# Of a model that is made to see how many classes weights have.
_SOME_CLASSES = 10


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a file beside `path`, bring it to the disk and move it there: nobody ever sees half of it.

    Raises:
        OSError: it cannot be written, as on a full disk; what was at `path` before is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_whole(path: Path) -> Any:
    """What torch.save wrote into `path`; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        Exception: of many kinds, where the file is cut short, overwritten or none of torch.save's.
    """
    check_sums(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def save_model(path: Path, model: nn.Module, name: str, num_classes: int, test_accuracy: float) -> None:
    """Weights in the CRD benchmark's form, {"model": state_dict, …}, with what is needed to use them again."""
    content = {
        "model": {key: value.cpu() for key, value in model.state_dict().items()},
        "name": name,
        "num_classes": num_classes,
        "test_accuracy": test_accuracy,
    }
    write_atomically(path, lambda partial: torch.save(content, partial))


def load_model(path: str | Path, name: str, num_classes: int | None = None) -> nn.Module:
    """The model `name` with the weights of `path`.

    Args:
        path: of a bare state_dict, or of one that stands at any place in what was saved.
        name: of the model.
        num_classes: that it must have; None takes as many as the weights have.

    Raises:
        FileNotFoundError, ValueError: it is no checkpoint, holds no weights, or another model's.
    """
    content = read_checkpoint(path)
    model = create_model(name, num_classes or _SOME_CLASSES)
    state = find_state(content, model.state_dict(), str(path))
    if num_classes is None:
        found = number_of_classes(model.state_dict(), state, _SOME_CLASSES)
        model = model if found == _SOME_CLASSES else create_model(name, found)
    if told := differences(model.state_dict(), state):
        holds = f"; it says that it holds {content['name']}" if isinstance(dict.get(content, "name"), str) else ""
        raise ValueError(
            f"{path} does not fit {name}{f' with {num_classes} classes' if num_classes else ''}: {told}{holds}"
            f"{unread(content)}"
        )
    model.load_state_dict(state)
    return model


def known_accuracy(path: str | Path) -> float | None:
    """The test accuracy that was noted beside the weights by `save_model`; other people's checkpoints do not say it."""
    content = read_checkpoint(path)
    accuracy = dict.get(content, "test_accuracy") if isinstance(content, dict) else None
    return accuracy if isinstance(accuracy, float) else None
