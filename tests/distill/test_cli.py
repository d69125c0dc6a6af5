"""The command line: a teacher, a student of it, going on, and mistakes that get a line instead of a traceback."""

import json

import pytest
import torch
import yaml

from itrd_distill.cli import main


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    main(["train", "--student", "convnet_32_64", "--trainer.epochs", "2", "--out", str(folder)])
    return folder / "weights.pt"


def student_of(teacher, *further):
    return [
        "train", "--student", "convnet_8_16", "--teacher.model", "convnet_32_64", "--teacher.checkpoint", str(teacher),
        "--data.options.train_images", "200", *further,
    ]  # fmt: skip


def test_student_is_trained_from_a_saved_teacher_and_goes_on(teacher, tmp_path, capsys):
    options = ["--loss.name", "itrd", "--loss.options.alpha", "1.01", "--out", str(tmp_path)]
    main(student_of(teacher, *options, "--trainer.epochs", "2", "--method", "itrd_same"))
    assert "epoch   2/2" in capsys.readouterr().out
    saved = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert saved["loss"] == {"name": "itrd", "cross_entropy_weight": 1.0, "options": {"alpha": 1.01}}

    # The saved recipe is a recipe; what the command line says wins.
    main(
        [
            "train",
            "--recipe",
            str(tmp_path / "recipe.yaml"),
            "--trainer.epochs",
            "3",
            "--out",
            str(tmp_path),
            "--resume",
        ]
    )
    printed = capsys.readouterr().out
    assert "epoch   3/3" in printed
    assert "epoch   2/3" not in printed
    result = json.loads((tmp_path / "run.json").read_text())
    assert (result["method"], len(result["history"])) == ("itrd_same", 3)


def test_resume_without_a_checkpoint_starts(teacher, tmp_path, capsys):
    main(student_of(teacher, "--loss.name", "kd", "--trainer.epochs", "1", "--out", str(tmp_path), "--resume"))
    assert "epoch   1/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--student", "resnet1000"], "model must be one of .*convnet_8_16.*'resnet1000'"),
        (["--data.name", "mnist"], "data must be one of digits.*'mnist'"),
        (["--loss.name", "kd"], "needs a teacher"),
        (["--teacher.model", "convnet_32_64", "--loss.name", "kd"], "train the teacher first"),
        (["--data.options.train_images", "3"], "between 10 and 1190, or be all 1200; got 3"),
        (["--ckpt-path", "nowhere.ckpt"], "no checkpoint at nowhere.ckpt"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        main(["train", *arguments, "--out", str(tmp_path)])


def test_unknown_loss_is_named(teacher, tmp_path):
    with pytest.raises(SystemExit, match=r"loss must be one of kd, .*'crdd'"):
        main(student_of(teacher, "--loss.name", "crdd", "--out", str(tmp_path)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint", "cannot be read as a checkpoint"),
        ({"model": {"fc.weight": torch.zeros(2)}}, "does not fit"),
    ],
)
def test_unusable_teacher_is_named(content, message, tmp_path):
    path = tmp_path / "teacher.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(SystemExit, match=message):
        main(student_of(path, "--loss.name", "kd", "--out", str(tmp_path / "run")))
