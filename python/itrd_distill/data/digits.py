"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 pixels that come with the package."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from itrd_distill.data.images import ImageData, MemoryImages

TEST_IMAGES = 597


def digits(train_images: int | None = None, validation: bool = False) -> ImageData:
    """A fixed stratified split: 1,200 images for training, 597 for testing.

    Args:
        train_images: keep only so many of the training images (stratified); None keeps all.
        validation: take the last quarter of the training images in place of the test images, for choosing settings.
    """
    pixels, labels = load_digits(return_X_y=True)
    # Pixels count ink from 0 to 16.
    images = torch.from_numpy(pixels).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.from_numpy(labels).long()
    train, test = _split(torch.arange(len(labels)), labels, TEST_IMAGES)
    if validation:
        train, test = _split(train, labels, len(train) // 4)
    if train_images is not None and train_images != len(train):
        if not 10 <= train_images < len(train):
            raise ValueError(f"train_images must lie between 10 and {len(train)}, got {train_images}")
        train, _ = _split(train, labels, len(train) - train_images)
    mean, std = torch.tensor([0.305]), torch.tensor([0.376])
    return ImageData(
        "digits",
        MemoryImages(images[train], labels[train], mean, std),
        MemoryImages(images[test], labels[test], mean, std),
        10,
    )


def _split(index, labels, held_out: int):
    kept, held = train_test_split(index.numpy(), test_size=held_out, random_state=0, stratify=labels[index].numpy())
    return torch.from_numpy(kept), torch.from_numpy(held)
