"""Checkpoints of any origin, read without running anything in them; a file that is none is called what it is."""

import importlib
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

SAVE_STATE_DICT = "save the weights alone where the model was made, by torch.save(model.state_dict(), PATH)"
_AGAIN = "copy or download it again"
# How other files begin, in small letters.
_OTHER_FILES = {
    b"version https://git-lfs": "it is Git LFS's pointer to a file: `git lfs pull` fetches the file itself",
    b"<!doctype": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
    b"\x89hdf": "it is an HDF5 file: save the weights with PyTorch",
    b"\x1f\x8b": "it is a gzip archive: unpack it",
}
_LEGACY_PICKLES = 4  # a magic number, the version, the machine, and what was saved
# What every state_dict names, and torch.load rebuilds by itself.
_TENSORS = re.compile(
    r"torch\.(\w+|(_utils|_tensor|storage|serialization|nn\.parameter)\.\w+)|collections\.(OrderedDict|Counter)"
    r"|builtins\.(set|bytearray|complex)|_codecs\.encode"
)


class Unread:
    """Stands for an object of a class that is not PyTorch's: nothing of the class is imported, made or run."""

    def __new__(cls, *_, **__) -> "Unread":
        return super().__new__(cls)

    def __init__(self, *_, **__) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_checkpoint(path: str | Path) -> Any:
    """What the file holds; an object that is no tensor, number, text, list or mapping is an `Unread`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as a checkpoint; the message says what it is, where that can be told.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}; train one with `itrd-distill train`")
    try:
        if path.is_dir():
            inside = ": name the weights.pt in it" if (path / "weights.pt").is_file() else ""
            raise _NoCheckpointError(f"it is a folder{inside}")
        with open(path, "rb") as file:
            start = file.read(64)
        if start[8:9] == b"{":
            return _safetensors(path)
        _check_kind(path, start)
        return _pickled(path)
    except _NoCheckpointError as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error.__cause__


class _NoCheckpointError(Exception):
    """What a file is instead."""


def _check_kind(path: Path, start: bytes) -> None:
    if not start:
        raise _NoCheckpointError(f"it is empty: {_AGAIN}")
    for beginning, told in _OTHER_FILES.items():
        if start.lstrip().lower().startswith(beginning):
            raise _NoCheckpointError(told)
    if not start.startswith(b"PK"):
        return
    if not zipfile.is_zipfile(path):
        raise _NoCheckpointError(f"its end is missing: {_AGAIN}")
    with zipfile.ZipFile(path) as archive:
        names = {Path(name).name for name in archive.namelist()}
    if "constants.pkl" in names:
        raise _NoCheckpointError(f"it is a TorchScript archive, which is a program: {SAVE_STATE_DICT}")
    if "data.pkl" not in names:
        raise _NoCheckpointError("it is a ZIP archive, but not one of PyTorch's: unpack it")


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    # A safetensors file begins with the length of its header, eight bytes, and the header, which is JSON.
    try:
        load_file = importlib.import_module("safetensors.torch").load_file
    except ImportError as error:
        raise _NoCheckpointError("it is a safetensors file, which needs pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:
        raise _NoCheckpointError(f"it is a safetensors file, but damaged ({error}): {_AGAIN}") from error


def _pickled(path: Path) -> Any:
    foreign = _foreign_classes(path)
    pickled = _NoCheckpointError(
        f"it is a pickle of {', '.join(foreign[:3])}{', …' * (len(foreign) > 3)}, and to read that is to run code of "
        f"its own: {SAVE_STATE_DICT}"
    )
    try:
        with torch.serialization.safe_globals([(type(name, (Unread,), {}), name) for name in foreign]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    # Damaged files end in exceptions of pickle, struct, torch and others.
    except Exception as error:
        if foreign and isinstance(error, pickle.UnpicklingError):
            raise pickled from error
        told = f"it is damaged, or no file of PyTorch's ({type(error).__name__}): {_AGAIN}"
        raise _NoCheckpointError(told) from error
    if isinstance(content, Unread):
        raise pickled
    return content


def _foreign_classes(path: Path) -> list[str]:
    """The classes and functions that a file names beside those of tensors, in their order."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if Path(name).name == "data.pkl")
            with archive.open(name) as file:
                found = dict.fromkeys(_globals(file, 1))
    else:
        with open(path, "rb") as file:
            found = dict.fromkeys(_globals(file, _LEGACY_PICKLES))
    return [name for name in found if not _TENSORS.fullmatch(name)]


def _globals(file: BinaryIO, pickles: int) -> Iterator[str]:
    """What the next pickles in the file name, up to where they are no pickles any more, which torch.load will say."""
    try:
        for _ in range(pickles):
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    module, _, name = argument.partition(" ")
                    # Python 2's name for it, which pickle has kept.
                    yield f"{'builtins' if module == '__builtin__' else module}.{name}"
    except Exception:
        return
