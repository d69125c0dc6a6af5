"""One run: what is trained, what stays frozen, what is saved, and how it goes on after a break."""

import math
from dataclasses import replace

import lightning as L
import pytest
import torch
import torch.nn.functional as F

from itrd_distill.data import create_data
from itrd_distill.losses import Outputs, create_loss, loss_names
from itrd_distill.models import create_model
from itrd_distill.training.module import Distiller
from itrd_distill.training.preparation import prepare
from itrd_distill.training.run import RunResult, probe, train
from itrd_distill.training.settings import (
    DataSettings,
    LossSettings,
    OptimizerSettings,
    Recipe,
    TeacherSettings,
    TrainerSettings,
)
from itrd_kernels import formulas

RECIPE = Recipe(
    student="convnet_8_16",
    loss=LossSettings("itrd"),
    data=DataSettings("digits", batch_size=32),
    trainer=TrainerSettings(epochs=4, accelerator="cpu"),
)

# On 100 images and two small stages the defaults for CIFAR are out of place in a few.
OPTIONS = {
    "fitnet": {"stage": 1},
    "crd": {"negatives": 50},
    "wcord": {"negatives": 50},
    "ft": {"preparation_epochs": 2},
}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal_states(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


def module_for(student, teacher, data, loss):
    criterion = create_loss(loss.name, probe(student, teacher, data), **loss.options)
    return Distiller(student, teacher, criterion, 10, OptimizerSettings(), loss.cross_entropy_weight)


def test_objective_is_cross_entropy_plus_the_loss_of_the_paper(data, teacher):
    student = create_model("convnet_8_16", 10)
    module = module_for(student, teacher, data, LossSettings("itrd", 0.5, {"alpha": 1.5}))
    batch = data.train.__getitems__([(0, i) for i in range(32)])
    step = module.train().training_step(batch, 0)

    logits, features = student(batch.images, return_features=True)
    z_t = teacher(batch.images, return_features=True)[1].penultimate
    z_e = module.loss.criterion.embed(features.penultimate)
    correlation = formulas.correlation.correlation(z_e, z_t, 1.5)
    mutual_information = formulas.mutual_information.mutual_information(z_e, z_t, False)
    expected = 0.5 * F.cross_entropy(logits, batch.labels) + 2.0 * correlation + 1.0 * mutual_information
    torch.testing.assert_close(step["loss"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step["terms"]["correlation"], correlation, rtol=1e-4, atol=1e-5)


def test_embedding_is_trained_and_teacher_frozen(data, teacher, tmp_path):
    before, seen = state(teacher), {}

    class Watch(L.Callback):
        def on_train_start(self, trainer, module):
            seen["embedding"] = module.loss.criterion.embed.weight.detach().clone()

        def on_train_end(self, trainer, module):
            seen["trained"] = module.loss.criterion.embed.weight.detach().clone()
            seen["modes"] = (module.student.training, module.teacher.training)

    teacher.train()
    train(RECIPE, tmp_path, data=data, teacher=teacher, callbacks=[Watch()])
    assert (seen["embedding"] - seen["trained"]).abs().max() > 1e-3
    assert seen["modes"] == (True, False)
    assert_equal_states(before, state(teacher))
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {name.split(".")[0] for name in saved} == {"student", "loss"}


class Break(L.Callback):
    """Breaks off at the first step of the given epoch, as a crash would."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.current_epoch == self.epoch and batch_index == 1:
            raise RuntimeError("broken off")


@pytest.mark.parametrize("loss", ["none", *loss_names()])
def test_resumed_run_ends_like_an_unbroken_one(loss, data, teacher, tmp_path):
    recipe = replace(RECIPE, loss=LossSettings(loss, options=OPTIONS.get(loss, {})), optimizer=OptimizerSettings(0.001))
    whole, expected = train(recipe, tmp_path / "whole", data=data, teacher=teacher)
    with pytest.raises(RuntimeError, match="broken off"):
        train(recipe, tmp_path / "broken", data=data, teacher=teacher, callbacks=[Break(2)])
    torch.manual_seed(12345)
    checkpoint = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    resumed, result = train(recipe, tmp_path / "broken", data=data, teacher=teacher, checkpoint=checkpoint)
    assert_equal_states(state(whole), state(resumed))
    assert [row["epoch"] for row in result.history] == [0, 1, 2, 3]
    assert [row["loss"] for row in result.history] == [row["loss"] for row in expected.history]


def test_seed_fixes_everything(data, teacher, tmp_path):
    recipe = replace(RECIPE, trainer=replace(RECIPE.trainer, epochs=1))
    runs = [
        train(replace(recipe, seed=seed), tmp_path / str(i), data=data, teacher=teacher)[0]
        for i, seed in enumerate((3, 3, 4))
    ]
    assert_equal_states(state(runs[0]), state(runs[1]))
    assert (runs[0].fc.weight - runs[2].fc.weight).abs().max() > 1e-3


def test_result_is_read_back(data, tmp_path):
    recipe = replace(RECIPE, loss=LossSettings("none"), trainer=replace(RECIPE.trainer, epochs=2), method="plain")
    _, result = train(recipe, tmp_path, data=data)
    assert RunResult.read(tmp_path) == result
    assert result.method == "plain"
    assert result.test_accuracy == result.history[-1]["test_accuracy"]


def test_a_loss_needs_a_teacher(data):
    student = create_model("convnet_8_16", 10)
    with pytest.raises(ValueError, match="needs a teacher"):
        Distiller(student, None, object(), 10, OptimizerSettings())


def test_plain_training_asks_for_no_teachers_weights(data, tmp_path):
    recipe = replace(
        RECIPE,
        loss=LossSettings("none"),
        trainer=TrainerSettings(1, "cpu"),
        teacher=TeacherSettings("vgg13", "none.pt"),
    )
    train(recipe, tmp_path, data=data)
    with pytest.raises(FileNotFoundError, match="no checkpoint at none.pt"):
        train(replace(recipe, loss=LossSettings("kd")), tmp_path / "kd", data=data)


def test_channels_last_changes_nothing_but_rounding(tmp_path):
    data = create_data("digits", train_images=20, enlarged=True)
    data = data._replace(test=data.train)
    recipe = Recipe(student="resnet8", data=DataSettings(batch_size=10), trainer=TrainerSettings(1, "cpu"))
    plain, _ = train(recipe, tmp_path / "plain", data=data)
    other, _ = train(replace(recipe, trainer=replace(recipe.trainer, channels_last=True)), tmp_path / "last", data=data)
    assert other.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(other.state_dict(), plain.state_dict(), rtol=1e-2, atol=1e-3)


def test_probe_leaves_the_models_alone(data, teacher):
    student = create_model("convnet_8_16", 10).train()
    before = state(student)
    context = probe(student, teacher, data)
    assert_equal_states(before, state(student))
    assert student.training
    assert isinstance(context.student, Outputs)
    assert context.teacher.features.penultimate.shape == (2, 64)


@pytest.mark.parametrize("loss", loss_names())
def test_every_method_trains_all_it_holds(loss, data, teacher, tmp_path):
    seen = {}

    class Watch(L.Callback):
        def on_train_start(self, trainer, module):
            seen["before"] = {name: p.detach().clone() for name, p in module.loss.named_parameters()}

        def on_train_end(self, trainer, module):
            seen["after"] = dict(module.loss.named_parameters())

    settings = LossSettings(loss, options=OPTIONS.get(loss, {}))
    recipe = replace(
        RECIPE, loss=settings, trainer=replace(RECIPE.trainer, epochs=2), optimizer=OptimizerSettings(0.001)
    )
    _, result = train(recipe, tmp_path, data=data, teacher=teacher, callbacks=[Watch()])
    terms = set(result.history[-1]) - {"epoch", "loss", "cross_entropy", "test_accuracy", "images_per_second"}
    assert terms
    assert all(math.isfinite(row[name]) for row in result.history for name in (*terms, "loss"))
    for name, before in seen["before"].items():
        after = seen["after"][name]
        assert after.requires_grad != torch.equal(before, after), name


def test_preparation_lowers_the_reconstruction_error_and_freezes(data, teacher):
    recipe = replace(RECIPE, loss=LossSettings("ft"), data=DataSettings(batch_size=16))
    student = create_model("convnet_8_16", 10)
    loss = create_loss("ft", probe(student, teacher, data), preparation_epochs=25)
    images = data.train.__getitems__([(0, i) for i in range(100)]).images
    with torch.no_grad():
        outputs = Outputs(*teacher.eval()(images, return_features=True))
        before, translator = loss.preparation(outputs), state(loss.translator)
        prepare(loss, teacher, data, recipe)
        assert loss.preparation(outputs) < 0.9 * before
    assert not any(p.requires_grad for part in loss.prepared() for p in part.parameters())
    assert_equal_states(translator, state(loss.translator))


def test_a_binary_student_is_told_of_its_progress(tmp_path):
    """Three epochs: τ stands at 0, 1/3 and 2/3 of its course while they run."""
    seen = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            if batch_index == 0:
                seen.append(module.student.layers[0][0].conv1.tau)

    data = create_data("digits", train_images=20, enlarged=True)
    data = data._replace(test=data.train)
    recipe = Recipe(student="resnet18A_1bit", data=DataSettings(batch_size=10), trainer=TrainerSettings(3, "cpu"))
    train(recipe, tmp_path, data=data, callbacks=[Watch()])
    course = [0.85 + 0.14 * (math.exp(share) - 1) / (math.e - 1) for share in (0, 1 / 3, 2 / 3)]
    assert seen == pytest.approx(course)
