"""Recipes: every one resolves to settings that its models, data and loss accept, and says what the paper says."""

import pytest
import yaml

from itrd_distill import data, losses, models, recipes
from itrd_distill.cli import main, recipe_first, train_parser

# Table 1 of the paper.
WITHIN = [
    "wrn_40_2-wrn_16_2", "wrn_40_2-wrn_40_1", "resnet56-resnet20", "resnet110-resnet20", "resnet110-resnet32",
    "resnet32x4-resnet8x4", "vgg13-vgg8",
]  # fmt: skip
ACROSS = [
    "vgg13-MobileNetV2", "ResNet50-MobileNetV2", "ResNet50-vgg8", "resnet32x4-ShuffleV1", "resnet32x4-ShuffleV2",
    "wrn_40_2-ShuffleV1",
]  # fmt: skip


def parsed(*arguments):
    parser = train_parser()
    return parser.instantiate(parser.parse_args(recipe_first(list(arguments))))


def test_every_recipe_names_what_there_is():
    for name in recipes.names():
        settings = recipes.resolve(name)
        assert settings["student"] in models.model_names(), name
        assert settings["data"]["name"] in data.data_names(), name
        loss = settings.get("loss", {"name": "none"})
        if loss["name"] == "none":
            continue
        assert settings["teacher"]["model"] in models.model_names(), name
        assert set(loss.get("options", {})) <= set(losses.loss_options(loss["name"])), name


def test_cifar100_holds_all_pairs_and_methods_of_the_paper():
    names = [name.removeprefix("cifar100/") for name in recipes.names() if name.startswith("cifar100/")]
    expected = {f"{pair}-{method}" for pair in WITHIN + ACROSS for method in recipes.methods()}
    assert expected == {name for name in names if "-" in name}
    assert len(recipes.methods()) == 15
    teachers = {pair.split("-")[0] for pair in WITHIN + ACROSS}
    assert teachers <= set(names)


@pytest.mark.parametrize("pair", WITHIN + ACROSS)
def test_cifar100_settings_are_those_of_the_paper(pair):
    settings = parsed("--recipe", f"cifar100/{pair}-itrd")
    small = pair.split("-")[1] in ("MobileNetV2", "ShuffleV1", "ShuffleV2")
    optimizer = settings.optimizer
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.01 if small else 0.05, 0.9, 5e-4)
    assert (optimizer.milestones, optimizer.decay) == ([150, 180, 210], 0.1)
    assert (settings.trainer.epochs, settings.data.batch_size) == (240, 64)
    assert settings.loss.options == {"beta_corr": 2.0, "beta_mi": 1.0, "alpha": 1.01 if pair in WITHIN else 1.5}
    assert parsed("--recipe", f"cifar100/{pair}-itrd_corr").loss.options["beta_mi"] == 0.0
    assert settings.teacher.model == pair.split("-")[0]


def test_imagenet_settings_are_those_of_the_paper():
    settings = parsed("--recipe", "imagenet/imagenet_resnet34-imagenet_resnet18-itrd")
    assert (settings.trainer.epochs, settings.optimizer.learning_rate, settings.optimizer.decay) == (100, 0.1, 0.1)
    assert settings.optimizer.milestones == [30, 60, 90]
    assert settings.loss.options["alpha"] == 1.01


def test_binary_settings_are_those_of_the_paper():
    settings = parsed("--recipe", "cifar10/ResNet18-resnet18_1bit-itrd")
    assert (settings.trainer.epochs, settings.optimizer.learning_rate, settings.optimizer.milestones) == (600, 0.1, [])
    assert settings.loss.options["alpha"] == 1.01
    assert settings.teacher.model == "ResNet18"
    assert parsed("--recipe", "cifar10/ResNet18").trainer.epochs == 240


def test_layers_go_over_one_another():
    assert recipes.resolve("cifar100/resnet110-resnet32-review")["loss"]["options"]["weight"] == 1.0
    assert recipes.resolve("cifar100/vgg13-vgg8-review")["loss"]["options"]["weight"] == 5.0
    assert recipes.resolve("digits/convnet_32_64-convnet_8_16-fitnet")["loss"]["options"] == {
        "weight": 100.0,
        "stage": 1,
    }


def test_a_data_set_may_leave_teachers_to_another_and_have_its_own_for_a_student():
    settings = parsed("--recipe", "cifar10_jpeg_10k/resnet8x4-resnet8_1bit-itrd")
    assert settings.teacher.checkpoint == "runs/cifar10_jpeg/resnet8x4/seed0/weights.pt"
    assert recipes.teacher_recipe("cifar10_jpeg_10k/resnet8x4-resnet8_1bit") == "cifar10_jpeg/resnet8x4"
    assert recipes.teacher_recipe("cifar100/wrn_40_2-wrn_16_2") == "cifar100/wrn_40_2"
    assert (settings.data.batch_size, settings.trainer.epochs, settings.loss.options["alpha"]) == (64, 5, 1.01)
    assert parsed("--recipe", "cifar10_jpeg_10k/resnet8x4-wrn_16_1-itrd").loss.options["alpha"] == 1.5
    # A model trained plainly: the data set's settings for it hold as well.
    assert parsed("--recipe", "cifar10_jpeg_10k/resnet8_1bit").trainer.epochs == 5


def test_download_is_a_word(monkeypatch):
    seen = []
    monkeypatch.setattr("itrd_distill.commands.train.train_command", lambda recipe, *_: seen.append(recipe))
    main(["train", "--download", "--recipe", "cifar100/vgg8"])
    main(["train", "--recipe", "cifar100/vgg8", "--download"])
    main(["train", "--recipe", "cifar100/vgg8"])
    assert [recipe.data.download for recipe in seen] == [True, True, False]


@pytest.mark.parametrize("first", [True, False])
def test_the_command_line_goes_over_the_recipe(first):
    recipe = ["--recipe", "cifar100/wrn_40_2-wrn_16_2-itrd"]
    own = ["--optimizer.learning_rate", "0.2", "--loss.options.alpha", "3.5", "--trainer.epochs", "7"]
    settings = parsed(*(recipe + own if first else own + recipe))
    assert (settings.optimizer.learning_rate, settings.trainer.epochs) == (0.2, 7)
    assert settings.loss.options == {"beta_corr": 2.0, "beta_mi": 1.0, "alpha": 3.5}


def test_a_teacher_is_found_where_its_recipe_leaves_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["train", "--recipe", "digits/convnet_32_64", "--trainer.epochs", "1"])
    main(["train", "--recipe", "digits/convnet_32_64-convnet_8_16-kd", "--trainer.epochs", "1", "--seed", "5"])
    folder = tmp_path / "runs" / "digits" / "convnet_32_64-convnet_8_16-kd" / "seed5"
    saved = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (saved["name"], saved["trainer"]["epochs"]) == ("digits/convnet_32_64-convnet_8_16-kd", 1)
    assert "kd, seed 5: test accuracy" in capsys.readouterr().out


def test_recipes_are_listed(capsys):
    main(["recipes", "vgg13-vgg8-"])
    assert capsys.readouterr().out.split() == [f"cifar100/vgg13-vgg8-{method}" for method in recipes.methods()]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist/vgg13", "data set must be one of .*cifar100.*'mnist'"),
        ("cifar100/vgg14", "model must be one of .*'vgg14'"),
        ("cifar100/vgg13-vgg8", "neither DATASET/MODEL nor DATASET/TEACHER-STUDENT-METHOD"),
        ("cifar100/vgg14-vgg8-kd", "teacher must be .*'vgg14'"),
        ("cifar100/vgg13-vgg9-kd", "student must be .*'vgg9'"),
        ("cifar100/vgg13-vgg8-dk", "method must be .*itrd.*'dk'"),
    ],
)
def test_unknown_parts_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        recipes.resolve(name)
    with pytest.raises(SystemExit, match=message):
        main(["train", "--recipe", name])
