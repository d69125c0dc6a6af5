"""Data sets by the names that recipes give them."""

from collections.abc import Callable

from itrd_distill.data.digits import digits
from itrd_distill.data.images import Batch, ImageData, MemoryImages, loader

__all__ = ["Batch", "ImageData", "MemoryImages", "create_data", "data_names", "loader"]

_SOURCES: dict[str, Callable[..., ImageData]] = {"digits": digits}


def data_names() -> list[str]:
    return list(_SOURCES)


def create_data(name: str, **options) -> ImageData:
    """The training and test images of a data set.

    Raises:
        ValueError: no data set has this name; the message lists those there are.
    """
    if name not in _SOURCES:
        raise ValueError(f"data must be one of {', '.join(data_names())}; got {name!r}")
    return _SOURCES[name](**options)
