"""JPEG files packed end to end in one .npz: a data set in a single file, checked array by array."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from itrd_distill.data.check import check_split
from itrd_distill.data.decode import decode
from itrd_distill.data.memory import Split, resize

SPLITS, PARTS = ("train", "test"), ("jpeg", "offsets", "labels")


def read_packed(path: Path, size: int | None) -> tuple[list[Split], int]:
    """The training and test images of `path`, and the number of classes.

    Args:
        path: of an .npz with classes (C,), and for each split: SPLIT_jpeg (bytes,) uint8, SPLIT_offsets (N + 1,), image
            i being the bytes between offsets i and i + 1, and SPLIT_labels (N,).
        size: that images of several sizes are brought to; those of one size stay as they are.

    Raises:
        ValueError: the file is damaged, an array is missing or of another type or shape, a label is no class, an image
            cannot be decoded, or there are several sizes and no `size`; the message names the array or the image.
    """
    held = _arrays(path)
    _want(path, "classes", held["classes"], held["classes"].ndim == 1 and len(held["classes"]) > 1, "(C,), C ≥ 2")
    classes, splits = len(held["classes"]), []
    for split in SPLITS:
        jpeg, offsets, labels = (held[f"{split}_{part}"] for part in PARTS)
        _want(path, f"{split}_jpeg", jpeg, jpeg.dtype == np.uint8 and jpeg.ndim == 1, "(bytes,) uint8")
        for part, array in (("offsets", offsets), ("labels", labels)):
            _want(path, f"{split}_{part}", array, array.ndim == 1 and array.dtype.kind in "iu", "(N,) of whole numbers")
        _check_offsets(path, split, offsets, len(jpeg))
        classified = torch.from_numpy(labels.astype(np.int64))
        check_split(len(offsets) - 1, classified, classes, f"{path}: {split}_offsets", f"{path}: {split}_labels")
        splits.append((_unpack(jpeg, offsets, size, f"{path}: {split} image"), classified))
    return splits, classes


def _arrays(path: Path) -> dict[str, np.ndarray]:
    wanted = ["classes", *(f"{split}_{part}" for split in SPLITS for part in PARTS)]
    try:
        # Nothing in the file is unpickled.
        with np.load(path, allow_pickle=False) as arrays:
            absent = [array for array in wanted if array not in arrays]
            held = {array: arrays[array] for array in wanted if array not in absent}
    # zipfile, zlib and NumPy's own reader each have exceptions of their own.
    except Exception as error:
        raise ValueError(f"{path} cannot be read as an .npz of plain arrays ({_line(error)}); make it again") from error
    if absent:
        raise ValueError(f"{path} lacks the arrays {', '.join(absent)}")
    return held


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _want(path: Path, name: str, array: np.ndarray, right: bool, wanted: str) -> None:
    if not right:
        raise ValueError(f"{path}: {name} must be {wanted}, got {array.shape} {array.dtype}")


def _check_offsets(path: Path, split: str, offsets: np.ndarray, length: int) -> None:
    offsets = offsets.astype(np.int64)
    if len(offsets) < 2:
        raise ValueError(f"{path}: there are no images: {split}_offsets has {len(offsets)} entries for N + 1")
    falling = np.flatnonzero(np.diff(offsets) <= 0)
    if len(falling):
        i = int(falling[0]) + 1
        raise ValueError(f"{path}: {split}_offsets must rise, but [{i}] is {offsets[i]} after {offsets[i - 1]}")
    if offsets[0] < 0 or offsets[-1] > length:
        raise ValueError(
            f"{path}: {split}_offsets go from {offsets[0]} to {offsets[-1]}, but {split}_jpeg has {length} bytes"
        )


def _unpack(jpeg: np.ndarray, offsets: np.ndarray, size: int | None, called: str) -> Tensor:
    """uint8 images (N, 3, h, w); `called` and its number name an image that cannot be decoded or is of another size."""
    images = torch.empty(0)
    for i, image in enumerate(_decoded(jpeg, offsets, called)):
        if i == 0:
            images = torch.empty(len(offsets) - 1, *image.shape, dtype=torch.uint8)
        elif image.shape != images.shape[1:]:
            if size is None:
                sizes = " and ".join(f"{i} of {w}×{h}" for i, (_, h, w) in ((0, images.shape[1:]), (i, image.shape)))
                raise ValueError(
                    f"{called}s differ in size, {sizes} pixels (width × height): give --data.options.size, to which "
                    "they are resized"
                )
            if images.shape[2:] != (size, size):
                images = torch.cat([resize(images[:i], size), images.new_empty(len(images) - i, 3, size, size)])
            image = resize(image[None], size)[0]
        images[i] = image
    return images


def _decoded(jpeg: np.ndarray, offsets: np.ndarray, called: str) -> Iterator[Tensor]:
    def pixels(numbered: tuple[int, tuple[int, int]]) -> Tensor:
        i, place = numbered
        image = decode(BytesIO(jpeg[slice(*place)].tobytes()), f"{called} {i}")
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        yield from pool.map(pixels, enumerate(itertools.pairwise(offsets)))
