"""Checkpoints of any origin, read without running anything in them; a file that is none is called what it is."""

import importlib
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from itrd_distill.training.pickles import Survey, survey

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
_ZIP = b"PK"
_CHUNK = 2**20
_PROTOCOL = 2  # of pickle, in which torch.save writes if it is not told otherwise
_PLAIN = "torch.storage._load_from_bytes"  # what pickle itself, without torch.save, makes of tensors
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


class _Mapping(Unread):
    """Stands for a subclass of dict, or what else is filled as one: its objects are plain, and all that they hold."""

    def __new__(cls, *_, **__) -> Any:
        # Of a dict itself torch.load sets no attributes.
        return OrderedDict()


class _List(Unread):
    """Stands for a subclass of list, or what else is filled as one."""

    def __new__(cls, *_, **__) -> Any:
        return []


_STAND_INS: dict[type | None, type] = {dict: _Mapping, list: _List, None: Unread}


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
        return _pickled(path, zipped=start.startswith(_ZIP))
    except _NoCheckpointError as error:
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error.__cause__


def check_sums(path: Path) -> None:
    """Read an archive of torch.save's to the end, of which PyTorch does not look at the checksums.

    A crash can leave zeros in a file of the right length. A checksum of 0 is none: torch.save can leave them out.

    Raises:
        Exception: of many kinds, mostly zipfile.BadZipFile, where it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            if part.CRC != 0:
                with archive.open(part) as file:
                    while file.read(_CHUNK):
                        pass


class _NoCheckpointError(Exception):
    """What a file is instead."""


def _check_kind(path: Path, start: bytes) -> None:
    if not start:
        raise _NoCheckpointError(f"it is empty: {_AGAIN}")
    for beginning, told in _OTHER_FILES.items():
        if start.lstrip().lower().startswith(beginning):
            raise _NoCheckpointError(told)
    if not start.startswith(_ZIP):
        return
    try:
        names = {Path(part).name for part in _parts(path)} if zipfile.is_zipfile(path) else None
    # Damaged archives end in exceptions of zipfile, struct, codecs, the operating system and others.
    except Exception as error:
        raise _damaged(error) from error
    if names is None:
        raise _NoCheckpointError(f"its end is missing: {_AGAIN}")
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


def _pickled(path: Path, zipped: bool) -> Any:
    found = Survey(_PROTOCOL, {})
    foreign: list[str] = []
    try:
        if zipped:
            check_sums(path)
        found = _survey(path, zipped)
        foreign = [name for name in found.names if not _TENSORS.fullmatch(name)]
        stand_ins: list[Callable | tuple[Callable, str]] = [
            (type(name, (_STAND_INS[found.names[name]],), {}), name) for name in foreign
        ]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    # As above, and in exceptions of pickle and torch.
    except Exception as error:
        # A subclass of Tensor ends in a TypeError, for nothing can stand for it.
        if foreign and isinstance(error, (pickle.UnpicklingError, TypeError)):
            raise _pickle_of(foreign) from error
        if isinstance(error, pickle.UnpicklingError) and (found.protocol > _PROTOCOL or _PLAIN in found.names):
            raise _NoCheckpointError(
                f"it is a pickle of protocol {found.protocol} that PyTorch cannot read without running what is in it: "
                f"{SAVE_STATE_DICT}"
            ) from error
        raise _damaged(error) from error
    if isinstance(content, Unread):
        raise _pickle_of(foreign)
    return content


def _pickle_of(foreign: list[str]) -> _NoCheckpointError:
    return _NoCheckpointError(
        f"it is a pickle of {', '.join(foreign[:3])}{', …' * (len(foreign) > 3)}, and to read that is to run code of "
        f"its own: {SAVE_STATE_DICT}"
    )


def _damaged(error: Exception) -> _NoCheckpointError:
    return _NoCheckpointError(f"it is damaged, or no file of PyTorch's ({type(error).__name__}): {_AGAIN}")


def _survey(path: Path, zipped: bool) -> Survey:
    if not zipped:
        with open(path, "rb") as file:
            return survey(file, _LEGACY_PICKLES)
    (name,) = (part for part in _parts(path) if Path(part).name == "data.pkl")
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return survey(file, 1)


def _parts(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()
