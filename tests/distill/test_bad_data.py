"""Images, labels and classes that do not fit: one line that names the file, the array or the image."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from made_images import jpeg, one_line, write_tree

from itrd_distill.cli import main
from itrd_distill.data import create_data, sources
from itrd_distill.data.memory import in_memory


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (packed(labels=[0, 1, 3, 4]), r"train_labels\[2\] is 3, but the 3 classes are 0 to 2 \(2 of 4"),
        (packed(labels=[0, -1, 0, 0]), r"train_labels\[1\] is -1, but"),
        (packed(labels=[0, 1, 2]), r"train_labels has shape \(3,\), but there are 4 images"),
        (packed(labels=[0.0, 1.0, 2.0, 0.5]), "train_labels must be .N,. of whole numbers, got .4,. float64"),
        ({"test_labels": np.array([[0], [1]])}, r"test_labels must be .* got \(2, 1\) int64"),
        ({"test_labels": np.array([0, 2**63], np.uint64)}, r"test_labels\[1\] is -9223372036854775808"),
        ({"classes": np.array(3)}, r"classes must be \(C,\), C ≥ 2, got \(\) int64"),
        ({"classes": np.array([])}, "classes must be"),
        ({"classes": np.array(["r"])}, r"classes must be \(C,\), C ≥ 2, got \(1,\)"),
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
        (
            lambda root: [shutil.rmtree(root / part / "a") for part in ("train", "val")],
            ValueError,
            "/train: there must be two classes at least, got 1",
        ),
    ],
)
def test_trees_that_do_not_fit_are_named(change, error, message, tmp_path):
    change(write_tree(tmp_path))
    with pytest.raises(error, match=message) as raised:
        create_data("imagenet", tmp_path, size=32)
    one_line(raised)


def test_labels_of_arrays_in_memory_are_checked():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"x: test labels\[3\] is 2, but the 2 classes are 0 to 1"):
        in_memory("x", (images, torch.arange(4) % 2), (images, torch.tensor([0, 1, 1, 2])), 2)


def test_one_class_is_none():
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="x: training images: there must be two classes at least, got 1"):
        in_memory("x", (images, labels), (images, labels), 1)


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
