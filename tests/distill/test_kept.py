"""What is kept in a file: computed once, made again with a line if it is damaged or another's, safe among processes."""

import errno
import threading

import filelock
import pytest
import torch

from itrd_distill.training import kept as module
from itrd_distill.training.kept import kept

VALUES = {"a": torch.arange(600.0).view(200, 3), "b": torch.ones(200, 1)}
SHAPES = {"a": (200, 3), "b": (200, 1)}


class Computed:
    """Counts how often the values are computed."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return VALUES


def get(path, compute, fingerprint="f" * 16):
    held = kept(path, fingerprint, SHAPES, compute, "name another folder")
    for name, value in VALUES.items():
        assert torch.equal(held[name], value)


def test_it_is_computed_once_and_its_fingerprint_stands_inside(tmp_path, capsys):
    compute = Computed()
    for _ in range(3):
        get(tmp_path / "new" / "x.pt", compute)
    assert compute.times == 1
    assert torch.load(tmp_path / "new" / "x.pt", weights_only=True)["fingerprint"] == "f" * 16
    assert capsys.readouterr().err == ""


def saved(**changed):
    content = {"fingerprint": "f" * 16, "name": "x.pt", **VALUES}
    return lambda path: torch.save({**content, **changed}, path)


def overwritten(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        *((overwritten(lambda whole, part=part: whole[: int(len(whole) * part)]), "damaged") for part in (0, 0.1, 0.9)),
        (overwritten(lambda whole: whole[:100]), "damaged"),
        (overwritten(lambda whole: whole[:-1]), "damaged"),
        (overwritten(lambda whole: bytes(len(whole))), "damaged"),
        (overwritten(lambda whole: b"no file of tensors"), "damaged"),
        # Only the numbers are lost: PyTorch would read zeros, and a changed bit, without a word.
        (overwritten(lambda whole: whole.replace(VALUES["a"].numpy().tobytes()[8:], bytes(2392))), "damaged"),
        (overwritten(lambda whole: whole.replace(b"\x00\x00\xa0\x42", b"\x00\x00\xa1\x42", 1)), "damaged"),
        (saved(a=None), "damaged"),
        (saved(a=VALUES["a"][:-1]), "another shape or type"),
        (saved(a=VALUES["a"].long()), "another shape or type"),
        (saved(a=VALUES["a"][:, :2]), "another shape or type"),
        (saved(a=VALUES["a"][:, 0]), "another shape or type"),
        *((saved(b=VALUES["b"] * value), "not finite") for value in (float("nan"), float("inf"), -float("inf"))),
        (saved(fingerprint="0" * 16), "made from other"),
        (saved(name="y.pt"), "made from other"),
        (lambda path: torch.save(VALUES, path), "damaged"),
        (lambda path: torch.save(torch.ones(3), path), "damaged"),
    ],
)
def test_what_is_damaged_or_anothers_is_made_again_with_a_line(damage, told, tmp_path, capsys):
    path, compute = tmp_path / "x.pt", Computed()
    get(path, compute)
    before = path.read_bytes()
    damage(path)
    assert path.read_bytes() != before
    for _ in range(2):
        get(path, compute)
    assert compute.times == 2
    said = capsys.readouterr().err
    assert said.startswith(f"itrd-distill: {path} ")
    assert told in said
    assert said.endswith("; it is made again\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_not_finite_when_it_is_computed_is_told_and_not_kept(dtype, tmp_path):
    values = {name: value.clone().to(dtype) for name, value in VALUES.items()}
    values["a"][17:19, 1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"x.pt cannot be made: row 17 of a .* 1 of the 199 others: look at"):
        kept(tmp_path / "x.pt", "f" * 16, SHAPES, lambda: values, "name another folder")
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize("place", ["file", "folder"])
def test_where_it_cannot_be_written_is_named(place, tmp_path):
    (tmp_path / "taken").touch() if place == "file" else (tmp_path / "taken" / "x.pt").mkdir(parents=True)
    with pytest.raises(OSError, match="taken/x.pt cannot be written .*: name another folder"):
        get(tmp_path / "taken" / "x.pt", Computed())


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    def full(content, path):
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="x.pt cannot be written .*file write failed"):
        get(tmp_path / "x.pt", Computed())
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_of_many_at_once_one_computes(tmp_path):
    compute, failed = Computed(), []

    def run():
        try:
            get(tmp_path / "x.pt", compute)
        except BaseException as error:  # reported by the main thread
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (compute.times, failed) == (1, [])


@pytest.mark.parametrize("error", [NotImplementedError("flock"), OSError(errno.ENOLCK, "No locks available")])
def test_disks_without_locks_do_without(error, tmp_path, monkeypatch):
    def acquire(self, *_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    compute = Computed()
    for _ in range(2):
        get(tmp_path / "x.pt", compute)
    assert compute.times == 1


def test_a_lock_that_may_not_be_had_is_named(tmp_path, monkeypatch):
    def acquire(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.FileLock, "acquire", acquire)
    with pytest.raises(OSError, match="x.pt cannot be written .*Permission denied.*: name another folder"):
        get(tmp_path / "x.pt", Computed())


def test_what_is_there_is_read_without_a_lock(tmp_path, monkeypatch):
    """From a folder that only others may write to."""
    compute = Computed()
    get(tmp_path / "x.pt", compute)
    monkeypatch.setattr(module, "FileLock", None)
    get(tmp_path / "x.pt", compute)
    assert compute.times == 1
