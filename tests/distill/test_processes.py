"""A run on two processes: the same command with --trainer.devices 2."""

import json
import os
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
