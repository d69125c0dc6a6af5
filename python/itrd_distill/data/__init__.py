"""Data sets by the names that recipes give them."""

import inspect
from collections.abc import Callable
from pathlib import Path

from itrd_distill.data import sources
from itrd_distill.data.digits import digits
from itrd_distill.data.images import Batch, FileImages, ImageData, Images, MemoryImages, loader

__all__ = ["Batch", "FileImages", "ImageData", "Images", "MemoryImages", "create_data", "data_names", "loader"]

# name → source(root, download, **options)
_SOURCES: dict[str, Callable[..., ImageData]] = {
    "digits": lambda root, download, **options: digits(**options),
    "cifar10": sources.cifar10,
    "cifar100": sources.cifar100,
    "stl10": sources.stl10,
    "fashion_mnist": sources.fashion_mnist,
    "tiny_imagenet": sources.tiny_imagenet,
    "imagenet": sources.imagenet,
    "packed_jpeg": sources.packed_jpeg,
}


def data_names() -> list[str]:
    return list(_SOURCES)


def create_data(name: str, root: str | Path = "data", download: bool = False, **options) -> ImageData:
    """The training and test images of a data set.

    Args:
        name: of the data set.
        root: folder that holds its files.
        download: let torchvision fetch what is not there.
        options: of the source, such as train_images.

    Raises:
        ValueError: no data set has this name or these options; the message lists what there is.
        FileNotFoundError: its files are not in `root`; the message names them.
    """
    if name not in _SOURCES:
        raise ValueError(f"data must be one of {', '.join(data_names())}; got {name!r}")
    source = digits if name == "digits" else _SOURCES[name]
    signature = inspect.signature(source).parameters
    taken = [option for option in signature if option not in ("root", "download")]
    for option in options:
        if option not in taken:
            raise ValueError(f"data {name} takes the options {', '.join(taken)}; got {option!r}")
    for option in taken:
        if signature[option].default is inspect.Parameter.empty and option not in options:
            raise ValueError(f"data {name} needs the option {option}: give --data.options.{option}")
    return _SOURCES[name](Path(root), download, **options)
