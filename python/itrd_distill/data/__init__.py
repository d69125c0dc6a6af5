"""Data sets by the names that recipes give them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from itrd_distill.data import sources
from itrd_distill.data.digits import digits
from itrd_distill.data.images import Batch, FileImages, ImageData, Images, MemoryImages, loader
from itrd_distill.options import check_options

__all__ = [
    "Batch",
    "FileImages",
    "ImageData",
    "Images",
    "MemoryImages",
    "check_source",
    "create_data",
    "data_names",
    "loader",
]

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
    check_source(name, options)
    return _SOURCES[name](Path(root), download, **options)


def check_source(name: str, options: Mapping[str, object]) -> None:
    """Raise the ValueError of `create_data` for this name or these options, without a look at the files."""
    if name not in _SOURCES:
        raise ValueError(f"data must be one of {', '.join(data_names())}; got {name!r}")
    source = digits if name == "digits" else _SOURCES[name]
    check_options(f"data {name}", "data.options.", source, options, ("root", "download"))
