"""What a comparison takes for finished: nothing of another teacher, other images or damaged files; and what it needs
is looked for before it trains."""

import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from other_runs import forget, other_images

from itrd_distill.cli import main
from itrd_distill.models import create_model
from itrd_distill.training.run import train
from itrd_distill.training.settings import DataSettings, Recipe, TrainerSettings

PAIR = "digits/convnet_32_64-convnet_8_16"
# Where a comparison trains a teacher that is not there.
DEFAULT = "runs/digits/convnet_32_64/seed0/weights.pt"
SMALL = ["--trainer.accelerator", "cpu", "--data.options.train_images", "100", "--data.batch_size", "20"]


def compare(*arguments):
    main(["compare", PAIR, "--seeds", "1", "--trainer.epochs", "1", *SMALL, *arguments])


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """A comparison of two methods that is finished."""
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("convnet_32_64", 10).state_dict(), "teacher.pt")
    arguments = ["--methods", "none", "kd", "--teacher.checkpoint", "teacher.pt", "--out", "out"]
    compare(*arguments)
    return arguments


def test_a_comparison_takes_no_run_of_another_teacher_or_other_images_for_finished(compared, monkeypatch, capsys):
    compare(*compared)
    assert capsys.readouterr().out.count("(finished before)") == 2
    torch.save(create_model("convnet_32_64", 10).state_dict(), "teacher.pt")
    with pytest.raises(SystemExit, match="kd/seed0 holds a run with other settings .*the teacher's weights, digest"):
        compare(*compared)
    # Without a distillation loss neither the teacher nor options are looked at.
    compare("--methods", "none", *compared[3:], "--loss.options.temperature", "3")
    assert "(finished before)" in capsys.readouterr().out
    monkeypatch.setattr("itrd_distill.comparison.create_data", other_images)
    with pytest.raises(SystemExit, match="none/seed0 holds a run with other settings .*the images, digest"):
        compare(*compared)


def test_a_comparison_names_a_damaged_file_and_takes_older_runs_on_trust(compared, tmp_path, capsys):
    run = tmp_path / "out" / "kd" / "seed0"
    forget(run)
    compare(*compared)
    told = capsys.readouterr()
    assert told.out.count("(finished before)") == 2
    assert "seed0 is older and does not note of which images and teacher's weights it was made" in told.err
    (run / "run.json").write_text("{")
    with pytest.raises(SystemExit, match="kd/seed0/run.json is damaged"):
        compare(*compared)


def test_a_probe_of_other_weights_is_not_finished(compared, tmp_path, monkeypatch):
    small = Recipe(data=DataSettings(options={"train_images": 100}), trainer=TrainerSettings(1, "cpu"))
    monkeypatch.setattr("itrd_distill.commands.compare._probe", lambda *_: small)
    compare(*compared, "--probe", "digits")
    weights = tmp_path / "out" / "kd" / "seed0" / "weights.pt"
    held = torch.load(weights, weights_only=True)
    held["model"]["fc.bias"] += 1
    torch.save(held, weights)
    with pytest.raises(SystemExit, match="probe-digits/kd/seed0 holds a run .*the model's weights, digest"):
        compare(*compared, "--probe", "digits")


def test_two_comparisons_side_by_side_share_their_runs(compared, tmp_path, monkeypatch, capsys):
    """Another one holds kd while this one begins, and has finished it by the time that all else is done."""
    lock = FileLock(tmp_path / "out" / "kd" / "seed0" / "in_use.lock")
    lock.acquire()
    with pytest.raises(SystemExit, match="kd/seed0 is in use by another command"):
        compare(*compared)
    real = train
    monkeypatch.setattr(
        "itrd_distill.comparison.train", lambda *given, **options: (lock.release(), real(*given, **options))[1]
    )
    shutil.rmtree(tmp_path / "out" / "none")
    compare("--methods", "kd", "none", *compared[3:])
    told = capsys.readouterr()
    assert "going on with the others first" in told.err
    assert told.out.index("none, seed 0: ") < told.out.index("kd, seed 0: ") < told.out.index("Page: ")


def weights_alone(run):
    for path in [*run.glob("csv/*/*"), *run.glob("checkpoints/*"), run / "recipe.yaml", run / "run.json"]:
        path.unlink()


def results_alone(run):
    (run / "recipe.yaml").unlink()
    shutil.rmtree(run / "checkpoints")


def training_run_in_place_of_the_probe(run):
    shutil.copytree(run, run.parents[1] / "probe-digits" / run.parent.name / run.name)


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (None, ["--optimizer.learning_rate", "0.2"], "none/seed0 holds a run with other settings"),
        (lambda run: (run / "run.json").write_text("{"), [], "kd/seed0/run.json is damaged"),
        (lambda run: (run / "weights.pt").unlink(), ["--probe", "digits"], "no checkpoint at .*: remove .*run.json to"),
        (lambda run: (run / "weights.pt").write_text("x"), ["--probe", "digits"], "--probe needs .* cannot be read"),
        (training_run_in_place_of_the_probe, ["--probe", "digits"], "probe-digits/kd/seed0 holds a run with other"),
        (weights_alone, [], "kd/seed0 holds an earlier run but no checkpoint to go on from"),
        (results_alone, [], "kd/seed0 holds an earlier run but no checkpoint to go on from"),
        (None, ["--optimizer.momentum", "0.5", "--teacher.checkpoint", DEFAULT], "none/seed0 holds a run with other"),
    ],
)
def test_every_folder_is_looked_at_before_the_first_is_written_into(spoil, options, message, compared, monkeypatch):
    out = Path("out")
    if spoil is not None:
        spoil(out / "kd" / "seed0")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr("itrd_distill.comparison.train", None)
    monkeypatch.setattr("itrd_distill.commands.compare.train_command", None)
    with pytest.raises(SystemExit, match=message) as refused:
        compare("--methods", "itrd", "none", "kd", *compared[3:], *options)
    assert len(str(refused.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_without_its_weights_is_completed_as_a_probe_says(compared):
    run = Path("out", "kd", "seed0")
    weights = (run / "weights.pt").read_bytes()
    for name in ("weights.pt", "run.json"):
        (run / name).unlink()
    compare(*compared)
    assert (run / "weights.pt").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--probe", "stl10", "--data.root", "nowhere"], "nowhere"),
        (["--probe", "fashion_mnist_5k", "--data.root", "nowhere"], "nowhere"),
        (["--teacher.checkpoint", "nowhere.pt"], "no checkpoint at nowhere.pt: .* give a --teacher.checkpoint"),
    ],
)
def test_what_a_later_part_needs_is_looked_for_first(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("itrd_distill.commands.compare.train_command", None)
    with pytest.raises(SystemExit, match=message):
        compare("--methods", "kd", *arguments)
    assert not (tmp_path / "runs" / "digits").exists()
