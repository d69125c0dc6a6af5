"""Files of a run: written whole or not at all, read without executing anything."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from itrd_distill.models import create_model


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


def save_model(path: Path, model: nn.Module, name: str, num_classes: int, test_accuracy: float) -> None:
    """Weights in the CRD benchmark's form, {"model": state_dict, …}, with what is needed to use them again."""
    content = {
        "model": {key: value.cpu() for key, value in model.state_dict().items()},
        "name": name,
        "num_classes": num_classes,
        "test_accuracy": test_accuracy,
    }
    write_atomically(path, lambda partial: torch.save(content, partial))


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The state_dict in `path`, which holds it bare or as {"model": state_dict, …}; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; train one with `itrd-distill train`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model", content)
        return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error


def load_model(path: str | Path, name: str, num_classes: int) -> nn.Module:
    """The model `name` with the weights of `path`.

    Raises:
        FileNotFoundError, ValueError: as `load_state`, or the weights are another model's; the message says which.
    """
    state = load_state(path)
    model = create_model(name, num_classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {name} with {num_classes} classes: {error}") from error
    return model
