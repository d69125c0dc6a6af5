"""Images held in memory, fetched a batch at a time, and the order in which an epoch visits them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Batch(NamedTuple):
    """images (n, c, h, w) float; labels (n,) int64; index (n,) int64: each sample's place in the training set."""

    images: Tensor
    labels: Tensor
    index: Tensor


class MemoryImages(Dataset):
    """uint8 images (N, c, h, w) and labels (N,), normalised by channel when fetched."""

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> None:
        self.images, self.labels = images, labels
        self.mean, self.std = mean.view(-1, 1, 1), std.view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        """The batch of these (epoch, index) keys: one gather instead of n small fetches."""
        index = torch.tensor([i for _, i in keys])
        images = (self.images[index].float() / 255 - self.mean) / self.std
        return Batch(images, self.labels[index], index)


class EpochSampler(DistributedSampler):
    """Yields (epoch, index), so that what happens to an image is a function of seed, epoch and image alone.

    Nothing depends on how many random numbers were drawn before: a resumed run sees what an unbroken one sees.
    """

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


class ImageData(NamedTuple):
    """A data set: what it is called, its two splits, and what models and losses must know of it."""

    name: str
    train: MemoryImages
    test: MemoryImages
    num_classes: int

    @property
    def train_labels(self) -> Tensor:
        return self.train.labels


def loader(
    dataset: Dataset,
    batch_size: int,
    *,
    train: bool,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> DataLoader:
    """Batches in an order that seed and epoch fix; incomplete training batches are dropped, the losses need n ≥ 2."""
    sampler = EpochSampler(dataset, world_size, rank, shuffle=train, seed=seed, drop_last=train)
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=train,
        collate_fn=_as_it_is,
    )


def _as_it_is(batch: Batch) -> Batch:
    return batch
