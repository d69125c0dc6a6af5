"""Public data sets from a folder, by torchvision where it knows them. What is missing is named in the error."""

import gzip
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2

from itrd_distill.data.images import FileImages, ImageData
from itrd_distill.data.memory import colour, in_memory, resize
from itrd_distill.options import Count, Line

# What the CRD benchmark normalises with: its teachers' checkpoints expect it.
_CIFAR100 = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}
_CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
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
        datasets.FashionMNIST(root, download=True)
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    for folder in (root, root / "FashionMNIST" / "raw", _DEBIAN_FASHION_MNIST):
        files = [next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None) for name in names]
        if None not in files:
            arrays = [_read_idx(file) for file in files]
            train, test = ((colour(arrays[i][:, None]), arrays[i + 1].long()) for i in (0, 2))
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
    train = [(file, i) for i, name in enumerate(classes) for file in sorted((folder / "train" / name).rglob("*.JPEG"))]
    rows = [line.split("\t")[:2] for line in annotations.read_text("utf-8").splitlines()]
    test = [(folder / "val" / "images" / name, classes.index(label)) for name, label in rows]
    splits = [(_decode([f for f, _ in held], size), torch.tensor([i for _, i in held])) for held in (train, test)]
    return in_memory("TinyImageNet", *splits, len(classes), train_images=train_images)


def imagenet(root: Path, download: bool, size: Count = 224) -> ImageData:
    """1.28 million training and 50,000 validation images in 1,000 classes, from ROOT/train/CLASS and ROOT/val/CLASS."""
    splits = []
    for part in ("train", "val"):
        if not (root / part).is_dir():
            raise _missing("ImageNet", root, "train/n01440764/*.JPEG …, val/n01440764/*.JPEG …", "from image-net.org")
        splits.append(datasets.ImageFolder(root / part))
    if splits[0].classes != splits[1].classes:
        raise ValueError(f"{root / 'train'} and {root / 'val'} hold different classes")
    finish = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**_IMAGENET)]
    transforms = [
        v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *finish]),
        v2.Compose([v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size), *finish]),
    ]
    train, test = (
        FileImages([Path(file) for file, _ in held.samples], torch.tensor(held.targets), transform)
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

    For each split: SPLIT_jpeg (bytes,) uint8, SPLIT_offsets (N + 1,), image i being the bytes between offsets i and
    i + 1, and SPLIT_labels (N,); for both: classes. `title` is the name in tables.
    """
    path = root / file
    if not path.is_file():
        raise _missing(title, path.parent, f"{path.name} with train_jpeg, train_offsets, train_labels, test_…, classes")
    splits = []
    with np.load(path, allow_pickle=False) as arrays:
        wanted = [
            "classes",
            *(f"{split}_{part}" for split in ("train", "test") for part in ("jpeg", "offsets", "labels")),
        ]
        if absent := [array for array in wanted if array not in arrays]:
            raise ValueError(f"{path} lacks the arrays {', '.join(absent)}")
        num_classes = len(arrays["classes"])
        for split in ("train", "test"):
            packed = torch.from_numpy(arrays[f"{split}_jpeg"])
            images = _unpack(packed, arrays[f"{split}_offsets"])
            splits.append((images, torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))))
    return in_memory(title, *splits, num_classes, size=size, train_images=train_images)


def _cifar(kind: type, root: Path, download: bool, files: str) -> list[tuple[Tensor, Tensor]]:
    held = _found(lambda: [kind(root, train, download=download) for train in (True, False)], kind.__name__, root, files)
    return [(torch.from_numpy(h.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(h.targets)) for h in held]


def _found(read: Callable, name: str, root: Path, files: str):
    try:
        return read()
    except (RuntimeError, FileNotFoundError) as error:
        raise _missing(name, root, files) from error


def _missing(name: str, root: Path, files: str, remedy: str = "or pass --data.download true") -> FileNotFoundError:
    return FileNotFoundError(f"{name} is not in {root}: expected {files} there; put them there, {remedy}")


def _read_idx(path: Path) -> Tensor:
    """An array in MNIST's format: two zero bytes, type 8 (uint8), number of dimensions, their sizes, the data."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        content = file.read()
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is no IDX file of bytes")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if data.size != shape.prod(dtype=np.int64):
        raise ValueError(f"{path} is cut short: {data.size} values where its header announces {shape.tolist()}")
    return torch.from_numpy(data.reshape(shape).copy())


def _unpack(packed: Tensor, offsets: np.ndarray) -> Tensor:
    content = packed.numpy()
    pairs = itertools.pairwise(offsets)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda pair: _pixels(BytesIO(content[slice(*pair)].tobytes())), pairs)
        first = next(decoded)
        images = torch.empty(len(offsets) - 1, *first.shape, dtype=torch.uint8)
        for i, image in enumerate(itertools.chain([first], decoded)):
            images[i] = image
    return images


def _decode(files: list[Path], size: int) -> Tensor:
    with ThreadPoolExecutor() as pool:
        return torch.cat(list(pool.map(lambda file: resize(_pixels(file)[None], size), files)))


def _pixels(file) -> Tensor:
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
