"""What results were made from, as digests: a model's weights, and the images and labels of a data set."""

import hashlib

import torch
from torch import Tensor, nn

from itrd_distill.data import ImageData

LENGTH = 16


def weights_digest(model: nn.Module) -> str:
    """16 hexadecimal digits of the names, shapes, types and values of a model's weights and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype}".encode())
        _add(digest, value)
    return digest.hexdigest()[:LENGTH]


def fingerprint(model: nn.Module, data: ImageData, *rest: object) -> str:
    """16 hexadecimal digits for what a model, by its weights and its layers, says of these images and labels."""
    made_from = weights_digest(model), repr(model), data_digest(data), *rest
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:LENGTH]


def data_digest(data: ImageData) -> str:
    """16 hexadecimal digits of both splits: the bytes of arrays, but path, size and time of change of files."""
    digest = hashlib.sha256(f"{data.num_classes}".encode())
    for split in (data.train, data.test):
        _add(digest, split.labels)
        for part in split.made_from():
            if isinstance(part, Tensor):
                _add(digest, part)
            else:
                digest.update(f"{part}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:LENGTH]


def _add(digest, value: Tensor) -> None:
    value = value.detach().cpu().contiguous()
    digest.update(str(tuple(value.shape)).encode())
    digest.update(value.reshape(-1).view(torch.uint8).numpy())
