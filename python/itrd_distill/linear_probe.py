"""Transfer: a linear classifier on the frozen features of a trained model, on other images (section 5.1, Table 4)."""

from collections.abc import Iterator
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn

from itrd_distill.data import Batch, ImageData, Images, create_data, loader
from itrd_distill.stopping import looking
from itrd_distill.training.files import load_model
from itrd_distill.training.kept import kept
from itrd_distill.training.matching import check_fit, widths
from itrd_distill.training.provenance import fingerprint
from itrd_distill.training.record import digests_of
from itrd_distill.training.result import RunResult
from itrd_distill.training.run import train
from itrd_distill.training.settings import Recipe

FEATURES = "features.pt"


class FeatureVectors(Images):
    """Features (N, d) and labels (N,), in the place of images."""

    augmented = False

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features, self.labels = features, labels

    def __getitems__(self, keys: list[tuple[int, int]]) -> Batch:
        index = torch.tensor([i for _, i in keys])
        return Batch(self.features[index], self.labels[index], index)

    def made_from(self) -> Iterator[Tensor | str]:
        yield self.features


def train_probe(
    recipe: Recipe,
    weights: Path,
    directory: Path,
    data: ImageData | None = None,
    digests: dict[str, str] | None = None,
) -> RunResult:
    """Train a linear classifier on the penultimate features of `recipe.student` with these weights.

    The features of the images, which are neither cropped nor flipped, are computed once and kept in features.pt.
    """
    data = data or create_data(recipe.data.name, recipe.data.root, recipe.data.download, **recipe.data.options)
    # The classifier that is left behind may have had any number of classes.
    model = load_model(weights, recipe.student)
    check_fit(model, f"student {recipe.student}", data, classes=False)
    digests = digests or digests_of(data, model=model)
    features = cached_features(model, data, recipe, directory / FEATURES)
    L.seed_everything(recipe.seed, verbose=False)
    student = nn.Linear(features.train.__getitems__([(0, 0)]).images.shape[1], data.num_classes)
    _, result = train(recipe, directory, data=features, student=student, digests=digests)
    return result


def cached_features(model: nn.Module, data: ImageData, recipe: Recipe, path: Path) -> ImageData:
    """The data set with features for images; read from `path` if they are those of this model and these images."""
    splits = {"train": data.train, "test": data.test}
    _, width = widths(model, data.train)
    held = kept(
        path,
        fingerprint(model, data),
        {name: (len(images), width) for name, images in splits.items()},
        lambda: {name: extract(model, images, recipe)["features"] for name, images in splits.items()},
        "name another folder by --out",
    )
    return data._replace(
        train=FeatureVectors(held["train"], data.train.labels), test=FeatureVectors(held["test"], data.test.labels)
    )


@torch.inference_mode()
def extract(model: nn.Module, images: Images, recipe: Recipe) -> dict[str, Tensor]:
    """Penultimate features and labels of all images, in their order and as they are."""
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.trainer.accelerator != "cpu" else "cpu")
    model.eval().to(device)
    augmented, images.augmented = images.augmented, False
    try:
        batches = loader(images, recipe.data.test_batch_size, train=False, workers=recipe.data.workers)
        found = [
            (model(b.images.to(device), return_features=True)[1].penultimate.cpu(), b.labels) for b in looking(batches)
        ]
    finally:
        images.augmented = augmented
    return {"features": torch.cat([z for z, _ in found]), "labels": torch.cat([labels for _, labels in found])}
