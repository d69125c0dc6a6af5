"""Mistakes on the command line and in recipe files: one line that names the setting, before anything is written."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from itrd_distill import options
from itrd_distill.cli import main
from itrd_distill.losses import Context, Outputs, create_loss, loss_names
from itrd_distill.models import Features
from itrd_distill.training.settings import (
    DataSettings,
    LossSettings,
    OptimizerSettings,
    Recipe,
    TeacherSettings,
    TrainerSettings,
)

PAIR = "digits/convnet_32_64-convnet_8_16"
TEACHER = ["--teacher.model", "convnet_32_64", "--teacher.checkpoint", "teacher.pt"]


def mistake(*arguments):
    """What the command says; it must end with one line and have written nothing."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = ended.value.code
    assert isinstance(said, str), "no line, but an exit status"
    assert said.startswith("itrd-distill: ")
    assert len(said.splitlines()) == 1
    return said.removeprefix("itrd-distill: ")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """An empty folder, which stays so."""
    monkeypatch.chdir(tmp_path)
    yield
    assert [path for path in tmp_path.iterdir() if path.suffix != ".yaml"] == []


@pytest.mark.parametrize(
    ("setting", "values", "expected"),
    [
        ("trainer.epochs", ["0", "-1", "1.5", "2.0", "true", "null", "many", "[3]"], "an integer ≥ 1"),
        ("trainer.checkpoint_every", ["0", "-1"], "an integer ≥ 1"),
        ("trainer.devices", ["-2", "1000000000"], "an integer ≥ -1 and ≤ 1024 or text"),
        ("trainer.channels_last", ["2"], "true or false"),
        ("data.batch_size", ["1", "0", "1e2"], "an integer ≥ 2"),
        ("data.test_batch_size", ["0"], "an integer ≥ 1"),
        ("data.workers", ["-1", "0.5"], "an integer ≥ 0"),
        ("data.download", ["3"], "true or false"),
        ("data.options", ["3", "null"], "a mapping"),
        ("data.options.train_images", ["0", "abc", "1.5", "true"], "an integer ≥ 1 or null"),
        ("data.options.validation", ["3", "abc"], "true or false"),
        ("optimizer.learning_rate", ["0", "-0.1", "nan", "inf", "1e400", "abc", "null"], "a finite number > 0"),
        ("optimizer.momentum", ["1", "-0.1", "nan"], "a finite number ≥ 0 and < 1"),
        ("optimizer.weight_decay", ["-1", "inf"], "a finite number ≥ 0"),
        ("optimizer.decay", ["0", "nan"], "a finite number > 0"),
        ("optimizer.milestones", ["3", "[0]", "[3, 2]", "[2, 2]", "[1.5]", "[a]"], "a list, each an integer ≥ 1"),
        ("loss.cross_entropy_weight", ["-1", "nan"], "a finite number ≥ 0"),
        ("seed", ["-1", "4294967296", "1.0", "abc"], "an integer ≥ 0 and ≤ 4294967295"),
        ("method", ["../x", "..", ".", "/x", "", "a\nb", "a\x1b[31m"], "text on one line that may name a folder"),
        ("name", ["../../x", "/etc/x"], "text on one line that may name a folder"),
        ("student", ["timm/../../x"], "text on one line that may name a folder"),
        ("teacher.cache", [""], "text that is not empty or null"),
        ("data.root", [""], "text that is not empty"),
        ("data.options", ["&d {a: *d}"], "a mapping"),
    ],
)
def test_settings_have_types_and_ranges(setting, values, expected):
    for value in values:
        assert f"{setting} must be {expected}" in mistake("train", f"--{setting}={value}"), value


@pytest.mark.parametrize(
    ("loss", "option", "values", "expected"),
    [
        ("itrd", "alpha", ["abc", "0", "-1", "inf", "nan", "null", "[1]", "true", ""], "a finite number > 0"),
        ("itrd", "beta_corr", ["-1", "abc", "{a: 1}"], "a finite number ≥ 0"),
        ("itrd", "backend", ["fast", "3"], "text that is one of auto, reference, cpu, triton, cuda"),
        ("kd", "weight", ["abc", "-1"], "a finite number ≥ 0"),
        ("kd", "temperature", ["-4", "0"], "a finite number > 0"),
        ("crd", "negatives", ["0", "1.5"], "an integer ≥ 1"),
        ("crd", "width", ["0"], "an integer ≥ 1"),
        ("crd", "momentum", ["2", "-1"], "a finite number ≥ 0 and ≤ 1"),
        ("wcord", "iterations", ["0"], "an integer ≥ 1"),
        ("wcord", "regularisation", ["0"], "a finite number > 0"),
        ("ft", "rate", ["0"], "a finite number > 0"),
        ("ft", "preparation_epochs", ["-1", "1.5"], "an integer ≥ 0"),
        ("fitnet", "stage", ["-1", "last"], "an integer ≥ 0"),
        ("review", "ramp_epochs", ["-1"], "an integer ≥ 0"),
    ],
)
def test_options_of_losses_have_types_and_ranges(loss, option, values, expected):
    for value in values:
        said = mistake("train", *TEACHER, "--loss.name", loss, f"--loss.options.{option}={value}")
        assert f"loss.options.{option} must be {expected}, got " in said, value


@pytest.mark.parametrize("name", loss_names())
def test_every_option_of_every_loss_says_what_it_may_be(name):
    """A loss that joins has to declare its options, and none takes a text or a list where it wants a number."""
    maps = tuple(torch.zeros(4, 8, size, size) for size in (8, 8, 4))
    models = Outputs(torch.zeros(4, 10), Features(maps, torch.zeros(4, 8)))
    context = Context(models, models, torch.arange(20) % 10)
    create_loss(name, context)
    for option in options.parameters_of(type(create_loss(name, context)), ("context",)):
        for wrong in ("abc", [1], None, {}):
            with pytest.raises(ValueError, match=rf"^loss.options.{option} must be "):
                create_loss(name, context, **{option: wrong})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.epoch", "3"], "unrecognized arguments: --trainer.epoch 3; --help lists"),
        (["--trainer.ep", "3"], "unrecognized arguments: --trainer.ep 3"),
        (["--see", "3"], "unrecognized arguments: --see 3"),
        (["--loss.option.alpha", "3"], "unrecognized arguments: --loss.option.alpha 3"),
        (["stray"], "unrecognized arguments: stray"),
        (["--data.options.foo", "3"], "data digits takes the options train_images, validation, enlarged; got 'foo'"),
        (["--data.name", "packed_jpeg"], "data packed_jpeg needs the option data.options.file"),
        (["--trainer.epochs"], "--trainer.epochs: expected one argument"),
        (["--loss", "3"], "loss"),
        (["--loss.cross_entropy_weight", "0"], "there is nothing to learn from"),
        (["--student", "resnet1000"], "student: model must be one of"),
        (["--teacher.checkpoint", "x.pt"], "teacher.model, whose weights these are, is not given"),
        ([*TEACHER, "--loss.name", "kd", "--loss.options.foo", "1"], "loss kd takes the options weight, temperature"),
        ([*TEACHER, "--loss.name", "crdd"], "loss must be one of kd, .*'crdd'"),
        ([*TEACHER], "teacher.model, teacher.checkpoint given without a loss: choose --loss.name, one of kd, .*itrd"),
        (["--teacher.model", "convnet_32_64"], "teacher.model given without a loss"),
        (["--teacher.cache", "cache"], "teacher.cache given without a loss"),
        (["--loss.options.alpha", "2"], "loss.options.alpha given without a loss"),
        (["--recipe", "digits/convnet_32_64", "--teacher.model", "vgg13"], "teacher.model given without a loss"),
        (["--trainer.accelerator", "gpuu"], "Lightning does not take trainer.accelerator 'gpuu'.*Available names"),
        (["--trainer.precision", "17"], "trainer.precision '17': Precision '17' is invalid"),
        (["--trainer.accelerator", "cpu", "--trainer.devices", "0"], "trainer.devices 0"),
        (["--trainer.accelerator", "cpu", "--trainer.devices", "some"], "trainer.devices 'some'"),
        (
            [*TEACHER, "--loss.name", "itrd", "--loss.options.backend", "cuda", "--trainer.accelerator", "cpu"],
            "loss.options.backend is cuda, which cannot run on cpu",
        ),
    ],
)
def test_mistakes_are_named(arguments, message):
    assert re.search(message, mistake("train", *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of {demo,train,compare,probe,recipes}"),
        (["trian"], "invalid choice: 'trian'"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["recipes", "a", "b"], "unrecognized arguments: b"),
        (["probe"], "required: probe.weights"),
        (["demo", "--seeds", "x"], "seeds must be an integer, got x"),
        (["demo", "--seeds", "0"], "seeds must be ≥ 1, got 0"),
        (["demo", "--epoch", "1"], "unrecognized arguments: --epoch 1"),
        (["probe", "--weights", "w.pt", "--data.batch_size", "1"], "data.batch_size must be an integer ≥ 2, got 1"),
        (
            ["probe", "--weights", "w.pt", "--recipe", f"{PAIR}-kd"],
            "loss.name is kd, but a probe learns by cross-entropy",
        ),
        (["compare"], "required: compare.pair"),
        (["train", "--out", ""], "--out must name a folder, got ''"),
        (["compare", PAIR, "--out="], "--out must name a folder, got ''"),
        (["demo", "--out", ""], "--out must name a folder, got ''"),
        (["probe", "--weights", "w.pt", "--out", ""], "--out must name a folder, got ''"),
        (["probe", "--weights", "w.pt", *TEACHER], "no checkpoint at w.pt"),
    ],
)
def test_every_command_says_its_mistakes_in_a_line(arguments, message):
    assert message in mistake(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "3"], "--seed is none of compare's: .*--seeds says how many"),
        (["--method=x"], "--method is none of compare's"),
        (["--methods", "kd", "--loss.name", "none"], "--loss.name is none of compare's: .*--methods says which"),
        (
            ["--methods", "kd", "--loss", "{name: none}"],
            "loss.name is none, but that of method kd is kd: leave it out, --methods",
        ),
        (["--sweep", "loss.options.alpha=1,2", "--methods", "none"], "method none has no distillation loss that would"),
        (["--resume"], "unrecognized arguments: --resume"),
        (["--trainer.epoch", "3"], "unrecognized arguments: --trainer.epoch 3"),
        (["--trainer.epochs", "0"], "trainer.epochs must be an integer ≥ 1, got 0"),
        (["--seeds", "0"], "seeds must be ≥ 1"),
        (["--seeds", "1.5"], "seeds must be an integer, got 1.5"),
        (["--teacher-epochs", "0"], "--teacher-epochs must be an integer ≥ 1 or null, got 0"),
        (["--speed-seconds", "-1"], "--speed-seconds must be a finite number ≥ 0, got -1"),
        (["--speed-seconds", "nan"], "speed_seconds must be a finite number"),
        (["--methods", "kd", "kd"], "--methods names kd twice"),
        (["--methods", "foo"], "invalid choice: 'foo'"),
        (["--probe", "nope"], "data set must be one of .*'nope'"),
        (["--loss.options.alpha", "abc", "--methods", "itrd"], "loss.options.alpha must be a finite number > 0"),
        (["--sweep", "loss.options.alpha=1,1.0", "--methods", "itrd"], "names itrd, alpha = 1 twice"),
        (["--sweep", "loss.options.alpha=nan", "--methods", "itrd"], "alpha must be a finite number > 0, got 'nan'"),
        (["--sweep", "loss.options.alpha=", "--methods", "itrd"], "--sweep must look like"),
        (["--sweep", "loss.options.alpa=1", "--methods", "itrd"], "takes the options .*'alpa'"),
        (["--sweep", "loss.alpha=1", "--methods", "itrd"], "there is no setting loss.alpha"),
        (["--sweep", "seeds=1,2", "--methods", "itrd"], "--sweep must look like"),
        (["--sweep", "loss.options.../x=1", "--methods", "itrd"], "--sweep must look like"),
        (["--sweep", "trainer.epochs=1.5", "--methods", "itrd"], "trainer.epochs must be an integer ≥ 1, got 1.5"),
        (["--recipe", "nowhere.yaml"], "'nowhere.yaml'; nor is there a file of this name"),
    ],
)
def test_compare_names_mistakes_too(arguments, message, monkeypatch):
    assert re.search(message, mistake("compare", PAIR, *arguments))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n", r"r.yaml must hold settings, such as `seed: 1`, got \['a'\]"),
        (b"", "r.yaml must hold settings"),
        (b"3", "r.yaml must hold settings"),
        (b"\xff\xfe", "r.yaml is no YAML"),
        (b"trainer: [", "r.yaml is no YAML"),
        (b"!!python/object/apply:os.mkdir [planted]", "r.yaml is no YAML: could not determine a constructor"),
        (b"foo: 3", "r.yaml: there is no setting foo"),
        (b"trainer: {epoch: 3}", "r.yaml: there is no setting trainer.epoch"),
        (b"trainer: 3", "r.yaml: trainer must be a mapping of settings, got 3"),
        (b"loss: null", "r.yaml: loss must be a mapping of settings, got None"),
        (b"trainer: {epochs: 0}", "trainer.epochs must be an integer ≥ 1, got 0"),
        (b"trainer: {epochs: abc}", "trainer.epochs must be an integer ≥ 1, got abc"),
        (b"loss: {name: kd, options: {temperature: -1}}", "loss.options.temperature must be a finite number > 0"),
        (b"loss: {options: {temperature: 1}}", "loss.options.temperature given without a loss"),
        (b"data: &d {options: *d}", "r.yaml: a mapping or a list contains itself"),
        (b"data: {options: {a: &l [[*l]]}}", "r.yaml: a mapping or a list contains itself"),
        (b"data: " + 3000 * b"[", "r.yaml is no YAML: maximum recursion depth"),
    ],
)
def test_recipe_files_are_checked(content, message, tmp_path):
    (tmp_path / "r.yaml").write_bytes(content)
    assert re.search(message, mistake("train", "--recipe", "r.yaml"))


@pytest.mark.parametrize("value", ["nowhere.yaml", "/", "../x", "\udcff"])
def test_a_recipe_that_there_is_not(value):
    assert "nor is there a file of this name" in mistake("train", "--recipe", value)


def trained(monkeypatch, *arguments):
    seen = []
    monkeypatch.setattr("itrd_distill.commands.train.train_command", lambda recipe, *_: seen.append(recipe))
    main(["train", *arguments])
    return seen[0]


def test_a_teacher_that_is_not_asked_is_said(monkeypatch, capsys):
    recipe = trained(monkeypatch, "--recipe", f"{PAIR}-none")
    assert (recipe.loss.name, recipe.teacher.model) == ("none", "convnet_32_64")
    assert capsys.readouterr().err == (
        "itrd-distill: loss.name is none: teacher.model, teacher.checkpoint will not be looked at\n"
    )
    assert trained(monkeypatch).loss.name == "none"
    assert capsys.readouterr().err == ""
    mistake("probe", "--weights", "w.pt", *TEACHER)
    assert "a probe has no teacher: teacher.model, teacher.checkpoint will not be looked at" in capsys.readouterr().err


def test_options_that_a_method_of_a_comparison_does_not_read_are_said(monkeypatch, capsys):
    monkeypatch.setattr("itrd_distill.commands.compare.compare", lambda *_, **__: None)
    main(["compare", PAIR, "--methods", "none", "kd", "--loss.options.temperature", "3"])
    assert capsys.readouterr().err == (
        "itrd-distill: method none has no distillation loss: loss.options.temperature will not be looked at\n"
    )


def test_good_settings_are_taken_as_before(monkeypatch):
    options = ["--loss.name", "kd", "--loss.options.weight", "1e-3", "--loss.options.temperature", "4", *TEACHER]
    recipe = trained(monkeypatch, *options, "--optimizer.milestones", "[1,3]", "--data.options.train_images", "null")
    assert recipe.loss.options == {"weight": 0.001, "temperature": 4}
    assert (recipe.optimizer.milestones, recipe.data.options) == ([1, 3], {"train_images": None})
    assert trained(monkeypatch, "--trainer.epochs", "2", "--trainer.epochs", "3").trainer.epochs == 3
    assert trained(monkeypatch, "--trainer.epochs", "010").trainer.epochs == 10


def number(value) -> Any:
    """The value, of a type that mypy does not look at."""
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainerSettings(epochs=0), "trainer.epochs must be an integer ≥ 1, got 0"),
        (lambda: TrainerSettings(epochs=True), "trainer.epochs must be an integer ≥ 1, got True"),
        (lambda: TrainerSettings(devices=True), "trainer.devices must be"),
        (lambda: DataSettings(batch_size=number(16.0)), "data.batch_size must be an integer ≥ 2, got 16.0"),
        (lambda: OptimizerSettings(learning_rate=number("0.1")), "optimizer.learning_rate must be a finite number > 0"),
        (lambda: OptimizerSettings(learning_rate=10**400), "optimizer.learning_rate must be a finite number > 0"),
        (lambda: Recipe(loss=LossSettings("kd", options={"weight": "1"})), "loss.options.weight must be"),
        (lambda: Recipe(data=DataSettings(options={"size": 3})), "data digits takes the options"),
        (lambda: Recipe(teacher=TeacherSettings("vgg13", "x.pt")), "given without a loss"),
        (lambda: replace(Recipe(), seed=-1), "seed must be"),
    ],
)
def test_settings_made_in_python_are_checked_too(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("loss", "weights", "said"),
    [
        ("itrd", {"beta_corr": 0, "beta_mi": 0.0}, True),
        ("itrd", {"beta_corr": 0}, False),
        ("kd", {"weight": 0}, True),
        ("rkd", {"weight": 0}, True),
        ("rkd", {"distance_weight": 0, "angle_weight": 0}, True),
        ("rkd", {"angle_weight": 0}, False),
        ("wcord", {"global_weight": 0, "local_weight": 0}, True),
    ],
)
def test_a_distillation_of_weight_0_is_said(loss, weights, said, capsys):
    models = Outputs(torch.zeros(4, 10), Features((), torch.zeros(4, 8)))
    create_loss(loss, Context(models, models, torch.arange(20) % 10), **weights)
    assert ("nothing is distilled" in capsys.readouterr().err) == said
