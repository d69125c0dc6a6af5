"""SIGTERM and Ctrl-C: exit status 143 or 130, a line that says how to go on, no traceback, no process left behind."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

from itrd_distill import stopping
from itrd_distill.cli import main
from itrd_distill.models import create_model
from itrd_distill.training.checkpoints import read

TRAIN = ["train", "--data.options.train_images", "100", "--data.batch_size", "20", "--trainer.epochs", "100000"]
CPU = ["--trainer.accelerator", "cpu"]
LINE = "itrd-distill: stopped by {}; the same command goes on from its last checkpoint with --resume"
BEFORE = "itrd-distill: stopped by {}; it had written no checkpoint yet: the same command again begins as it did"
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


def descendants(pid):
    """Processes below this one, from /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(path.parent.name))
    found = parents.get(pid, [])
    return [*found, *(below for child in found for below in descendants(child))]


def stop(arguments, until, number, *, group=False, again=0, cwd):
    """Start the command, send it the signal when the file `until` is there; what it printed, and what it left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "itrd_distill", *arguments], cwd=cwd, start_new_session=True, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        give_up = time.monotonic() + 120
        while not list(Path(cwd).glob(until)):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        below = descendants(process.pid)
        for _ in range(1 + again):
            (os.killpg if group else os.kill)(process.pid, number)
            time.sleep(0.01 * again)
        _, printed = process.communicate(timeout=60)
    finally:
        process.kill()
    left = [pid for pid in below if Path(f"/proc/{pid}/stat").exists() and pid in descendants(1)]
    return process.returncode, printed, left


def expect(stopped, number, line=LINE):
    code, printed, left = stopped
    assert code == 128 + number
    assert printed.count("\n") == 1, printed
    assert printed.startswith(line.format(NAMES[number]))
    assert not left


def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path):
    """Impatient users send the signal more than once."""
    arguments = [*TRAIN, *CPU, "--out", "run"]
    expect(stop(arguments, "run/checkpoints/last.ckpt", signal.SIGTERM, again=3, cwd=tmp_path), signal.SIGTERM)
    assert not (tmp_path / "run" / "in_use.txt").exists()


def test_a_run_from_another_ones_checkpoint_goes_on_as_is_advised(tmp_path):
    """Its line names --resume in place of --ckpt-path."""
    main([*TRAIN, *CPU, "--trainer.epochs", "1", "--out", str(tmp_path / "a")])
    arguments = [*TRAIN, *CPU, "--out", "b", "--ckpt-path", "a/checkpoints/last.ckpt"]
    expect(stop(arguments, "b/checkpoints/previous.ckpt", signal.SIGTERM, cwd=tmp_path), signal.SIGTERM)
    resume = [*TRAIN, *CPU, "--out", "b", "--resume"]
    with pytest.raises(SystemExit, match="go on with it by --resume without --ckpt-path"):
        main([*resume[:-2], str(tmp_path / "b"), "--resume", "--ckpt-path", str(tmp_path / "a/checkpoints/last.ckpt")])
    before = read(tmp_path / "b" / "checkpoints" / "last.ckpt")["epoch"]
    expect(stop(resume, "b/csv/version_1/metrics.csv", signal.SIGTERM, cwd=tmp_path), signal.SIGTERM)
    assert read(tmp_path / "b" / "checkpoints" / "last.ckpt")["epoch"] > before


def test_before_the_first_checkpoint_no_line_advises_to_go_on(tmp_path):
    """With --resume the run that was to be replaced would go on."""
    main([*TRAIN, *CPU, "--trainer.epochs", "1", "--out", str(tmp_path / "run")])
    before = (tmp_path / "run" / "run.json").read_bytes()
    arguments = [*TRAIN, *CPU, "--trainer.checkpoint_every", "100000", "--out", "run", "--overwrite"]
    code, printed, _ = stop(arguments, "run/*/tensorboard", signal.SIGTERM, cwd=tmp_path)
    assert code == 143
    back, line = printed.splitlines()
    assert back.endswith("what was there before it is back")
    assert line == BEFORE.format("SIGTERM")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


EVERY = pytest.mark.parametrize(("number", "group"), [(n, g) for n in NAMES for g in (False, True)])


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("options", [[], ["--data.workers", "2"]])
@pytest.mark.parametrize("until", ["run/checkpoints/last.ckpt", "run/in_use.txt"])
def test_one_process(number, group, options, until, tmp_path):
    line = LINE if until.endswith(".ckpt") else BEFORE
    arguments = [*TRAIN, *CPU, "--out", "run", *options]
    expect(stop(arguments, until, number, group=group, again=1, cwd=tmp_path), number, line)


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("options", [[], ["--data.workers", "1"]])
@pytest.mark.parametrize("until", ["run/checkpoints/last.ckpt", "run/recipe.yaml"])
def test_two_processes(number, group, options, until, tmp_path):
    arguments = [*TRAIN, *CPU, "--out", "run", "--trainer.devices", "2", *options]
    line = LINE if until.endswith(".ckpt") else BEFORE
    expect(stop(arguments, until, number, group=group, again=1, cwd=tmp_path), number, line)


@pytest.mark.slow
def test_the_second_process_ends_with_a_first_that_is_killed(tmp_path):
    arguments = [*TRAIN, *CPU, "--out", "run", "--trainer.devices", "2"]
    stopped = stop(arguments, "run/checkpoints/last.ckpt", signal.SIGKILL, cwd=tmp_path)
    time.sleep(1)
    assert stopped[0] == -signal.SIGKILL
    assert not stopped[2]


@pytest.mark.slow
@pytest.mark.parametrize("number", NAMES)
def test_while_a_loss_is_prepared_or_teachers_outputs_are_cached(number, tmp_path):
    torch.save(create_model("convnet_32_64", 10).state_dict(), tmp_path / "teacher.pt")
    taught = [*TRAIN, *CPU, "--out", "run", "--teacher.model", "convnet_32_64", "--teacher.checkpoint", "teacher.pt"]
    prepared = [*taught, "--loss.name", "ft", "--loss.options.preparation_epochs", "100000"]
    expect(stop(prepared, "run/in_use.txt", number, cwd=tmp_path), number, BEFORE)
    cached = [*taught, "--loss.name", "kd", "--teacher.cache", "cache"]
    expect(stop(cached, "cache/*", number, cwd=tmp_path), number, BEFORE)


@pytest.mark.slow
@pytest.mark.parametrize("number", NAMES)
def test_other_commands_say_what_holds_for_them(number, tmp_path):
    torch.save(create_model("convnet_32_64", 10).state_dict(), tmp_path / "teacher.pt")
    compare = ["compare", "digits/convnet_32_64-convnet_8_16", *CPU, "--teacher.checkpoint", "teacher.pt", "--out", "c"]
    line = "itrd-distill: stopped by {}; the same command again "
    expect(stop(compare, "c/*/seed0/in_use.txt", number, cwd=tmp_path), number, line + "goes on")
    expect(stop(["demo", "--out", "d"], "d/*/seed0/in_use.txt", number, cwd=tmp_path), number, line + "starts anew")
    probe = ["probe", *CPU, "--weights", "teacher.pt", "--student", "convnet_32_64", "--out", "p"]
    expect(stop(probe, "p/features.pt", number, cwd=tmp_path), number, line + "starts anew")


def test_what_replaces_an_earlier_run_and_is_stopped_leaves_it(tmp_path, data):
    """Stopped at its first batch."""
    from itrd_distill.training.run import train
    from itrd_distill.training.settings import Recipe, TrainerSettings

    recipe = Recipe(trainer=TrainerSettings(1, "cpu"))
    train(recipe, tmp_path, data=data)
    before = (tmp_path / "run.json").read_bytes()
    stopping._State.number = signal.SIGTERM
    try:
        with pytest.raises(stopping.Stopped):
            train(recipe, tmp_path, data=data)
    finally:
        stopping._State.number = None
    assert (tmp_path / "run.json").read_bytes() == before
    assert not list(tmp_path.glob("*earlier*"))


def test_nothing_is_left_open():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        with stopping.stoppable(lambda: "nothing"):
            pass
        for thread in threading.enumerate():
            if thread.name == "signals":
                thread.join()
        gc.collect()
    assert not [warning for warning in seen if "socket" in str(warning.message)]


def test_processes_of_a_loader_that_are_ended_are_no_accident():
    """Torch has a handler that raises, wherever the program is, when a process of a loader has been killed."""
    images = torch.utils.data.TensorDataset(torch.zeros(8))
    loader = torch.utils.data.DataLoader(images, num_workers=2, persistent_workers=True)
    with stopping.stoppable(lambda: "nothing"):
        batches = iter(loader)
        next(batches)
        handler = signal.getsignal(signal.SIGCHLD)
    assert not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGCHLD) == handler


def test_handlers_are_there_for_the_command_alone():
    before = {number: signal.getsignal(number) for number in NAMES}
    with stopping.stoppable(lambda: "nothing"):
        assert all(signal.getsignal(number) is stopping._stop for number in NAMES)
    assert {number: signal.getsignal(number) for number in NAMES} == before


def test_no_handler_of_lightnings_takes_part(data, tmp_path):
    """Its own one of SIGTERM is a collective operation."""
    import lightning as L

    from itrd_distill.training.run import train
    from itrd_distill.training.settings import Recipe, TrainerSettings

    seen = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            seen.extend(signal.getsignal(signal.SIGTERM).signal_handlers)

    with stopping.stoppable(lambda: "nothing"):
        train(Recipe(trainer=TrainerSettings(1, "cpu")), tmp_path, data=data, callbacks=[Watch()])
    assert seen
    assert not any("signal_connector" in handler.__module__ for handler in seen)
