"""Images that cannot be read and models that do not take them: one line with their names, before training or in it."""

import io
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_images import RANDOM, jpeg, one_line, write_tree
from PIL import Image

from itrd_distill.cli import main
from itrd_distill.data import create_data, loader
from itrd_distill.data.decode import UnreadableImage, decode
from itrd_distill.data.images import FileImages, ImageData, MemoryImages
from itrd_distill.linear_probe import cached_features
from itrd_distill.models import create_model
from itrd_distill.training.matching import check_fit, load_teacher
from itrd_distill.training.run import train
from itrd_distill.training.settings import DataSettings, LossSettings, Recipe, TeacherSettings, TrainerSettings

BROKEN = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "text": lambda whole: b"no image",
    "overwritten": lambda whole: whole[:10] + bytes(len(whole) - 10),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_broken_images_of_any_form_are_named(form, kind, tmp_path):
    stream, path = io.BytesIO(), tmp_path / "two\nlines"
    Image.fromarray(RANDOM.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, form)
    path.write_bytes(BROKEN[kind](stream.getvalue()))
    with pytest.raises(UnreadableImage, match="two lines cannot be read as an image") as raised:
        decode(path, str(path))
    one_line(raised)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_images_of_other_kinds_become_rgb(mode, tmp_path):
    ramp = np.linspace(0, 1, 64 * 64).reshape(64, 64)
    image = Image.fromarray((ramp * 255).astype(np.uint8))
    image = Image.fromarray((ramp * 65535).astype(np.uint16)) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "x", "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    found = np.array(decode(tmp_path / "x", "x"))
    assert found.shape == (64, 64, 3)
    # In particular nothing is cut off above half of the range.
    assert abs(found.mean() / 255 - 0.5) < 0.02
    assert mode == "1" or 180 < found[48:56].mean() < 225


def test_images_of_numbers_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(UnreadableImage, match="x.tiff cannot be read .*32-bit numbers of unknown range"):
        decode(tmp_path / "x.tiff", "x.tiff")


def test_an_image_that_is_a_bomb_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (tmp_path / "x.JPEG").write_bytes(jpeg(64, 64))
    with pytest.raises(UnreadableImage, match="x.JPEG cannot be read .*decompression bomb"):
        decode(tmp_path / "x.JPEG", str(tmp_path / "x.JPEG"))


TREE = Recipe(
    student="resnet8",
    data=DataSettings("imagenet", batch_size=4, test_batch_size=4, options={"size": 32}),
    trainer=TrainerSettings(epochs=1, accelerator="cpu"),
)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("when", ["training", "validation", "teacher's cache", "features"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_broken_image_is_named_whoever_reads_it(when, workers, tmp_path):
    root = write_tree(tmp_path / "images")
    file = root / ("val" if when == "validation" else "train") / "b" / "3.JPEG"
    recipe = replace(TREE, data=replace(TREE.data, workers=workers))
    data, model = create_data("imagenet", root, size=32), create_model("resnet8", 2)
    file.write_bytes(file.read_bytes()[:500])
    if when == "teacher's cache":
        recipe = replace(recipe, loss=LossSettings("kd"), teacher=TeacherSettings(cache=str(tmp_path / "cache")))
    read = {"features": lambda: cached_features(model, data, recipe, tmp_path / "features.pt")}
    with pytest.raises(ValueError, match=f"{file} cannot be read as an image .*(?i:truncated)") as raised:
        read.get(when, lambda: train(recipe, tmp_path / "run", data=data, teacher=model))()
    one_line(raised)
    assert not (tmp_path / "features.pt").exists()
    assert not list(tmp_path.rglob("cache/*/*.pt"))
    assert data.train.augmented


def test_images_that_are_not_to_be_augmented_look_as_in_a_test(tmp_path):
    data = create_data("imagenet", write_tree(tmp_path), size=32)
    data.train.augmented = False
    expected = FileImages(data.train.files, data.train.labels, data.test.transform)
    keys = [(3, i) for i in range(8)]
    assert torch.equal(data.train.__getitems__(keys).images, expected.__getitems__(keys).images)


def memory_images(n=8, shape=(3, 8, 8), labels=None):
    images = torch.from_numpy(RANDOM.integers(0, 255, (n, *shape), dtype=np.uint8))
    labels = torch.arange(n) % 2 if labels is None else labels
    return MemoryImages(images, labels, torch.zeros(shape[0]), torch.ones(shape[0]))


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"shape": (1, 8, 8)}, {}, "student resnet8 does not take the training images of x, which are 1×8×8 "),
        ({}, {"shape": (4, 8, 8)}, "student resnet8 does not take the test images of x, which are 4×8×8 "),
        ({"labels": torch.tensor([0, 1, 2, 0, 0, 0, 0, 0])}, {}, r"x: training labels\[2\] is 2, but the 2 classes"),
        ({}, {"labels": -torch.ones(8, dtype=torch.long)}, r"x: test labels\[0\] is -1, .*8 of 8"),
        ({"labels": torch.zeros(8, 1, dtype=torch.long)}, {}, r"labels has shape \(8, 1\), but there are 8 images"),
        ({"labels": torch.zeros(8)}, {}, "training labels must hold whole numbers, got torch.float32"),
        ({}, {"n": 0}, "x: test images: there are no images"),
    ],
)
def test_models_and_images_that_do_not_fit_are_named(train, test, message):
    data = ImageData("x", memory_images(**train), memory_images(**test), 2)
    with pytest.raises(ValueError, match=message) as raised:
        check_fit(create_model("resnet8", 2), "student resnet8", data)
    one_line(raised)


def test_images_and_labels_of_other_numbers_are_refused():
    with pytest.raises(ValueError, match="8 images but 7 labels"):
        memory_images(labels=torch.zeros(7, dtype=torch.long))


def test_too_few_logits_are_named_and_a_model_that_fits_stays_as_it_was():
    data, model = ImageData("x", memory_images(1), memory_images(), 2), create_model("resnet8", 3).train()
    with pytest.raises(ValueError, match=r"student resnet8 gives logits \(3,\), but x has 2 classes"):
        check_fit(model, "student resnet8", data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    check_fit(model, "teacher", data, classes=False)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_that_takes_one_size_alone_is_named():
    pytest.importorskip("timm")
    data = ImageData("x", memory_images(2, (3, 32, 32)), memory_images(2, (3, 32, 32)), 2)
    with pytest.raises(ValueError, match="student timm/vit_tiny_patch16_224 does not take .*3×32×32") as raised:
        check_fit(create_model("timm/vit_tiny_patch16_224", 2), "student timm/vit_tiny_patch16_224", data)
    one_line(raised)


def test_a_teacher_that_does_not_take_the_images_is_named(tmp_path):
    torch.save(create_model("resnet8", 10).state_dict(), tmp_path / "x.pt")
    recipe = Recipe(teacher=TeacherSettings("resnet8", str(tmp_path / "x.pt")), loss=LossSettings("kd"))
    with pytest.raises(
        ValueError, match="teacher resnet8 does not take the training images of digits, which are 1×8×8"
    ):
        load_teacher(recipe, create_data("digits", train_images=20))


@pytest.mark.parametrize("command", ["train", "probe"])
def test_commands_say_it_in_a_line(command, tmp_path):
    torch.save(create_model("resnet8", 10).state_dict(), tmp_path / "x.pt")
    weights = ["--weights", str(tmp_path / "x.pt")] if command == "probe" else []
    with pytest.raises(SystemExit, match="^itrd-distill: student resnet8 does not take the training images of digits"):
        main([command, "--student", "resnet8", *weights, "--out", str(tmp_path / "run")])


def test_batches_of_unreadable_images_cross_processes_in_a_line(tmp_path):
    """The message that a loader's process hands on holds a traceback; what is left of it is the line."""
    error = pickle.loads(pickle.dumps(UnreadableImage("a cannot be read")))
    assert str(error) == "a cannot be read"
    images = FileImages([tmp_path / "gone.JPEG"], torch.zeros(1, dtype=torch.long), lambda image: image)
    with pytest.raises(UnreadableImage, match=rf"^{re.escape(str(tmp_path))}/gone.JPEG cannot be read as an image"):
        next(iter(loader(images, 1, train=False, workers=1)))
