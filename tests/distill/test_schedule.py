"""The learning rate as a function of the epoch alone, which a lengthened run follows on its new length."""

from dataclasses import replace

import lightning as L
import pytest
import torch
import yaml
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from itrd_distill.training.checkpoints import latest
from itrd_distill.training.result import RunResult
from itrd_distill.training.run import train
from itrd_distill.training.schedule import Schedule
from itrd_distill.training.settings import DataSettings, OptimizerSettings, Recipe, TrainerSettings

RECIPE = Recipe(data=DataSettings(batch_size=20), trainer=TrainerSettings(epochs=2, accelerator="cpu"))


def longer(recipe, epochs):
    return replace(recipe, trainer=replace(recipe.trainer, epochs=epochs))


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        (OptimizerSettings(0.05), lambda optimizer: CosineAnnealingLR(optimizer, 7)),
        (OptimizerSettings(0.05, milestones=[2, 4], decay=0.3), lambda optimizer: MultiStepLR(optimizer, [2, 4], 0.3)),
    ],
)
def test_the_schedule_is_pytorchs_as_a_function_of_the_epoch(settings, theirs):
    rates = []
    for make in (lambda optimizer: Schedule(optimizer, settings, 7), theirs):
        optimizer = SGD([torch.zeros(1, requires_grad=True)], settings.learning_rate)
        schedule, seen = make(optimizer), []
        for _ in range(7):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        rates.append([*seen, optimizer.param_groups[0]["lr"]])
    assert rates[0] == pytest.approx(rates[1], rel=1e-12, abs=1e-17)


class Rates(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if batch_index == 0:
            self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize("optimizer", [OptimizerSettings(0.05), OptimizerSettings(0.05, milestones=[1, 3], decay=0.1)])
def test_a_lengthened_run_follows_the_schedule_of_its_new_length(optimizer, data, tmp_path):
    recipe = replace(RECIPE, optimizer=optimizer)
    expected, seen = Rates(), Rates()
    train(longer(recipe, 5), tmp_path / "whole", data=data, callbacks=[expected])
    train(recipe, tmp_path / "run", data=data)
    train(longer(recipe, 5), tmp_path / "run", data=data, callbacks=[seen], checkpoint=latest(tmp_path / "run"))
    assert seen.seen == expected.seen[2:]
    schedules = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["lr_schedulers"][0]
        for name in ("whole", "run")
    ]
    assert schedules[0]["_last_lr"] == schedules[1]["_last_lr"]
    assert schedules[0]["_last_lr"][0] == pytest.approx(0 if not optimizer.milestones else 5e-4, abs=1e-12)
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["trainer"]["epochs"] == 5
    assert len(RunResult.read(tmp_path / "run").history) == 5
