"""Data sets: what a batch holds, how it is augmented, where files are looked for, what is said when they are absent."""

import gzip
import itertools
import pickle
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from itrd_distill.data import create_data, data_names, loader, sources
from itrd_distill.data.augment import crop_and_flip, draw
from itrd_distill.data.images import MemoryImages
from itrd_distill.data.memory import in_memory, resize, subset

RANDOM = np.random.default_rng(0)


def batch_of(dataset, n=4, epoch=0):
    return dataset.__getitems__([(epoch, i) for i in range(n)])


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def jpeg(colour, size=32):
    stream = BytesIO()
    Image.new("RGB", (size, size), colour).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_digits_split_is_stratified_and_disjoint():
    data = create_data("digits")
    assert (len(data.train), len(data.test), data.num_classes) == (1200, 597, 10)
    assert torch.bincount(data.train.labels).min() > 110
    seen = {bytes(image.numpy()) for image in data.train.images}
    assert sum(bytes(image.numpy()) in seen for image in data.test.images) == 0
    validation = create_data("digits", validation=True)
    assert (len(validation.train), len(validation.test)) == (900, 300)
    assert {bytes(image.numpy()) for image in validation.test.images} <= seen


def test_subsets_share_the_normalisation_and_the_test_images():
    full, few = create_data("digits"), create_data("digits", train_images=200)
    assert (torch.bincount(few.train.labels) - 20).abs().max() <= 1
    assert torch.equal(full.test.images, few.test.images)
    torch.testing.assert_close(batch_of(full.test).images, batch_of(few.test).images, rtol=0, atol=0)
    everything = batch_of(full.train, 1200).images
    assert everything.mean().abs() < 1e-3
    assert everything.std().item() == pytest.approx(1, abs=1e-3)


def test_enlarged_digits_fit_the_cifar_models():
    assert batch_of(create_data("digits", enlarged=True).train).images.shape == (4, 3, 32, 32)


def test_draws_are_uniform_and_differ_by_seed_epoch_and_image():
    index = np.arange(20000)
    drawn = draw(1, 2, index) % np.uint64(9)
    counts = np.bincount(drawn.astype(int), minlength=9)
    assert (np.abs(counts - 20000 / 9) < 5 * (20000 / 9) ** 0.5).all()
    for other in (draw(2, 2, index), draw(1, 3, index), draw(1, 2, index + 1)):
        same = (other % np.uint64(9) == drawn).mean()
        assert 0.08 < same < 0.14


def test_crop_and_flip_moves_whole_images():
    """Against slicing by hand, for every offset and both directions that occur."""
    images = torch.from_numpy(RANDOM.integers(1, 255, (64, 3, 8, 8), dtype=np.uint8))
    moved = crop_and_flip(images, 5, 1, np.arange(64), padding=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    kinds = set()
    for image, original in zip(moved, padded, strict=True):
        crops = [
            (top, left, original[:, top : top + 8, left : left + 8])
            for top, left in itertools.product(range(5), range(5))
        ]
        found = [(top, left, False) for top, left, crop in crops if torch.equal(image, crop)]
        found += [(top, left, True) for top, left, crop in crops if torch.equal(image, crop.flip(2))]
        assert len(found) == 1
        kinds.add(found[0])
    assert {mirrored for _, _, mirrored in kinds} == {False, True}
    assert len(kinds) > 25


def test_augmentation_depends_on_the_image_not_on_its_batch():
    images = torch.from_numpy(RANDOM.integers(0, 255, (10, 1, 8, 8), dtype=np.uint8))
    data = MemoryImages(images, torch.zeros(10, dtype=torch.long), torch.zeros(1), torch.ones(1), augmented=True)
    alone, together = data.__getitems__([(3, 7)]).images[0], batch_of(data, 10, epoch=3).images[7]
    assert torch.equal(alone, together)
    assert not torch.equal(batch_of(data, 10, epoch=4).images, batch_of(data, 10, epoch=3).images)


def test_loader_visits_every_image_once_in_an_order_of_seed_and_epoch():
    data = create_data("digits", train_images=100).train

    def order(seed, epoch, **options):
        batches = loader(data, 10, train=True, seed=seed, **options)
        batches.sampler.set_epoch(epoch)
        return torch.cat([batch.index for batch in batches]).tolist()

    assert sorted(order(0, 0)) == list(range(100))
    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1) != order(1, 1)
    assert order(0, 2, workers=1) == order(0, 2)
    halves = [order(0, 0, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(halves[0] + halves[1]) == list(range(100))


def test_too_few_images_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="batch_size is 64 .* only 50 training images"):
        loader(create_data("digits", train_images=50).train, 64, train=True)


def test_resize_averages():
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4) * 10
    assert resize(images, 4) is images
    constant = torch.full((3, 2, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(resize(constant, 3), constant[:, :, :3, :3])
    assert resize(images, 1).item() == 75


@pytest.mark.parametrize("count", [3, 37, 39, 41])
def test_impossible_subsets_are_refused(count):
    with pytest.raises(ValueError, match=f"train_images must lie between 4 and 36, or be all 40; got {count}"):
        subset((torch.zeros(40, 1, 2, 2), torch.arange(40) % 4), count)


def test_a_class_of_one_image_has_no_subset():
    with pytest.raises(ValueError, match="train_images 3 cannot be chosen evenly: class 2 has one image; leave it out"):
        subset((torch.zeros(5, 1, 2, 2), torch.tensor([0, 0, 1, 1, 2])), 3)


@pytest.mark.parametrize("count", [4, 36, 40])
def test_subsets_at_the_limits_have_every_class(count):
    labels = subset((torch.zeros(40, 1, 2, 2), torch.arange(40) % 4), count)[1]
    assert labels.bincount().tolist() == [count // 4] * 4


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("folder", ["", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_and_read(suffix, folder, tmp_path):
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: (RANDOM.integers(0, 255, (n, 28, 28)), np.arange(n) % 10) for name, n in (("train", 30), ("t10k", 20))
    }
    for name, (images, labels) in arrays.items():
        write_idx(place / f"{name}-images-idx3-ubyte{suffix}", images)
        write_idx(place / f"{name}-labels-idx1-ubyte{suffix}", labels)
    data = create_data("fashion_mnist", tmp_path, size=28)
    np.testing.assert_array_equal(data.test.images[:, 2].numpy(), arrays["t10k"][0])
    assert data.train.labels.tolist() == arrays["train"][1].tolist()
    assert batch_of(create_data("fashion_mnist", tmp_path).train).images.shape == (4, 3, 32, 32)


def test_broken_idx_files_are_named(tmp_path):
    path = tmp_path / "labels"
    write_idx(path, np.arange(20))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="labels is cut short: 15 values"):
        sources._read_idx(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="labels is no IDX file"):
        sources._read_idx(path)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_is_read_in_its_own_normalisation(name, classes, tmp_path, monkeypatch):
    """torchvision reads the pickles; only its check of the published checksums is left out."""
    kind = getattr(sources.datasets, name.upper())
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    label_key = "labels" if classes == 10 else "fine_labels"
    meta = {kind.meta["key"]: [str(i) for i in range(classes)]}
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(kind, "_load_meta", lambda self: None)
    for file, _ in [*kind.train_list, *kind.test_list]:
        pixels = np.full((classes, 3072), 255, np.uint8)
        pixels[:, 1024:] = 0
        (folder / file).write_bytes(pickle.dumps({"data": pixels, label_key: list(range(classes))}))
    data = create_data(name, tmp_path)
    assert (len(data.train), len(data.test), data.num_classes) == (classes * len(kind.train_list), classes, classes)
    image = batch_of(data.test, 1).images[0]
    mean, std = ((0.5071, 0.2675), (0.4867, 0.2565)) if classes == 100 else ((0.4914, 0.2470), (0.4822, 0.2435))
    assert image[0, 0, 0].item() == pytest.approx((1 - mean[0]) / mean[1])
    assert image[1, 5, 5].item() == pytest.approx(-std[0] / std[1])


def test_packed_jpeg_is_unpacked(tmp_path):
    colours = [(250, 5, 5), (5, 250, 5), (5, 5, 250)]
    files = [jpeg(colour) for colour in colours]
    arrays: dict[str, Any] = {"classes": np.array(["r", "g", "b"])}
    for split, order in (("train", [0, 1, 2, 1]), ("test", [2, 0])):
        chosen = [files[i] for i in order]
        arrays |= {
            f"{split}_jpeg": np.frombuffer(b"".join(chosen), np.uint8),
            f"{split}_offsets": np.cumsum([0, *map(len, chosen)]),
            f"{split}_labels": np.array(order, np.uint8),
        }
    np.savez(tmp_path / "packed.npz", **arrays)
    data = create_data("packed_jpeg", tmp_path, file="packed.npz", title="colours (JPEG)")
    assert (data.name, data.num_classes) == ("colours (JPEG)", 3)
    for dataset in (data.train, data.test):
        assert dataset.images.float().mean((2, 3)).argmax(1).tolist() == dataset.labels.tolist()
    del arrays["test_labels"]
    np.savez(tmp_path / "lacking.npz", **arrays)
    with pytest.raises(ValueError, match="lacks the arrays test_labels"):
        create_data("packed_jpeg", tmp_path, file="lacking.npz")


def write_image(path, colour, size=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path, "JPEG", quality=95)


def test_tiny_imagenet_is_read_from_its_folders(tmp_path):
    folder = tmp_path / "tiny-imagenet-200"
    for i, name in enumerate(("n01", "n02")):
        for k in range(3):
            write_image(folder / "train" / name / "images" / f"{name}_{k}.JPEG", (250, 5, 5) if i else (5, 5, 250))
        write_image(folder / "val" / "images" / f"val_{i}.JPEG", (250, 5, 5) if i else (5, 5, 250))
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn01\t0\t0\t1\t1\nval_1.JPEG\tn02\t0\t0\t1\t1\n")
    data = create_data("tiny_imagenet", tmp_path)
    assert data.train.images.shape == (6, 3, 32, 32)
    for dataset in (data.train, data.test):
        assert (dataset.images[:, 0, 0, 0] > 128).long().tolist() == dataset.labels.tolist()


def test_imagenet_is_decoded_as_asked_and_augmented_by_image_and_epoch(tmp_path):
    noise = RANDOM.integers(0, 255, (80, 100, 3), dtype=np.uint8)
    for part, name in itertools.product(("train", "val"), ("n01", "n02")):
        (tmp_path / part / name).mkdir(parents=True)
        Image.fromarray(noise).save(tmp_path / part / name / "image.JPEG")
    data = create_data("imagenet", tmp_path, size=32)
    assert data.num_classes == 2
    first = batch_of(data.train, 2)
    assert first.images.shape == (2, 3, 32, 32)
    assert first.labels.tolist() == [0, 1]
    torch.manual_seed(99)
    assert torch.equal(batch_of(data.train, 2).images, first.images)
    assert not torch.equal(batch_of(data.train, 2, epoch=1).images, first.images)
    assert torch.equal(batch_of(data.test, 1, epoch=1).images, batch_of(data.test, 1).images)


FILES = {
    "cifar10": "CIFAR10 is not in .*cifar-10-batches-py",
    "cifar100": "CIFAR100 is not in .*cifar-100-python/train",
    "stl10": "STL-10 is not in .*stl10_binary",
    "tiny_imagenet": "TinyImageNet is not in .*tiny-imagenet-200/train",
    "imagenet": "ImageNet is not in .*train/n01440764",
    "fashion_mnist": "Fashion-MNIST is not in .*train-images-idx3-ubyte.*dataset-fashion-mnist",
    "packed_jpeg": "packed JPEG is not in .*none.npz with train_jpeg",
}


@pytest.mark.parametrize("name", sorted(set(data_names()) - {"digits"}))
def test_missing_files_are_named(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_DEBIAN_FASHION_MNIST", tmp_path)
    options: dict[str, Any] = {"file": "none.npz"} if name == "packed_jpeg" else {}
    with pytest.raises(FileNotFoundError, match=FILES[name]):
        create_data(name, tmp_path / "nowhere", **options)


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match="data cifar100 takes the options train_images; got 'size'"):
        create_data("cifar100", size=3)


def test_normalisation_is_that_of_the_training_images():
    images = torch.from_numpy(RANDOM.integers(0, 255, (50, 3, 4, 4), dtype=np.uint8))
    labels = torch.arange(50) % 5
    data = in_memory("x", (images, labels), (images, labels), 5, augmented=False)
    everything = batch_of(data.train, 50).images
    torch.testing.assert_close(everything.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(everything.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
