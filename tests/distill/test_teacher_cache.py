"""The teacher's outputs on disk: equal to running it, computed once for each view, read by what needs no maps."""

import copy
import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from itrd_distill.data import MemoryImages, create_data
from itrd_distill.losses import Outputs, create_loss
from itrd_distill.models import Features, create_model
from itrd_distill.training.provenance import data_digest, fingerprint
from itrd_distill.training.run import example_outputs, train
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
    # Three images more a run, from which the loss and the cache learn the shapes.
    assert counted.images == 100 * files + 3 * 3
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
    criterion = create_loss(loss, example_outputs(student, teacher, data), **options)
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


@pytest.mark.parametrize("loss", ["kd", "itrd", "crd"])
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_a_cached_teacher_teaches_the_same_in_every_precision(precision, loss, data, teacher, tmp_path):
    """The outputs are kept in the run's own type, and the teacher, which other runs share, stays as it was."""
    trainer = replace(RECIPE.trainer, precision=precision, epochs=1)
    options = RECIPE.loss.options if loss == "crd" else {}
    recipe = replace(RECIPE, trainer=trainer, loss=LossSettings(loss, options=options))
    recipe = replace(recipe, data=replace(recipe.data, test_batch_size=32))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    expected, _ = train(recipe, tmp_path / "plain", data=data, teacher=teacher)
    for _ in range(2):
        found, _ = train(cached(recipe, tmp_path / "cache"), tmp_path / "cached", data=data, teacher=teacher)
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=2e-2, atol=2e-2)
    (file,) = (tmp_path / "cache").rglob("*.pt")
    dtype = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}[precision]
    held = torch.load(file, weights_only=True)
    assert (held["logits"].dtype, held["penultimate"].dtype) == (dtype, dtype)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert teacher.fc.weight.dtype == torch.float32


def entries(folder):
    return {path.relative_to(folder) for path in folder.rglob("*.pt")}


def test_other_pixels_labels_or_normalisation_have_another_entry(data, teacher, tmp_path):
    recipe = cached(replace(RECIPE, loss=LossSettings("kd")), tmp_path / "cache")
    recipe = replace(recipe, trainer=replace(recipe.trainer, epochs=1))
    seen = set()

    def changed(**parts):
        images = MemoryImages(data.train.images, data.train.labels, data.train.mean, data.train.std)
        for name, value in parts.items():
            setattr(images, name, value)
        return data._replace(train=images)

    pixels = data.train.images.clone()
    pixels[57, 0, 3, 3] += 1
    variants = [
        changed(),
        changed(images=pixels),
        changed(labels=data.train.labels.flip(0)),
        changed(mean=data.train.mean + 0.01),
        changed(std=data.train.std * 2),
    ]
    for variant in variants:
        for _ in range(2):
            train(recipe, tmp_path / "run", data=variant, teacher=teacher)
        found = entries(tmp_path / "cache")
        assert len(found - seen) == 1
        seen = found
    (tmp_path / "cache" / "stray.pt").touch()  # which nobody asks for
    train(recipe, tmp_path / "run", data=data, teacher=teacher)
    assert entries(tmp_path / "cache") - seen == {Path("stray.pt")}


def test_files_are_told_apart_by_path_size_and_time(tmp_path):
    def tree(root, colour):
        for part, name in itertools.product(("train", "val"), "ab"):
            (root / part / name).mkdir(parents=True)
            Image.new("RGB", (40, 40), colour).save(root / part / name / "0.bmp")
        return root

    def digest(root):
        return data_digest(create_data("imagenet", root, size=32))

    one, two = tree(tmp_path / "one", "red"), tree(tmp_path / "two", "blue")
    file = one / "train" / "a" / "0.bmp"
    first = digest(one)
    assert digest(one) == first != digest(two)
    assert data_digest(create_data("imagenet", one, size=64)) != first
    # The same size and other pixels: the time of change tells.
    Image.new("RGB", (40, 40), "green").save(file)
    os.utime(file, ns=(0, 12345))
    second = digest(one)
    assert second != first
    Image.new("RGB", (41, 40), "green").save(file)
    os.utime(file, ns=(0, 12345))
    assert digest(one) not in (first, second)


def test_layers_count_beside_weights(data, teacher):
    """Weights of the same names and values in another model say something else."""
    other = copy.deepcopy(teacher)
    other.blocks[0][2] = torch.nn.SiLU()
    assert fingerprint(teacher, data) == fingerprint(copy.deepcopy(teacher), data) != fingerprint(other, data)
    assert fingerprint(teacher, data, "32-true") != fingerprint(teacher, data, "bf16-true")


@pytest.mark.parametrize("augmented", [False, True])
def test_a_damaged_entry_is_made_again_with_a_line(augmented, data, teacher, tmp_path, capsys):
    data.train.augmented = augmented
    recipe = cached(replace(RECIPE, loss=LossSettings("kd")), tmp_path / "cache")
    expected, _ = train(recipe, tmp_path / "run", data=data, teacher=teacher)
    file = sorted((tmp_path / "cache").rglob("*.pt"))[-1]
    os.truncate(file, 100)
    # An epoch's file under another's name is as wrong.
    if augmented:
        shutil.copy(file.with_name("seed0-epoch0.pt"), file.with_name("seed0-epoch1.pt"))
    capsys.readouterr()
    found, _ = train(recipe, tmp_path / "run", data=data, teacher=teacher)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"itrd-distill: {file} is damaged") for line in said)
    assert any("epoch1.pt was made from other" in line for line in said) == augmented


def test_a_folder_that_cannot_be_had_is_named_before_the_training(data, teacher, tmp_path):
    (tmp_path / "cache").touch()
    recipe = cached(replace(RECIPE, loss=LossSettings("kd")), tmp_path / "cache")
    with pytest.raises(OSError, match="cache/.*/fixed.pt cannot be written .*: name another folder by --teacher.cache"):
        train(recipe, tmp_path / "run", data=data, teacher=teacher)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("loss", ["kd", "itrd"])
def test_a_teacher_of_other_classes_teaches_by_its_features(loss, data, tmp_path):
    """From its weights alone, with and without the cache."""
    torch.save(create_model("convnet_32_64", 37).state_dict(), tmp_path / "x.pt")
    recipe = replace(RECIPE, loss=LossSettings(loss), trainer=replace(RECIPE.trainer, epochs=1))
    for cache in (None, str(tmp_path / "cache")):
        recipe = replace(recipe, teacher=TeacherSettings("convnet_32_64", str(tmp_path / "x.pt"), cache))
        if loss == "itrd":
            assert train(recipe, tmp_path / "run", data=data)[1].history[0]["loss"] > 0
            continue
        with pytest.raises(
            ValueError, match="loss kd compares logits, .* teacher has 37 classes and the student 10: .*"
        ):
            train(recipe, tmp_path / "run", data=data)
