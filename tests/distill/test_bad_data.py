"""Images, labels and classes that do not fit: one line that names the file, the array or the image."""

import io
import itertools
import pickle
import re
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from itrd_distill.cli import main
from itrd_distill.data import create_data, loader, sources
from itrd_distill.data.decode import UnreadableImage, decode
from itrd_distill.data.images import FileImages, ImageData, MemoryImages
from itrd_distill.data.memory import in_memory
from itrd_distill.models import create_model
from itrd_distill.probe import cached_features
from itrd_distill.training.matching import check_fit, load_teacher
from itrd_distill.training.run import train
from itrd_distill.training.settings import DataSettings, LossSettings, Recipe, TeacherSettings, TrainerSettings

RANDOM = np.random.default_rng(0)


def jpeg(width=16, height=16):
    stream = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def packed(train=None, test=None, labels=(0, 1, 2, 1)):
    """Arrays of a whole file of four training images and two test images in three classes."""
    arrays = {"classes": np.array(list("rgb"))}
    for split, files, of in (("train", train or [jpeg()] * 4, labels), ("test", test or [jpeg()] * 2, [0, 1])):
        arrays |= {
            f"{split}_jpeg": np.frombuffer(b"".join(files), np.uint8),
            f"{split}_offsets": np.cumsum([0, *map(len, files)]),
            f"{split}_labels": np.array(of),
        }
    return arrays


WHOLE = packed()


def one_line(error):
    assert "\n" not in str(error.value), error.value
    assert len(str(error.value)) < 500
    return str(error.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (packed(labels=[0, 1, 3, 4]), r"train_labels\[2\] is 3, but the 3 classes are 0 to 2 \(2 of 4"),
        (packed(labels=[0, -1, 0, 0]), r"train_labels\[1\] is -1, but"),
        (packed(labels=[0, 1, 2]), r"train_labels has shape \(3,\), but there are 4 images"),
        (packed(labels=[0.0, 1.0, 2.0, 0.5]), "train_labels must be .N,. of whole numbers, got .4,. float64"),
        ({"test_labels": np.array([[0], [1]])}, r"test_labels must be .* got \(2, 1\) int64"),
        ({"test_labels": np.array([0, 2**63], np.uint64)}, r"test_labels\[1\] is -9223372036854775808"),
        ({"classes": np.array(3)}, r"classes must be \(C,\), C ≥ 1, got \(\) int64"),
        ({"classes": np.array([])}, "classes must be"),
        ({"classes": np.array([None])}, "cannot be read as an .npz of plain arrays"),
        ({"train_jpeg": WHOLE["train_jpeg"].astype(np.int64)}, "train_jpeg must be .bytes,. uint8, got .* int64"),
        ({"train_offsets": WHOLE["train_offsets"][::-1]}, r"train_offsets must rise, but \[1\] is"),
        ({"train_offsets": np.array([0, 5, 5, 9, 12])}, r"train_offsets must rise, but \[2\] is 5 after 5"),
        ({"train_offsets": WHOLE["train_offsets"] + 10}, "train_offsets go from 10 to .* bytes"),
        ({"train_offsets": WHOLE["train_offsets"] - 1}, "train_offsets go from -1 to"),
        ({"train_offsets": np.array([0])}, "there are no images: train_offsets has 1 entries"),
        ({"test_offsets": WHOLE["test_offsets"] + 0.5}, "test_offsets must be .* got .3,. float64"),
        (packed([jpeg(), jpeg(), jpeg(20, 12), jpeg()]), r"0 of 16×16 and 2 of 20×12 .*--data.options.size"),
        (packed([jpeg(), jpeg()[:200], jpeg(), jpeg()]), "train image 1 cannot be read as an image .*(?i:truncated)"),
        (packed(test=[jpeg(), b"no image at all"]), "test image 1 cannot be read as an image .*no format that Pillow"),
    ],
)
def test_packed_arrays_that_do_not_fit_are_named(changed, message, tmp_path):
    np.savez(tmp_path / "x.npz", **{**WHOLE, **changed})
    with pytest.raises(ValueError, match=f"x.npz.*{message}") as raised:
        create_data("packed_jpeg", tmp_path, file="x.npz")
    one_line(raised)


def test_images_of_several_sizes_are_resized_if_asked(tmp_path):
    """Each by itself, those of the asked size not at all; images of one size are resized together as before."""
    files = [jpeg(16, 16), jpeg(24, 12), jpeg(8, 8), jpeg(16, 16)]
    np.savez(tmp_path / "x.npz", **packed(files))
    mixed = create_data("packed_jpeg", tmp_path, file="x.npz", size=8)
    for file, image in zip(files, mixed.train.images, strict=True):
        np.savez(tmp_path / "one.npz", **packed([file] * 4))
        alone = create_data("packed_jpeg", tmp_path, file="one.npz", size=8)
        assert torch.equal(alone.train.images[0], image)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", "cut", "overwritten", "one array"])
def test_damaged_packed_files_are_named(content, tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **WHOLE)
    whole = path.read_bytes()
    if content == "one array":
        np.save(path.open("wb"), np.zeros(3))
    else:
        changed = {"cut": whole[:-100], "overwritten": whole[:300] + bytes(300) + whole[600:]}
        path.write_bytes(changed.get(content, content))
    with pytest.raises(ValueError, match="x.npz cannot be read as an .npz") as raised:
        create_data("packed_jpeg", tmp_path, file="x.npz")
    one_line(raised)


def test_options_that_are_needed_are_named(tmp_path):
    with pytest.raises(SystemExit, match="data packed_jpeg needs the option data.options.file, text"):
        main(["train", "--data.name", "packed_jpeg", "--out", str(tmp_path / "run")])


def write_tiny(folder, annotations):
    for name in ("n01", "n02"):
        (folder / "train" / name / "images").mkdir(parents=True)
        (folder / "train" / name / "images" / "a.JPEG").write_bytes(jpeg(64, 64))
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "val" / "images" / "v.JPEG").write_bytes(jpeg(64, 64))
    (folder / "val" / "val_annotations.txt").write_bytes(annotations)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (b"v.JPEG\tn01\t0\nv.JPEG\n", "val_annotations.txt, line 2 must read FILE.*got 'v.JPEG'"),
        (b"v.JPEG\tn03\t0\n", "line 1 must read .* one of the 2 classes"),
        (b"v.JPEG n01\n", "line 1"),
        (b"\xff\xfe\x00", "line 1"),
        (b"", "lists no images"),
        (b"w.JPEG\tn01\n", "w.JPEG cannot be read as an image .*No such file"),
    ],
)
def test_annotations_of_tiny_imagenet_are_checked(annotations, message, tmp_path):
    write_tiny(tmp_path / "tiny-imagenet-200", annotations.replace(b" \\t", b"\t"))
    with pytest.raises(ValueError, match=message) as raised:
        create_data("tiny_imagenet", tmp_path)
    one_line(raised)


def test_a_class_without_images_is_named(tmp_path):
    write_tiny(tmp_path / "tiny-imagenet-200", b"v.JPEG\tn01\n")
    (tmp_path / "tiny-imagenet-200" / "train" / "n02" / "images" / "a.JPEG").unlink()
    with pytest.raises(ValueError, match="train/n02 holds no"):
        create_data("tiny_imagenet", tmp_path)


def write_tree(root, names=("a", "b"), images=4):
    for part, name in itertools.product(("train", "val"), names):
        (root / part / name).mkdir(parents=True)
        for i in range(images):
            (root / part / name / f"{i}.JPEG").write_bytes(jpeg(40, 40))
    return root


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda root: (root / "val" / "c").mkdir(), FileNotFoundError, "val cannot be read .*classes c"),
        (lambda root: shutil.rmtree(root / "train" / "a"), ValueError, "same classes, but 1 are in one alone: a"),
        (
            lambda root: [shutil.rmtree(root / "train" / name) for name in "ab"],
            FileNotFoundError,
            "train cannot be read .*class folder",
        ),
        (lambda root: shutil.rmtree(root / "val"), FileNotFoundError, "ImageNet is not in"),
    ],
)
def test_trees_that_do_not_fit_are_named(change, error, message, tmp_path):
    change(write_tree(tmp_path))
    with pytest.raises(error, match=message) as raised:
        create_data("imagenet", tmp_path, size=32)
    one_line(raised)


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


def test_labels_of_arrays_in_memory_are_checked():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"x: test labels\[3\] is 2, but the 2 classes are 0 to 1"):
        in_memory("x", (images, torch.arange(4) % 2), (images, torch.tensor([0, 1, 1, 2])), 2)


def write_idx(path, array):
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.full(20, 11, np.uint8), r"train-labels-idx1-ubyte\[0\] is 11, but the 10"),
        ("t10k-labels-idx1-ubyte", np.zeros(3, np.uint8), r"t10k-labels-idx1-ubyte has shape \(3,\)"),
        ("train-images-idx3-ubyte", np.zeros((20, 28), np.uint8), r"must hold images \(N, h, w\), got \(20, 28\)"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03\0", "is no IDX file"),
        ("train-images-idx3-ubyte.gz", b"\x1f\x8b\x08\0cut", "cut short or damaged"),
        ("train-images-idx3-ubyte.gz", b"not gzip", "cut short or damaged"),
    ],
)
def test_fashion_mnist_that_does_not_fit_is_named(name, array, message, tmp_path):
    for split in ("train", "t10k"):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte", np.zeros((20, 28, 28), np.uint8))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.arange(20, dtype=np.uint8) % 10)
    if name.endswith(".gz"):
        (tmp_path / name.removesuffix(".gz")).unlink()
    (tmp_path / name).write_bytes(array) if isinstance(array, bytes) else write_idx(tmp_path / name, array)
    with pytest.raises(ValueError, match=f"{name}.*{message}" if "is no" in message else message) as raised:
        create_data("fashion_mnist", tmp_path)
    assert name in one_line(raised)


def test_batches_of_unreadable_images_cross_processes_in_a_line(tmp_path):
    """The message that a loader's process hands on holds a traceback; what is left of it is the line."""
    error = pickle.loads(pickle.dumps(UnreadableImage("a cannot be read")))
    assert str(error) == "a cannot be read"
    images = FileImages([tmp_path / "gone.JPEG"], torch.zeros(1, dtype=torch.long), lambda image: image)
    with pytest.raises(UnreadableImage, match=rf"^{re.escape(str(tmp_path))}/gone.JPEG cannot be read as an image"):
        next(iter(loader(images, 1, train=False, workers=1)))


def test_an_archive_that_leads_out_of_its_folder_is_not_unpacked(tmp_path):
    """torchvision unpacks by tarfile's extractall, which before Python 3.14 trusts the names in an archive."""
    archive, outside = tmp_path / "x.tar.gz", tmp_path / "outside"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo("../outside")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    (tmp_path / "folder").mkdir()
    extract = sources.datasets.utils.extract_archive
    with pytest.raises(tarfile.OutsideDestinationError):
        sources._found(lambda: extract(str(archive), str(tmp_path / "folder")), "x", tmp_path, "files")
    assert not outside.exists()
    assert tarfile.TarFile.extraction_filter is None
