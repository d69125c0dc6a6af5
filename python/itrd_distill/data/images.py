"""Images held in memory or read from files, fetched a batch at a time in an order that seed and epoch fix."""

import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchvision.transforms import v2

from itrd_distill.data.augment import crop_and_flip, draw
from itrd_distill.data.decode import decode


class Batch(NamedTuple):
    """images (n, c, h, w) float; labels (n,) int64; index (n,) int64: each sample's place in the training set."""

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # stands in for tuple.index, which nobody calls


class Images(Dataset):
    """labels (N,) int64, and batches of images by keys (epoch, index); `seed` belongs to the augmentation.

    augmented: whether an image looks different in every epoch.
    """

    labels: Tensor
    augmented = True
    seed = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        raise NotImplementedError

    def made_from(self) -> Iterator[Tensor | str]:
        """Everything beside the labels that decides what the images look like, for a digest."""
        raise NotImplementedError


class MemoryImages(Images):
    """uint8 images (N, c, h, w), normalised by channel when fetched, and cropped and flipped if `augmented`."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, augmented: bool = False) -> None:
        if len(images) != len(labels):
            raise ValueError(f"there are {len(images)} images but {len(labels)} labels")
        self.images, self.labels = images, labels
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        self.augmented = augmented

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        index = torch.tensor([i for _, i in keys])
        images = self.images[index]
        if self.augmented:
            images = crop_and_flip(images, self.seed, keys[0][0], index.numpy())
        return Batch((images.float() / 255 - self.mean) / self.std, self.labels[index], index)

    def made_from(self) -> Iterator[Tensor | str]:
        yield from (self.images, self.mean, self.std)
        yield f"augmented {self.augmented}"


class FileImages(Images):
    """Image files, transformed one by one; the random numbers of a transform are those of its image and epoch.

    Args:
        files: of the images.
        labels: of the images.
        transform: of an image in RGB.
        plain: takes its place while `augmented` is off, where `transform` draws random numbers.
    """

    def __init__(
        self, files: list[Path], labels: Tensor, transform: v2.Transform, plain: v2.Transform | None = None
    ) -> None:
        self.files, self.labels, self.transform, self.plain = files, labels, transform, plain or transform

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        images, transform = [], self.transform if self.augmented else self.plain
        for epoch, i in keys:
            image = decode(self.files[i], str(self.files[i]))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(draw(self.seed, epoch, np.array([i]))[0] >> np.uint64(1)))
                images.append(transform(image))
        index = torch.tensor([i for _, i in keys])
        return Batch(torch.stack(images), self.labels[index], index)

    def made_from(self) -> Iterator[Tensor | str]:
        yield f"{self.transform} {self.plain}"
        yield self._listing

    @cached_property
    def _listing(self) -> str:
        # Nobody reads all of ImageNet at each start; a million calls of stat are enough to be made once.
        digest = hashlib.sha256()
        for file in self.files:
            held = file.stat()
            digest.update(
                f"{os.path.abspath(file)} {held.st_size} {held.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        return digest.hexdigest()


class ImageData(NamedTuple):
    """A data set: how it is called in tables, its two splits, the number of classes."""

    name: str
    train: Images
    test: Images
    num_classes: int


class EpochSampler(DistributedSampler):
    """Yields (epoch, index), so that what happens to an image is a function of seed, epoch and image alone.

    Nothing depends on how many random numbers were drawn before: a resumed run sees what an unbroken one sees.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


def loader(
    dataset: Images,
    batch_size: int,
    *,
    train: bool,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> DataLoader:
    """Batches in an order that seed and epoch fix; incomplete training batches are dropped, the losses need n ≥ 2."""
    dataset.seed = seed
    if train and len(dataset) < batch_size * world_size:
        raise ValueError(
            f"data.batch_size is {batch_size} on each of {world_size} processes, "
            f"but there are only {len(dataset)} training images"
        )
    sampler = EpochSampler(dataset, world_size, rank, shuffle=train, seed=seed, drop_last=train)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=train,
        collate_fn=_as_it_is,
        # Its own, lest when an iterator is made, which a resumed run does elsewhere, shift what the losses draw.
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )


def _as_it_is(batch: Any) -> Any:
    # `Images` give whole batches, where DataLoader expects a list of samples.
    return batch
