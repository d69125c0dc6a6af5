"""Runs that break: killed at any moment, out of disk, a damaged checkpoint, a loss that is no number."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import killed_runs
import lightning as L
import pytest
import torch

from itrd_distill.cli import main
from itrd_distill.data import create_data
from itrd_distill.models import create_model
from itrd_distill.training import checkpoints, finite
from itrd_distill.training.files import write_atomically
from itrd_distill.training.run import train
from itrd_distill.training.settings import DataSettings, Recipe, TrainerSettings

RECIPE = Recipe(data=DataSettings(batch_size=20), trainer=TrainerSettings(epochs=3, accelerator="cpu"))


@pytest.fixture(scope="module")
def data():
    return create_data("digits", train_images=60)


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)["model"]


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    arguments = [
        "train",
        "--trainer.accelerator",
        "cpu",
        "--trainer.epochs",
        "30",
        "--data.options.train_images",
        "200",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main([*arguments, "--out", str(whole)])
    process = subprocess.Popen(
        [sys.executable, "-m", "itrd_distill", *arguments, "--out", str(killed)],
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 120
        while not (killed / "checkpoints" / "previous.ckpt").exists() and time.monotonic() < until:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (killed / "weights.pt").exists()
    main([*arguments, "--out", str(killed), "--resume"])
    expected, found = weights(whole), weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a run killed at each moment, and the weights of one that was not."""
    folder = tmp_path_factory.mktemp("killed")
    whole, _ = train(killed_runs.RECIPE, folder / "whole", **killed_runs.settings())
    subprocess.run([sys.executable, killed_runs.__file__, str(folder)], check=True, timeout=600)
    return folder, whole.state_dict()


@pytest.mark.parametrize("moment", killed_runs.MOMENTS)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_weights(moment, killed):
    folder, expected = killed
    directory = folder / moment
    assert not (directory / "run.json").exists()
    checkpoint = checkpoints.latest(directory)
    assert (checkpoint is None) == (moment == "first step")
    torch.manual_seed(12345)
    resumed, result = train(killed_runs.RECIPE, directory, checkpoint=checkpoint, **killed_runs.settings())
    assert [row["epoch"] for row in result.history] == [0, 1, 2, 3]
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_out_of_disk_keeps_the_last_good_checkpoint(data, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full_disk(content, file, **options):
        calls.append(file)
        if len(calls) == 2:
            with open(file, "wb") as half:
                half.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(content, file, **options)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="cannot be written .*No space left.*last good one is .*last.ckpt"):
        train(RECIPE, tmp_path, data=data)
    folder = tmp_path / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 0
    assert checkpoints.latest(tmp_path) == folder / "last.ckpt"


@pytest.mark.parametrize("damage", [lambda content: content[:-2000], lambda content: content.replace(b"\x3f", b"\x00")])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, data, tmp_path, capsys):
    expected, _ = train(RECIPE, tmp_path / "whole", data=data)
    train(replace(RECIPE, trainer=replace(RECIPE.trainer, epochs=3)), tmp_path, data=data)
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(damage(last.read_bytes()))
    found = checkpoints.latest(tmp_path)
    assert re.search(r"^itrd-distill: .*last.ckpt is damaged.*going back", capsys.readouterr().err)
    assert found == tmp_path / "checkpoints" / "previous.ckpt"
    resumed, result = train(RECIPE, tmp_path, data=data, checkpoint=found)
    assert torch.equal(resumed.state_dict()["fc.weight"], expected.state_dict()["fc.weight"])
    assert [row["epoch"] for row in result.history] == [0, 1, 2]


def test_a_kill_between_renames_is_seen(data, tmp_path):
    train(replace(RECIPE, trainer=replace(RECIPE.trainer, epochs=1)), tmp_path, data=data)
    last = tmp_path / "checkpoints" / "last.ckpt"
    fresh = last.rename(last.with_name("last.ckpt.fresh"))
    assert checkpoints.latest(tmp_path) == fresh


def test_no_checkpoint_that_can_be_read_is_an_error(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert checkpoints.latest(tmp_path) is None
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="can be read: train that run again, by `train --overwrite`"):
        main(["train", "--out", str(tmp_path), "--resume"])


def test_weights_are_no_checkpoint_to_go_on_from(tmp_path):
    torch.save({"model": create_model("convnet_8_16", 10).state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(SystemExit, match="is no checkpoint of a run"):
        main(["train", "--out", str(tmp_path), "--ckpt-path", str(tmp_path / "weights.pt")])


class Poison(L.Callback):
    """Makes the student's weights NaN before the given step of the second epoch."""

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.current_epoch == 1 and batch_index == 2:
            torch.nn.init.constant_(module.student.fc.bias, torch.nan)


@pytest.mark.parametrize("interval", [1, 2, 20])
def test_a_loss_that_is_no_number_ends_the_run_and_leaves_its_batch(interval, data, tmp_path, monkeypatch):
    monkeypatch.setattr(finite, "steps_between_looks", lambda device: interval)
    with pytest.raises(finite.NonFiniteLoss, match=r"epoch 2, step 2 \(loss nan, cross_entropy nan\)"):
        train(RECIPE, tmp_path, data=data, callbacks=[Poison()])
    saved = torch.load(tmp_path / "nan_batch.pt", weights_only=True)
    assert (saved["epoch"], saved["step"]) == (1, 2)
    again = data.train.__getitems__([(1, i) for i in saved["index"].tolist()])
    assert torch.equal(saved["images"], again.images)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 0


def test_files_are_whole_or_not_there_and_readable_by_others(tmp_path):
    path, ordinary = tmp_path / "sub" / "file.txt", tmp_path / "ordinary"
    write_atomically(path, lambda partial: partial.write_text("first"))

    def fails(partial):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fails)
    assert path.read_text() == "first"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode
