"""From raw arrays to a data set in memory: subsets, sizes, colours and normalisation."""

import torch
import torch.nn.functional as F
from sklearn.model_selection import train_test_split
from torch import Tensor

from itrd_distill.data.check import check_split
from itrd_distill.data.images import ImageData, MemoryImages

Split = tuple[Tensor, Tensor]  # uint8 images (N, c, h, w), int64 labels (N,)


def in_memory(
    name: str,
    train: Split,
    test: Split,
    num_classes: int,
    *,
    size: int | None = None,
    augmented: bool = True,
    train_images: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> ImageData:
    """A data set of raw arrays.

    Args:
        name: how it is called in tables.
        train, test: images and labels.
        num_classes: number of classes.
        size: resize to so many pixels on a side; None keeps the size.
        augmented: crop and flip the training images.
        train_images: keep only so many of the training images, evenly over the classes; None keeps all.
        mean, std: by channel, of pixels from 0 to 1; None takes those of the training images.
    """
    for split, called in ((train, "training"), (test, "test")):
        check_split(len(split[0]), split[1], num_classes, f"{name}: {called} images", f"{name}: {called} labels")
    if mean is None or std is None:
        # Of all training images, so that subsets share a teacher's normalisation.
        mean, std = _mean_and_std(train[0])
    train = subset(train, train_images)
    if size is not None:
        train, test = (resize(train[0], size), train[1]), (resize(test[0], size), test[1])
    normalisation = torch.tensor(mean), torch.tensor(std)
    return ImageData(
        name,
        MemoryImages(*train, *normalisation, augmented=augmented),
        MemoryImages(*test, *normalisation),
        num_classes,
    )


def _mean_and_std(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By channel of uint8 images (N, c, h, w) as values from 0 to 1: counted, which takes little memory."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        parts = [torch.bincount(part[:, channel].flatten(), minlength=256) for part in images.split(4096)]
        counts = torch.stack(parts).sum(0)
        mean = (counts * values).sum() / counts.sum()
        means.append(mean.item())
        deviations.append(((counts * (values - mean).square()).sum() / (counts.sum() - 1)).sqrt().item())
    return tuple(means), tuple(deviations)


def subset(split: Split, count: int | None) -> Split:
    """A fixed stratified choice of `count` images."""
    images, labels = split
    if count is None or count == len(labels):
        return split
    classes, sizes = labels.unique(return_counts=True)
    if sizes.min() < 2:
        alone = int(classes[sizes.argmin()])
        raise ValueError(f"train_images {count} cannot be chosen evenly: class {alone} has one image; leave it out")
    # Every class must have one image at least, among those that are chosen and among the others.
    least, most = len(classes), len(labels) - len(classes)
    if not least <= count <= most:
        raise ValueError(f"train_images must lie between {least} and {most}, or be all {len(labels)}; got {count}")
    kept, _ = train_test_split(range(len(labels)), train_size=count, random_state=0, stratify=labels.numpy())
    return images[kept], labels[kept]


def resize(images: Tensor, size: int, chunk: int = 4096) -> Tensor:
    """uint8 images to (size, size), smoothed against aliasing, a chunk at a time."""
    if images.shape[2:] == (size, size):
        return images
    resized = (
        F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in images.split(chunk)
    )
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in resized])


def colour(images: Tensor) -> Tensor:
    """Grey images (N, 1, h, w) with three equal channels."""
    return images.expand(-1, 3, -1, -1).contiguous()
