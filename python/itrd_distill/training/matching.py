"""Whether models and images fit each other, found out from a few images before anything is written."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from itrd_distill.data import ImageData, Images
from itrd_distill.data.check import check_split
from itrd_distill.training.files import load_model
from itrd_distill.training.settings import Recipe


def check_fit(model: nn.Module, called: str, data: ImageData, classes: bool = True) -> None:
    """The data are images with labels, and the model takes them.

    Args:
        model: of images.
        called: how an error names it, such as "student resnet8".
        data: both splits are tried.
        classes: whether its logits must be as many as the data's classes.

    Raises:
        ValueError: it is otherwise; the message names the model and the shape of the images, or the label.
    """
    for images, split in ((data.train, "training"), (data.test, "test")):
        of = f"{data.name}: {split}"
        check_split(len(images), images.labels, data.num_classes, f"{of} images", f"{of} labels")
        batch = images.__getitems__([(0, i) for i in range(min(2, len(images)))]).images
        shape = "×".join(map(str, batch.shape[1:]))
        logits = _logits(
            model,
            batch,
            f"{called} does not take the {split} images of {data.name}, which are {shape} (channels × height × width)",
        )
        if classes and logits.shape[1:] != (data.num_classes,):
            raise ValueError(
                f"{called} gives logits {tuple(logits.shape[1:])}, but {data.name} has {data.num_classes} classes"
            )


def load_teacher(recipe: Recipe, data: ImageData) -> nn.Module:
    """The recipe's teacher with its checkpoint's weights, and as many classes as they have: few losses read logits."""
    if recipe.teacher.checkpoint is None or recipe.teacher.model is None:
        raise ValueError(
            f"teacher.model is {recipe.teacher.model} but teacher.checkpoint is not given: train the teacher first "
            f"(`itrd-distill train --student {recipe.teacher.model}`) and name its weights.pt"
        )
    teacher = load_model(recipe.teacher.checkpoint, recipe.teacher.model)
    check_fit(teacher, f"teacher {recipe.teacher.model}", data, classes=False)
    return teacher


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model evaluates, without gradients, and is in the mode it was in afterwards."""
    training = model.training
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        model.train(training)


def widths(model: nn.Module, images: Images) -> tuple[int, int]:
    """How many logits and how many penultimate features the model gives an image."""
    image = images.__getitems__([(0, 0)]).images.to(next(model.parameters()).device)
    with evaluating(model):
        logits, features = model(image, return_features=True)
    return logits.shape[1], features.penultimate.shape[1]


def _logits(model: nn.Module, images: Tensor, told: str) -> Tensor:
    try:
        with evaluating(model):
            return model(images)
    # What does not fit ends in exceptions of many kinds, of the model's own library too.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{told}: choose another model or other options of the data, such as size or enlarged ({reason})"
        ) from error
