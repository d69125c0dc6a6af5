"""The teacher's outputs on disk: equal to running it, computed once for each view, read by what needs no maps."""

from dataclasses import replace

import pytest
import torch

from itrd_distill.data import create_data
from itrd_distill.losses import Outputs, create_loss
from itrd_distill.models import Features, create_model
from itrd_distill.training.run import probe, train
from itrd_distill.training.settings import DataSettings, LossSettings, Recipe, TeacherSettings, TrainerSettings

RECIPE = Recipe(
    student="convnet_8_16",
    loss=LossSettings("crd", options={"negatives": 20}),
    data=DataSettings("digits", batch_size=32),
    trainer=TrainerSettings(epochs=3, accelerator="cpu"),
)

NO_MAPS = ["kd", "cc", "rkd", "pkt", "crd", "wcord", "itrd"]


class Counted(torch.nn.Module):
    """A teacher that counts the images it is shown."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher, self.images = teacher, 0

    def forward(self, x, return_features=False):
        self.images += len(x)
        return self.teacher(x, return_features=return_features)


def cached(recipe, folder):
    return replace(recipe, teacher=TeacherSettings(cache=str(folder)))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("loss", ["crd", "itrd"])
def test_a_cached_teacher_teaches_the_same(loss, augmented, precision, data, teacher, tmp_path):
    data.train.augmented = augmented
    recipe = replace(RECIPE, trainer=replace(RECIPE.trainer, precision=precision))
    recipe = replace(recipe, loss=LossSettings(loss, options=RECIPE.loss.options if loss == "crd" else {}))
    expected, _ = train(recipe, tmp_path / "plain", data=data, teacher=teacher)
    for _ in range(2):  # the cache is filled, then read
        found, _ = train(cached(recipe, tmp_path / "cache"), tmp_path / "cached", data=data, teacher=teacher)
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("augmented", "files"), [(False, 1), (True, 3)])
def test_every_view_is_computed_once(augmented, files, data, teacher, tmp_path):
    data.train.augmented, counted = augmented, Counted(teacher)
    for loss in ("kd", "itrd", "crd"):
        options = RECIPE.loss.options if loss == "crd" else {}
        recipe = cached(replace(RECIPE, loss=LossSettings(loss, options=options)), tmp_path / "cache")
        train(recipe, tmp_path / loss, data=data, teacher=counted)
    # Two images more a run, from which the loss learns the shapes.
    assert counted.images == 100 * files + 3 * 2
    assert len(list((tmp_path / "cache").glob("*/*.pt"))) == files


def test_other_seeds_teachers_and_images_have_files_of_their_own(data, teacher, tmp_path):
    recipe = cached(replace(RECIPE, trainer=replace(RECIPE.trainer, epochs=1)), tmp_path / "cache")
    other_data, other = create_data("digits", train_images=120), create_model("convnet_32_64", 10)
    data.train.augmented = other_data.train.augmented = True
    train(recipe, tmp_path / "a", data=data, teacher=teacher)
    train(replace(recipe, seed=1), tmp_path / "b", data=data, teacher=teacher)
    train(recipe, tmp_path / "c", data=data, teacher=other)
    train(recipe, tmp_path / "d", data=other_data, teacher=teacher)
    folders = list((tmp_path / "cache").iterdir())
    assert sorted(len(list(folder.glob("*.pt"))) for folder in folders) == [1, 1, 2]


@pytest.mark.parametrize("loss", NO_MAPS)
def test_a_loss_that_says_it_reads_no_maps_reads_none(loss, data, teacher, tmp_path):
    student = create_model("convnet_8_16", 10)
    options = {"negatives": 9} if loss in ("crd", "wcord") else {}
    criterion = create_loss(loss, probe(student, teacher, data), **options)
    batch = data.train.__getitems__([(0, i) for i in range(8)])
    with torch.no_grad():
        outputs = Outputs(*teacher.eval()(batch.images, return_features=True))
    bare = Outputs(outputs.logits, Features((), outputs.features.penultimate))
    said = Outputs(*student(batch.images, return_features=True))
    assert not criterion.reads_maps
    assert criterion(said, bare, batch).total.isfinite()


def test_a_loss_on_maps_runs_the_teacher(data, teacher, tmp_path):
    recipe = replace(RECIPE, loss=LossSettings("at"), trainer=replace(RECIPE.trainer, epochs=1))
    expected, _ = train(recipe, tmp_path / "plain", data=data, teacher=teacher)
    found, _ = train(cached(recipe, tmp_path / "cache"), tmp_path / "cached", data=data, teacher=teacher)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert not (tmp_path / "cache").exists()
