"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 pixels that come with the package."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from itrd_distill.data.images import ImageData
from itrd_distill.data.memory import colour, in_memory, resize
from itrd_distill.options import Count

TEST_IMAGES = 597


def digits(train_images: Count | None = None, validation: bool = False, enlarged: bool = False) -> ImageData:
    """A fixed stratified split: 1,200 images for training, 597 for testing.

    Args:
        train_images: keep only so many of the training images; None keeps all.
        validation: take the last quarter of the training images in place of the test images, for choosing settings.
        enlarged: to 32×32 pixels of three channels, for the models that want those.
    """
    pixels, labels = load_digits(return_X_y=True)
    # Pixels count ink from 0 to 16.
    images = torch.from_numpy(pixels).mul(255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    labels = torch.from_numpy(labels).long()
    if enlarged:
        images = resize(colour(images), 32)
    train, test = _split(range(len(labels)), labels, TEST_IMAGES)
    if validation:
        train, test = _split(train, labels, len(train) // 4)
    # Crops would cut strokes of 8×8 digits, and mirrored digits are none.
    return in_memory(
        "digits",
        (images[train], labels[train]),
        (images[test], labels[test]),
        10,
        augmented=False,
        train_images=train_images,
    )


def _split(index, labels: torch.Tensor, held_out: int):
    return train_test_split(index, test_size=held_out, random_state=0, stratify=labels[index])
