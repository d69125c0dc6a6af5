"""How a run goes on, and with which other settings or of which other things it does not."""

import json
import shutil
from dataclasses import replace
from math import inf, nan

import pytest
import torch
import yaml
from other_runs import forget, other_images
from small_runs import SMALL, content

from itrd_distill.cli import main
from itrd_distill.models import create_model
from itrd_distill.training.result import RunResult
from itrd_distill.training.run import train
from itrd_distill.training.settings import (
    DataSettings,
    LossSettings,
    Recipe,
    TrainerSettings,
)

RECIPE = Recipe(data=DataSettings(batch_size=20), trainer=TrainerSettings(epochs=2, accelerator="cpu"))
ARGUMENTS = ["train", *SMALL]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A teacher's weights, and a finished run of two epochs of a student of it."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(1)
    torch.save(create_model("convnet_32_64", 10).state_dict(), folder / "teacher.pt")
    main([*student_of(folder), "--out", str(folder / "run")])
    return folder


def student_of(folder, epochs=2):
    return [
        *ARGUMENTS, "--teacher.model", "convnet_32_64", "--teacher.checkpoint", str(folder / "teacher.pt"),
        "--loss.name", "kd", "--loss.options.temperature", "3", "--trainer.epochs", str(epochs),
    ]  # fmt: skip


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"


CHANGES = [
    (["--optimizer.learning_rate", "0.01"], "optimizer.learning_rate 0.05 → 0.01"),
    (["--trainer.epochs", "1"], "trainer.epochs (2 → 1|is 1, but .*last.ckpt has 2 epochs already)"),
    (["--seed", "1", "--method", "other"], "method None → other; seed 0 → 1"),
    (["--optimizer.milestones", "[1]"], r"optimizer.milestones \[\] → \[1\]"),
    (["--student", "convnet_32_64"], "student convnet_8_16 → convnet_32_64"),
    (["--loss.options.temperature", "4"], "loss.options.temperature 3 → 4"),
    (["--loss.options.weight", "0.5"], "loss.options.weight not given → 0.5"),
    (["--data.batch_size", "25"], "data.batch_size 20 → 25"),
    (["--data.options.train_images", "90"], "data.options.train_images 100 → 90"),
    (["--trainer.precision", "bf16-mixed"], "trainer.precision 32-true → bf16-mixed"),
]


@pytest.mark.parametrize(
    ("how", "options", "change"),
    [("finished", *change) for change in CHANGES]
    + [(how, *change) for how in ("half-done", "ckpt-path", "of an older version") for change in CHANGES[:3]],
)
def test_changed_settings_are_refused_by_name(how, options, change, copy):
    run = copy / "run"
    if how != "finished":
        (run / "run.json").unlink()
    if how == "of an older version":
        forget(run)
    before = content(run)
    going_on = ["--ckpt-path", str(run / "checkpoints" / "last.ckpt")] if how == "ckpt-path" else ["--resume"]
    with pytest.raises(SystemExit, match=change) as refused:
        main([*student_of(copy, 5), "--out", str(run), *going_on, *options])
    assert len(str(refused.value).splitlines()) == 1
    assert content(run) == before


@pytest.mark.parametrize("lost", [[], ["run.json", "weights.pt"], ["run.json", "weights.pt", "recipe.yaml"]])
def test_a_run_is_not_shortened_though_its_checkpoint_would_allow_it(lost, made, tmp_path):
    """Its learning rate has followed the course of all five epochs; its checkpoint is of the fourth one."""
    run = tmp_path / "run"
    every = ["--trainer.checkpoint_every", "2", "--trainer.epochs"]
    main([*student_of(made), "--out", str(run), *every, "5"])
    for name in lost:
        (run / name).unlink()
    before = content(run)
    with pytest.raises(SystemExit, match="trainer.epochs 5 → 4"):
        main([*student_of(made), "--out", str(run), "--resume", *every, "4"])
    assert content(run) == before


def test_what_the_machine_needs_may_change_and_is_recorded(copy, capsys):
    options = ["--data.test_batch_size", "50", "--trainer.checkpoint_every", "2", "--data.root", "elsewhere"]
    moved = (copy / "teacher.pt").rename(copy / "moved.pt")
    options += ["--teacher.checkpoint", str(moved), "--trainer.epochs", "3"]
    main([*student_of(copy), "--out", str(copy / "run"), "--resume", *options])
    assert "epoch   3/3" in capsys.readouterr().out
    saved = yaml.safe_load((copy / "run" / "recipe.yaml").read_text())
    assert (saved["data"]["test_batch_size"], saved["trainer"]["checkpoint_every"]) == (50, 2)
    assert (saved["data"]["root"], saved["teacher"]["checkpoint"]) == ("elsewhere", str(moved))


@pytest.mark.parametrize("how", ["finished", "half-done"])
def test_another_teacher_or_other_images_of_the_same_name_are_refused(how, copy, monkeypatch):
    run = copy / "run"
    if how == "half-done":
        (run / "run.json").unlink()
    before = content(run)
    arguments = [*student_of(copy), "--out", str(run), "--resume"]
    monkeypatch.setattr("itrd_distill.training.run.create_data", other_images)
    with pytest.raises(SystemExit, match=r"the images, digest [0-9a-f]{16} → [0-9a-f]{16}\)"):
        main(arguments)
    monkeypatch.undo()
    torch.save(create_model("convnet_32_64", 10).state_dict(), copy / "teacher.pt")
    with pytest.raises(SystemExit, match=r"the teacher's weights, digest [0-9a-f]{16} → [0-9a-f]{16}\)"):
        main(arguments)
    assert content(run) == before


def test_a_finished_run_is_left_alone(copy, capsys):
    before = content(copy / "run")
    main([*student_of(copy), "--out", str(copy / "run"), "--resume"])
    printed = capsys.readouterr().out
    assert "Finished before, nothing is left to train" in printed.replace("\n", " ")
    assert "kd, seed 0: test accuracy" in printed
    assert content(copy / "run") == before


def test_older_runs_are_taken_on_trust_with_a_line(made, copy, capsys):
    run = copy / "run"
    forget(run)
    main([*student_of(made), "--out", str(run), "--resume"])
    printed = capsys.readouterr()
    assert "Finished before" in printed.out
    assert "does not note of which images and teacher's weights it was made" in printed.err
    (run / "recipe.yaml").unlink()
    main([*student_of(made, 3), "--out", str(run), "--resume"])
    printed = capsys.readouterr()
    assert "epoch   3/3" in printed.out
    assert "is older and does not note how it was made" in printed.err


@pytest.mark.parametrize(
    "options",
    [["--student", "convnet_32_64"], ["--loss.name", "itrd", "--loss.options", "{}"]],
)
def test_a_checkpoint_that_says_nothing_of_its_making_is_of_use_only_where_it_fits(options, copy):
    run = copy / "run"
    forget(run)
    (run / "recipe.yaml").unlink()
    (run / "run.json").unlink()
    before = content(run)
    with pytest.raises(SystemExit, match="is of another student or loss than this run's"):
        main([*student_of(copy, 3), "--out", str(run), "--resume", *options])
    assert content(run) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda held: held.pop("optimizer_states"), "optimizer_states missing or not what a run writes"),
        (lambda held: held.update(optimizer_states=[]), "optimizer_states missing"),
        (lambda held: held.update(loops=1), "loops missing"),
        (lambda held: held["loops"].update(fit_loop={}), "loops missing"),
        (lambda held: held.pop("epoch"), "epoch missing"),
        (lambda held: held["callbacks"].pop("History"), "callbacks missing"),
        (lambda held: held.update(record=3), "record missing"),
        (lambda held: held.update(record={"settings": {}, "more": {}}), "record missing"),
        (lambda held: held.update(lr_schedulers=[{}]), r"cannot be gone on from: .*KeyError\('last_epoch'\)"),
        (lambda held: held.update(state_dict={"student": 3}), "cannot be gone on from: .* another student"),
    ],
)
def test_a_checkpoint_that_cannot_be_taken_up_is_named(damage, message, copy):
    path = copy / "run" / "checkpoints" / "last.ckpt"
    held = torch.load(path, weights_only=True)
    damage(held)
    torch.save(held, path)
    with pytest.raises(SystemExit, match=rf"last.ckpt (is no checkpoint to go on from: )?{message}") as refused:
        main([*student_of(copy, 3), "--out", str(copy / "new"), "--ckpt-path", str(path)])
    assert len(str(refused.value).splitlines()) == 1
    assert not (copy / "new").exists()


def test_results_without_a_checkpoint_are_not_started_anew(copy):
    shutil.rmtree(copy / "run" / "checkpoints")
    before = content(copy / "run")
    with pytest.raises(SystemExit, match="no checkpoint to go on from: replace it by `train --overwrite`"):
        main([*student_of(copy, 3), "--out", str(copy / "run"), "--resume"])
    assert content(copy / "run") == before


DAMAGES = [
    ("run.json", "", "no JSON"),
    ("run.json", '{"method": "kd", "se', "no JSON"),
    ("run.json", "[]", "it is no mapping"),
    ("run.json", "{}", "method must be text on one line, got None"),
    ("run.json", ("history", []), "history has no rows"),
    ("run.json", ("history", [{"epoch": 0}]), "a row of history is not like the others"),
    ("run.json", ("history", [{"epoch": "a", "loss": 1, "test_accuracy": 0}]), "history: epoch must be an integer ≥ 0"),
    (
        "run.json",
        ("history", [{"epoch": 0, "loss": nan, "test_accuracy": 0}]),
        "history: loss must be a number, got nan",
    ),
    (
        "run.json",
        ("history", [{"epoch": 0, "loss": 1, "test_accuracy": nan}]),
        "history: test_accuracy must be a finite",
    ),
    ("run.json", ("test_accuracy", "good"), "test_accuracy must be a finite number ≥ 0 and ≤ 1, got 'good'"),
    ("run.json", ("test_accuracy", nan), "test_accuracy must be a finite number ≥ 0 and ≤ 1, got nan"),
    ("run.json", ("test_accuracy", 17.3), "test_accuracy must be a finite number ≥ 0 and ≤ 1, got 17.3"),
    ("run.json", ("images_per_second", -1), "images_per_second must be a finite number ≥ 0, got -1"),
    ("run.json", ("parameters", -1), "parameters must be an integer ≥ 1, got -1"),
    ("run.json", ("seed", None), "seed must be an integer ≥ 0 and ≤ 4294967295, got None"),
    ("run.json", ("seed", 4), "it is of method kd and seed 4, but recipe.yaml of method kd and seed 0"),
    ("run.json", ("method", "itrd"), "it is of method itrd and seed 0, but recipe.yaml of method kd and seed 0"),
    ("run.json", ("made_from", 3), "made_from must be"),
    ("run.json", ("further", 3), "there is no further"),
    ("recipe.yaml", "", "it is no mapping of settings"),
    ("recipe.yaml", "name: [", "no YAML"),
    ("recipe.yaml", "- seed", "it is no mapping of settings"),
    ("recipe.yaml", "name: x\nstudent: convnet_8_16\n", "teacher is missing"),
    ("recipe.yaml", ("loss", "kd"), "loss is no mapping of settings"),
    ("recipe.yaml", ("trainer", {"epochs": 2}), "trainer.accelerator is missing"),
    ("recipe.yaml", ("trainer", {"epochs": "many"}), "trainer.epochs must be an integer ≥ 1, got 'many'"),
    ("recipe.yaml", b"\xff\xfe\x00", "no YAML"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGES)
def test_a_damaged_file_is_named_with_what_to_do(name, damage, message, copy):
    path = copy / "run" / name
    if isinstance(damage, tuple):
        held = yaml.safe_load(path.read_text())
        held[damage[0]] = damage[1]
        damage = json.dumps(held)
    path.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    remedy = r"remove it to go on from the last checkpoint, or train that run again \(by `train --overwrite`"
    with pytest.raises(
        SystemExit, match=rf"{name} is damaged or of another version \({message}.*\): {remedy}"
    ) as refused:
        main([*student_of(copy), "--out", str(copy / "run"), "--resume"])
    assert len(str(refused.value).splitlines()) == 1
    path.unlink()
    main([*student_of(copy), "--out", str(copy / "run"), "--resume"])
    assert len(RunResult.read(copy / "run").history) == 2


def test_a_mean_that_left_the_range_of_its_numbers_is_no_damage(tmp_path):
    row = {"epoch": 0, "loss": inf, "kd": nan, "test_accuracy": 0.5}
    RunResult("kd", 0, 0.5, 100.0, 10, [row]).write(tmp_path)
    assert RunResult.read(tmp_path).history[0]["loss"] == inf


def test_the_record_travels_with_the_checkpoint(data, teacher, tmp_path):
    recipe = replace(RECIPE, loss=LossSettings("kd", options={"temperature": 3.0}), trainer=TrainerSettings(1, "cpu"))
    _, result = train(recipe, tmp_path, data=data, teacher=teacher)
    record = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["record"]
    assert record["settings"] == yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert record["digests"] == result.made_from == RunResult.read(tmp_path).made_from
    assert record["digests"].keys() == {"data", "teacher"}
