"""Speeds measured apart: every method gets its turn in every round, and trains as a run would."""

from dataclasses import replace

import pytest
import torch

from itrd_distill import speed
from itrd_distill.data import create_data
from itrd_distill.models import create_model
from itrd_distill.training.settings import DataSettings, LossSettings, Recipe, TrainerSettings

RECIPE = Recipe(student="convnet_8_16", data=DataSettings(batch_size=32), trainer=TrainerSettings(accelerator="cpu"))
RECIPES = {name: replace(RECIPE, loss=LossSettings(name)) for name in ("none", "kd", "itrd")}


@pytest.fixture
def models():
    return create_data("digits", train_images=100), create_model("convnet_32_64", 10)


def test_methods_take_turns(models, monkeypatch):
    turns = []

    def noted(seconds, module, *rest):
        turns.append((seconds, type(module.loss).__name__))
        return float(len(turns))

    monkeypatch.setattr(speed, "_train_for", noted)
    data, teacher = models
    found = speed.measure_speeds(RECIPES, data, teacher, rounds=2, seconds=0.5)
    each = ["NoneType", "KDLoss", "ITRDLoss"]
    assert turns == [(seconds, name) for seconds in (0, 0.5, 0.5) for name in each]
    assert found == {"none": [4.0, 7.0], "kd": [5.0, 8.0], "itrd": [6.0, 9.0]}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_what_is_measured_is_training(precision, models, monkeypatch):
    modules = []
    prepare = speed._prepare

    def noted(*arguments):
        prepared = prepare(*arguments)
        modules.append((prepared[0], prepared[0].student.get_parameter("fc.weight").detach().clone()))
        return prepared

    monkeypatch.setattr(speed, "_prepare", noted)
    recipes = {name: replace(r, trainer=replace(r.trainer, precision=precision)) for name, r in RECIPES.items()}
    data, teacher = models
    found = speed.measure_speeds(recipes, data, teacher, rounds=1, seconds=0.05)
    assert all(values[0] > 0 for values in found.values())
    for module, before in modules:
        assert module.training
        assert not torch.equal(module.student.get_parameter("fc.weight"), before)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_speed_is_that_of_the_precision_asked_for(precision, dtype, models):
    """Of every method: the teacher that they share is converted for each anew."""
    data, teacher = models
    seen = set()

    def note(module, arguments, output):
        if isinstance(module, torch.nn.Conv2d) and module.training:
            seen.add((arguments[0].dtype, output.dtype))

    recipes = {name: replace(r, trainer=replace(r.trainer, precision=precision)) for name, r in RECIPES.items()}
    with torch.nn.modules.module.register_module_forward_hook(note):
        found = speed.measure_speeds(recipes, data, teacher, rounds=1, seconds=0.01)
    assert seen == {(dtype, dtype)}
    assert all(values[0] > 0 for values in found.values())
    assert teacher.fc.weight.dtype == torch.float32
