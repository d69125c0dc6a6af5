"""A run on two processes: the same command with --trainer.devices 2."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from itrd_distill.models import create_model


@pytest.mark.slow
def test_two_processes_share_the_images_and_one_writes(tmp_path):
    torch.manual_seed(0)
    torch.save(create_model("convnet_32_64", 10).state_dict(), tmp_path / "teacher.pt")
    command = [
        sys.executable, "-m", "itrd_distill", "train", "--out", str(tmp_path / "run"),
        "--teacher.model", "convnet_32_64", "--teacher.checkpoint", str(tmp_path / "teacher.pt"),
        "--loss.name", "crd", "--loss.options.negatives", "50", "--data.batch_size", "50",
        "--trainer.epochs", "3", "--trainer.accelerator", "cpu", "--trainer.devices", "2",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   3/3") == 1
    assert done.stdout.count("crd, seed 0: test accuracy") == 1
    result = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [row["epoch"] for row in result["history"]] == [0, 1, 2]
    assert result["history"][-1]["cross_entropy"] < result["history"][0]["cross_entropy"]
    bank = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"][
        "loss.bank_s.bank"
    ]
    # Every image of both processes has been remembered: rows of length one, which random ones are not.
    assert (bank.norm(dim=1) - 1).abs().lt(1e-4).float().mean() > 0.99


@pytest.mark.slow
def test_two_processes_agree_on_what_is_left_of_a_comparison(tmp_path):
    """The teacher first, then losses with and without a preparation; one run is then missing."""
    command = [
        sys.executable, "-m", "itrd_distill", "compare", "digits/convnet_32_64-convnet_8_16", "--methods", "kd", "ft",
        "--seeds", "2", "--trainer.epochs", "2", "--teacher-epochs", "2", "--data.options.train_images", "200",
        "--trainer.accelerator", "cpu", "--trainer.devices", "2",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def compare():
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert compare().count("(trained)") == 4
    kd = tmp_path / "runs" / "compare" / "digits" / "convnet_32_64-convnet_8_16" / "kd"
    first = (kd / "seed1" / "run.json").read_text()
    shutil.rmtree(kd / "seed1")
    printed = compare()
    assert (printed.count("(trained)"), printed.count("(finished before)")) == (1, 3)
    again = (kd / "seed1" / "run.json").read_text()
    assert json.loads(again)["test_accuracy"] == json.loads(first)["test_accuracy"]
    assert compare().count("(finished before)") == 4
