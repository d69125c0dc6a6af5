"""JPEG files of noise, alone and in a tree of classes, for tests of what reads them."""

import io
import itertools

import numpy as np
from PIL import Image

RANDOM = np.random.default_rng(0)


def jpeg(width=16, height=16):
    stream = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def write_tree(root, names=("a", "b"), images=4):
    for part, name in itertools.product(("train", "val"), names):
        (root / part / name).mkdir(parents=True)
        for i in range(images):
            (root / part / name / f"{i}.JPEG").write_bytes(jpeg(40, 40))
    return root


def one_line(error):
    assert "\n" not in str(error.value), error.value
    assert len(str(error.value)) < 500
    return str(error.value)
