"""Public data sets from a folder, by torchvision where it knows them. What is missing is named in the error."""

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from itrd_distill.data.check import check_classes, check_split
from itrd_distill.data.decode import decode
from itrd_distill.data.images import FileImages, ImageData
from itrd_distill.data.memory import Split, colour, in_memory, resize
from itrd_distill.data.packed import read_packed
from itrd_distill.options import Count, Line

# What the CRD benchmark normalises with: its teachers' checkpoints expect it.
_CIFAR100: dict[str, Any] = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}
_CIFAR10: dict[str, Any] = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def cifar100(root: Path, download: bool, train_images: Count | None = None) -> ImageData:
    """60,000 images of 32×32 in 100 classes, cropped and flipped for training."""
    train, test = _cifar(datasets.CIFAR100, root, download, "cifar-100-python/train, cifar-100-python/test")
    return in_memory("CIFAR-100", train, test, 100, train_images=train_images, **_CIFAR100)


def cifar10(root: Path, download: bool, train_images: Count | None = None) -> ImageData:
    """60,000 images of 32×32 in 10 classes, cropped and flipped for training."""
    train, test = _cifar(datasets.CIFAR10, root, download, "cifar-10-batches-py/data_batch_1 … test_batch")
    return in_memory("CIFAR-10", train, test, 10, train_images=train_images, **_CIFAR10)


def stl10(root: Path, download: bool, size: Count = 32, train_images: Count | None = None) -> ImageData:
    """5,000 training and 8,000 test images of 96×96 in 10 classes, resized."""

    def read(split: str) -> tuple[Tensor, Tensor]:
        held = datasets.STL10(root, split, download=download)
        return torch.from_numpy(held.data), torch.from_numpy(held.labels).long()

    train, test = _found(lambda: (read("train"), read("test")), "STL-10", root, "stl10_binary/train_X.bin, …")
    return in_memory("STL-10", train, test, 10, size=size, train_images=train_images)


def fashion_mnist(root: Path, download: bool, size: Count = 32, train_images: Count | None = None) -> ImageData:
    """70,000 grey images of 28×28 in 10 classes, enlarged and given three channels for the CIFAR models.

    Read from ROOT, from ROOT/FashionMNIST/raw, or from where Debian's package dataset-fashion-mnist puts them.
    """
    if download:
        with _checked_extraction():
            datasets.FashionMNIST(root, download=True)
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for folder in (root, root / "FashionMNIST" / "raw", _DEBIAN_FASHION_MNIST):
        found = (next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None) for name in names)
        files = [path for path in found if path is not None]
        if len(files) == len(names):
            train, test = _read_grey(*files[:2]), _read_grey(*files[2:])
            return in_memory("Fashion-MNIST", train, test, 10, size=size, train_images=train_images)
    raise _missing(
        "Fashion-MNIST", root, "FashionMNIST/raw/" + ", ".join(names), "or install dataset-fashion-mnist (Debian)"
    )


def tiny_imagenet(root: Path, download: bool, size: Count = 32, train_images: Count | None = None) -> ImageData:
    """100,000 training and 10,000 validation images of 64×64 in 200 classes, decoded into memory and resized."""
    folder = root / "tiny-imagenet-200"
    annotations = folder / "val" / "val_annotations.txt"
    classes = sorted(path.name for path in (folder / "train").glob("n*")) if (folder / "train").is_dir() else []
    if not classes or not annotations.is_file():
        raise _missing("TinyImageNet", root, "tiny-imagenet-200/train/n*/images/*.JPEG, tiny-imagenet-200/val/images",
                       "from cs231n.stanford.edu/tiny-imagenet-200.zip")  # fmt: skip
    check_classes(len(classes), str(folder / "train"))
    train = []
    for i, name in enumerate(classes):
        files = sorted((folder / "train" / name).rglob("*.JPEG"))
        if not files:
            raise ValueError(f"{folder / 'train' / name} holds no *.JPEG: remove the class, or put its images there")
        train += [(file, i) for file in files]
    test = _annotated(annotations, classes)
    decoded_train, decoded_test = (
        (_decode([f for f, _ in held], size), torch.tensor([i for _, i in held])) for held in (train, test)
    )
    return in_memory("TinyImageNet", decoded_train, decoded_test, len(classes), train_images=train_images)


def imagenet(root: Path, download: bool, size: Count = 224) -> ImageData:
    """1.28 million training and 50,000 validation images in 1,000 classes, from ROOT/train/CLASS and ROOT/val/CLASS."""
    splits = []
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise _missing("ImageNet", root, "train/n01440764/*.JPEG …, val/n01440764/*.JPEG …", "from image-net.org")
        try:
            splits.append(datasets.ImageFolder(root / part))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{root / part} cannot be read as one folder for each class: {error}") from error
    if alone := sorted(set(splits[0].classes) ^ set(splits[1].classes)):
        raise ValueError(
            f"{root / 'train'} and {root / 'val'} must hold the same classes, but {len(alone)} are in one alone: "
            + ", ".join(alone[:3])
        )
    check_classes(len(splits[0].classes), str(root / "train"))
    finish = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**_IMAGENET)]
    transforms = [
        v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *finish]),
        v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), *finish]),
    ]
    train, test = (
        FileImages([Path(file) for file, _ in held.samples], torch.tensor(held.targets), transform, transforms[1])
        for held, transform in zip(splits, transforms, strict=True)
    )
    return ImageData("ImageNet", train, test, len(splits[0].classes))


def packed_jpeg(
    root: Path,
    download: bool,
    file: str,
    title: Line = "packed JPEG",
    size: Count | None = None,
    train_images: Count | None = None,
) -> ImageData:
    """JPEG files packed end to end in the arrays of one .npz, read from ROOT/FILE.

    `read_packed` says which arrays. `title` is the name in tables.
    """
    path = root / file
    if not path.is_file():
        raise _missing(title, path.parent, f"{path.name} with train_jpeg, train_offsets, train_labels, test_…, classes")
    (train, test), num_classes = read_packed(path, size)
    return in_memory(title, train, test, num_classes, size=size, train_images=train_images)


def _cifar(kind: type, root: Path, download: bool, files: str) -> list[tuple[Tensor, Tensor]]:
    # torchvision unpickles what has the published checksums, and nothing else.
    held = _found(lambda: [kind(root, train, download=download) for train in (True, False)], kind.__name__, root, files)
    return [(torch.from_numpy(h.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(h.targets)) for h in held]


def _found(read: Callable, name: str, root: Path, files: str):
    try:
        with _checked_extraction():
            return read()
    except (RuntimeError, FileNotFoundError) as error:
        raise _missing(name, root, files) from error


@contextmanager
def _checked_extraction() -> Iterator[None]:
    """Archives are unpacked into their folder and nowhere else, which before Python 3.14 must be asked for.

    Releases of Python that know no filters unpack what has the published checksum all the same.
    """
    before = vars(tarfile.TarFile).get("extraction_filter")
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = before


def _missing(name: str, root: Path, files: str, remedy: str = "or pass --data.download true") -> FileNotFoundError:
    return FileNotFoundError(f"{name} is not in {root}, or not whole: expected {files} there; put them there, {remedy}")


def _read_grey(images: Path, labels: Path) -> Split:
    """Grey images of MNIST's format with three equal channels, and their labels from 0 to 9."""
    pixels, classes = _read_idx(images), _read_idx(labels).long()
    if pixels.dim() != 3:
        raise ValueError(f"{images} must hold images (N, h, w), got {tuple(pixels.shape)}")
    check_split(len(pixels), classes, 10, str(images), str(labels))
    return colour(pixels[:, None]), classes


def _read_idx(path: Path) -> Tensor:
    """An array in MNIST's format: two zero bytes, type 8 (uint8), number of dimensions, their sizes, the data."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is cut short or damaged: {error}") from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is no IDX file of bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if data.size != shape.prod(dtype=np.int64):
        raise ValueError(f"{path} is cut short: {data.size} values where its header announces {shape.tolist()}")
    return torch.from_numpy(data.reshape(shape).copy())


def _annotated(annotations: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """The files and classes that TinyImageNet's val_annotations.txt lists: name, tab, class, tab, …"""
    numbers, found = {name: i for i, name in enumerate(classes)}, []
    for number, line in enumerate(annotations.read_text("utf-8", errors="replace").splitlines(), 1):
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0]
        if label not in numbers:
            raise ValueError(
                f"{annotations}, line {number} must read FILE, tab, CLASS, tab, … with one of the {len(classes)} "
                f"classes in train; got {line[:60]!r}"
            )
        found.append((annotations.parent / "images" / name, numbers[label]))
    if not found:
        raise ValueError(f"{annotations} lists no images")
    return found


def _decode(files: list[Path], size: int) -> Tensor:
    def pixels(file: Path) -> Tensor:
        return resize(torch.from_numpy(np.array(decode(file, str(file)))).permute(2, 0, 1)[None], size)

    with ThreadPoolExecutor() as pool:
        return torch.cat(list(pool.map(pixels, files)))
