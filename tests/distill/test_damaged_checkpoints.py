"""Damaged checkpoints, pickles that torch.load does not read, and files that are none: each is called what it is."""

import argparse
import itertools
import pickle

import numpy as np
import pytest
import torch

from itrd_distill.models import create_model
from itrd_distill.training.files import load_model, load_whole

MODEL = create_model("convnet_8_16", 7)
STATE = MODEL.state_dict()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("form", "protocol"),
    # torch.save itself refuses protocols 0 and 1.
    [*itertools.product(["pickle"], range(6)), *itertools.product(["zip", "legacy"], range(2, 6))],
)
def test_other_protocols_of_pickle_are_read_or_told(form, protocol, tmp_path):
    path = tmp_path / "x.pt"

    def save(content):
        if form == "pickle":
            path.write_bytes(pickle.dumps(content, protocol))
        else:
            zipped = form == "zip"
            torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)

    save(MODEL)
    with pytest.raises(ValueError, match="is a pickle of .*convnet.ConvNet, .* run code .*model.state_dict"):
        load_model(path, "convnet_8_16")
    save(STATE)
    if form != "pickle" and protocol < 4:
        assert torch.equal(load_model(path, "convnet_8_16").state_dict()["fc.weight"], STATE["fc.weight"])
    else:
        with pytest.raises(ValueError, match=r"a pickle of protocol \d that PyTorch cannot read .*model.state_dict"):
            load_model(path, "convnet_8_16")


def test_a_file_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(load_model(tmp_path / "x.pt", "convnet_8_16").state_dict()["fc.weight"], STATE["fc.weight"])
    assert torch.equal(load_whole(tmp_path / "x.pt")["fc.weight"], STATE["fc.weight"])


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_damaged_is_named_or_nothing_is_lost(seed, tmp_path):
    torch.save({"model": STATE, "more": argparse.Namespace(a=1)}, tmp_path / "x.pt")
    whole, drawn = (tmp_path / "x.pt").read_bytes(), np.random.default_rng(seed)
    for _ in range(20):
        place, length = int(drawn.integers(len(whole))), int(drawn.choice([1, 4, 30, 300]))
        part = [b"", bytes(length), drawn.bytes(length), drawn.bytes(length) + whole[place : place + length]]
        (tmp_path / "x.pt").write_bytes(whole[:place] + part[drawn.integers(4)] + whole[place + length :])
        try:
            found = load_model(tmp_path / "x.pt", "convnet_8_16").state_dict()
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'x.pt'} ")  # noqa: PT017
        else:
            assert all(torch.equal(found[name], value) for name, value in STATE.items())


def zipped(content):
    def write(path):
        torch.save(STATE, path)
        path.write_bytes(content(path.read_bytes()))

    return write


FILES = {
    "empty": (b"", "it is empty"),
    "a web page": (b"\n<!DOCTYPE html><html>", "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b" + bytes(99), "gzip"),
    "HDF5": (b"\x89HDF\r\n", "HDF5"),
    "text": (b"hello world\n", "damaged, or no file of PyTorch's"),
    "JSON": (b'{"error": "not found"}', "damaged, or no file of PyTorch's"),
    "noise": (np.random.default_rng(0).bytes(500), "damaged, or no file of PyTorch's"),
    "zeros": (bytes(500), "damaged, or no file of PyTorch's"),
    "cut in the middle": (zipped(lambda content: content[:500]), "its end is missing"),
    "cut at the end": (zipped(lambda content: content[:-50]), "its end is missing"),
    "its pickle overwritten": (zipped(lambda content: content[:200] + bytes(200) + content[400:]), "damaged"),
    "zeros in its weights": (zipped(lambda content: content[:5000] + bytes(500) + content[5500:]), "damaged"),
    "its directory overwritten": (zipped(lambda content: content.replace(b"PK\1\2", bytes(4), 1)), "damaged"),
    "bytes lost in the middle": (zipped(lambda content: content[:5000] + content[5500:]), "damaged"),
    "TorchScript": (lambda path: torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)).save(str(path)), "TorchScript"),
    "arrays": (lambda path: np.savez(path.open("wb"), a=1), "ZIP archive, but not one of PyTorch's"),
    "a folder": (lambda path: path.mkdir(), "a folder"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_what_is_no_checkpoint_is_called_what_it_is(kind, tmp_path):
    content, message = FILES[kind]
    path = tmp_path / "x.pt"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    with pytest.raises(ValueError, match=f"x.pt cannot be read as a checkpoint: .*{message}") as raised:
        load_model(path, "convnet_8_16")
    assert "\n" not in str(raised.value)
