"""Whether images, labels and classes go together, before anything is made of them."""

from torch import Tensor


def check_classes(number: int, called: str) -> None:
    """Raise a ValueError, which names what has the classes, where there is nothing to tell apart."""
    if number < 2:
        raise ValueError(f"{called}: there must be two classes at least, got {number}")


def check_split(images: int, labels: Tensor, num_classes: int, called: str, labels_called: str) -> None:
    """There are classes and images, as many labels, and every label is one of the classes.

    Args:
        images: how many.
        labels: (N,) one for each.
        num_classes: labels count from 0 to one less.
        called, labels_called: how an error names images and labels.

    Raises:
        ValueError: it is otherwise; the message names the first label that is wrong.
    """
    check_classes(num_classes, called)
    if images == 0:
        raise ValueError(f"{called}: there are no images")
    if labels.shape != (images,):
        raise ValueError(f"{labels_called} has shape {tuple(labels.shape)}, but there are {images} images in {called}")
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{labels_called} must hold whole numbers, got {labels.dtype}")
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"{labels_called}[{first}] is {int(labels[first])}, but the {num_classes} classes are 0 to "
            f"{num_classes - 1} ({len(wrong)} of {images} labels are outside)"
        )
