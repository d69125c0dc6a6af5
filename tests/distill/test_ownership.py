"""A run owns its folder: one command at a time, nothing lost unasked, nothing spoilt by a start that fails."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import lightning as L
import pytest
import torch
from filelock import FileLock
from small_runs import SMALL, content, start

from itrd_distill.cli import main
from itrd_distill.commands.demo import demo_command
from itrd_distill.training import finite
from itrd_distill.training.earlier import Start, is_run
from itrd_distill.training.ownership import InUse, owned
from itrd_distill.training.record import Record
from itrd_distill.training.result import RunResult
from itrd_distill.training.run import train
from itrd_distill.training.settings import DataSettings, Recipe, TrainerSettings

RECIPE = Recipe(data=DataSettings(batch_size=20), trainer=TrainerSettings(epochs=2, accelerator="cpu"))


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of one epoch, and what it left."""
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", finished, folder], check=True)
    return folder, content(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [],
            r"run holds an earlier run: go on with it by --resume, replace it by --overwrite, or choose another --out",
        ),
        (["--seed", 1], "holds an earlier run"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--overwrite", "--data.name", "cifar10", "--data.root", "nowhere"], "nowhere"),
        (["--overwrite", "--student", "resnet1000"], "model must be one of"),
        (["--overwrite", "--loss.name", "kd"], "needs a teacher"),
        (["--overwrite", "--teacher.model", "vgg8", "--teacher.checkpoint", "no.pt", "--loss.name", "kd"], "no.pt"),
        (["--overwrite", "--data.batch_size", 101], "batch_size is 101"),
        (["--resume", "--student", "convnet_32_64"], "student convnet_8_16 → convnet_32_64"),
        (["--resume", "--data.name", "cifar10", "--data.root", "nowhere"], "nowhere"),
    ],
)
def test_a_refused_start_leaves_a_finished_run_as_it_was(options, message, run):
    folder, before = run
    with pytest.raises(SystemExit, match=message) as refused:
        start("--out", folder, *options)
    assert len(str(refused.value).splitlines()) == 1
    assert content(folder) == before


def test_an_earlier_run_is_replaced_where_that_is_asked_for(run):
    folder, before = run
    (folder / "nan_batch.pt").touch()
    start("--out", folder, "--overwrite", "--seed", 1)
    after = content(folder)
    assert RunResult.read(folder).seed == 1
    # Its logs and batches are gone as well.
    names = {name for name in before if not name.startswith("tensorboard")}
    assert {name for name in after if not name.startswith("tensorboard")} == names
    assert len(list((folder / "tensorboard").glob("events*"))) == 1


class Fail(L.Callback):
    def __init__(self, error, epoch=0):
        self.error, self.epoch = error, epoch

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.current_epoch == self.epoch and batch_index == 2:
            raise self.error


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), KeyboardInterrupt(), OSError("truncated")])
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_run_that_fails_before_its_first_checkpoint_leaves_the_earlier_one(goes_on, error, data, run, capsys):
    folder, before = run
    checkpoint = folder / "checkpoints" / "last.ckpt" if goes_on else None
    recipe = RECIPE if goes_on else replace(RECIPE, seed=3)
    recipe = replace(recipe, data=replace(recipe.data, options={"train_images": 100}))
    with pytest.raises((type(error), SystemExit)):
        train(recipe, folder, checkpoint=checkpoint, callbacks=[Fail(error, epoch=int(goes_on))])
    assert content(folder) == before
    assert "what was there before it is back" in capsys.readouterr().err


def test_a_run_that_fails_later_keeps_what_it_has(data, run):
    folder, _ = run
    with pytest.raises(OSError, match="later"):
        train(replace(RECIPE, seed=3), folder, data=data, callbacks=[Fail(OSError("later"), epoch=1)])
    assert is_run(folder)
    assert not (folder / "run.json").exists()
    assert "seed: 3" in (folder / "recipe.yaml").read_text()


class Poison(L.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_index):
        torch.nn.init.constant_(module.student.fc.bias, torch.nan)


def test_a_loss_that_is_no_number_at_once_leaves_its_batch_beside_the_earlier_run(data, run):
    folder, before = run
    with pytest.raises(finite.NonFiniteLoss, match="nan_batch.pt"):
        train(replace(RECIPE, seed=3), folder, data=data, callbacks=[Poison()])
    after = content(folder)
    assert torch.load(folder / "nan_batch.pt", weights_only=True)["epoch"] == 0
    del after["nan_batch.pt"]
    assert after == before


@pytest.mark.parametrize("goes_on", [False, True])
def test_what_a_killed_start_had_set_aside_is_put_back(goes_on, run, capsys):
    folder, before = run
    killed = Start(folder, goes_on).__enter__()
    (folder / "recipe.yaml").write_text("half of")
    assert not (folder / "run.json").exists()
    with owned(folder):
        assert content(folder).keys() - {"in_use.txt"} == before.keys()
    assert content(folder) == before
    assert "killed before its first checkpoint" in capsys.readouterr().err
    # Once the checkpoint stands nothing comes back.
    killed = Start(folder, goes_on).__enter__()
    killed.stands()
    with owned(folder):
        pass
    assert not (folder / "run.json").exists()


def test_a_start_that_died_before_a_checkpoint_may_be_reused(tmp_path, capsys):
    folder = tmp_path / "run"
    (folder / "csv").mkdir(parents=True)
    Record.of(replace(RECIPE, seed=3), {}).write(folder)
    start("--out", folder)
    assert RunResult.read(folder).seed == 0


@pytest.mark.parametrize("options", [["--student", "resnet1000"], ["--ckpt-path", "nowhere"]])
def test_a_start_that_is_refused_leaves_no_folder(options, tmp_path):
    with pytest.raises(SystemExit, match=r"model must be one of|no checkpoint at nowhere"):
        start("--out", tmp_path / "runs" / "of" / "mine", *options)
    assert not list(tmp_path.iterdir())


def test_a_second_start_says_who_holds_the_folder(run):
    folder, before = run
    (folder / "in_use.txt").write_text("process 17 on host since noon (itrd-distill train)")
    with FileLock(folder / "in_use.lock"):
        for options in (["--resume"], ["--overwrite"], []):
            with pytest.raises(
                SystemExit, match=r"run is in use by process 17 on host since noon \(itrd-distill train\)"
            ):
                start("--out", folder, *options)
        with pytest.raises(SystemExit, match="in use by process 17"):
            main(["probe", "--weights", str(folder / "weights.pt"), "--student", "convnet_8_16", "--out", str(folder)])
        with pytest.raises(InUse, match="in use by process 17"):
            demo_command(1, 1, folder)
    (folder / "in_use.txt").unlink()
    assert content(folder) == before


def test_arguments_that_are_no_text_are_told_of_a_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["itrd-distill", "train", "--out", "r\udcfcn ü"])
    folder = tmp_path / "r\udcfcn"
    with owned(folder):
        told = (folder / "in_use.txt").read_text("utf-8")
    start("--out", folder)
    (folder / "in_use.txt").write_text(told, "utf-8")
    with FileLock(folder / "in_use.lock"), pytest.raises(InUse, match=r"--out 'r\\udcfcn ü'"), owned(folder):
        pass


HOLD = """
import sys, time
from pathlib import Path
from itrd_distill.training.ownership import owned
with owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lock_dies_with_its_process(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InUse, match=rf"process {holder.pid} on "), owned(tmp_path):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with owned(tmp_path), owned(tmp_path):
        assert str(os.getpid()) in (tmp_path / "in_use.txt").read_text()
    assert not (tmp_path / "in_use.txt").exists()


def test_the_processes_beside_the_first_neither_lock_nor_refuse(run, monkeypatch):
    from lightning.pytorch.utilities import rank_zero_only

    folder, before = run
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with FileLock(folder / "in_use.lock"), owned(folder):
        assert content(folder) == before


def test_a_checkpoint_of_another_run_costs_no_earlier_run(run, finished):
    folder, before = run
    other = finished / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit, match=r"--ckpt-path .* is of another one: replace what is there by --overwrite"):
        start("--out", folder, "--ckpt-path", other, "--resume", epochs=2)
    with pytest.raises(SystemExit, match="is of the run that --overwrite replaces"):
        start("--out", folder, "--ckpt-path", folder / "checkpoints" / "last.ckpt", "--overwrite", epochs=2)
    assert content(folder) == before
    start("--out", folder, "--ckpt-path", folder / "checkpoints" / "last.ckpt", epochs=2)
    assert len(RunResult.read(folder).history) == 2
    start("--out", folder, "--ckpt-path", other, "--overwrite", epochs=2)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_probe_replaces_a_probe_and_nothing_else(run, tmp_path, capsys):
    folder, before = run
    arguments = ["probe", *SMALL, "--student", "convnet_8_16", "--trainer.epochs", "1"]
    arguments += ["--weights", str(folder / "weights.pt")]
    with pytest.raises(SystemExit, match="holds a run that is no probe: choose another --out"):
        main([*arguments, "--out", str(folder)])
    assert content(folder) == before
    for _ in range(2):
        main([*arguments, "--out", str(tmp_path / "probe")])
    assert capsys.readouterr().out.replace("\n", " ").count("is replaced") == 1


@pytest.mark.parametrize("lost", [[], ["run.json"]])
def test_a_probe_and_a_training_run_do_not_take_each_other_for_their_own(lost, run, tmp_path):
    """By what they note of themselves: of the probe's features nothing is gone when another run replaces it."""
    weights, folder = run[0] / "weights.pt", tmp_path / "probe"
    probe = ["probe", *SMALL, "--trainer.epochs", "1", "--weights", str(weights), "--out", str(folder)]
    main(probe)
    for name in lost:
        (folder / name).unlink()
    before = content(folder)
    for epochs in (1, 2):
        with pytest.raises(SystemExit, match="what is trained: a probe's classifier → a whole model"):
            start("--out", folder, "--resume", epochs=epochs)
    assert content(folder) == before
    start("--out", folder, "--overwrite")
    for name in lost:
        (folder / name).unlink()
    before = content(folder)
    assert "features.pt" in before
    with pytest.raises(SystemExit, match="holds a run that is no probe: choose another --out"):
        main(probe)
    assert content(folder) == before


def test_a_demo_replaces_a_demo_and_nothing_else(run, tmp_path, capsys):
    for epochs in ("2", "1"):
        main(["demo", "--seeds", "1", "--epochs", epochs, "--out", str(tmp_path / "demo")])
    assert capsys.readouterr().out.count("is replaced") == 1
    folder, before = run
    (tmp_path / "comparison" / "none").mkdir(parents=True)
    folder.rename(tmp_path / "comparison" / "none" / "seed0")
    for out in (tmp_path / "comparison", tmp_path / "comparison" / "none" / "seed0"):
        with pytest.raises(SystemExit, match="holds a run that is none of the demo's: choose another --out"):
            main(["demo", "--seeds", "1", "--epochs", "1", "--out", str(out)])
    assert content(tmp_path / "comparison" / "none" / "seed0") == before
