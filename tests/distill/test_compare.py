"""`itrd-distill compare`, end to end on digits: what is run, what is skipped, what the page shows."""

import json
import re
import shlex
from xml.etree import ElementTree

import pytest
import torch

from itrd_distill.cli import main
from itrd_distill.models import create_model
from itrd_distill.report.page import relative_improvements
from itrd_distill.report.summary import MethodSummary, Spread
from itrd_distill.training import run

PAIR = "digits/convnet_32_64-convnet_8_16"
SMALL = ["--data.options.train_images", "100", "--trainer.checkpoint_every", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a comparison of three methods and two seeds has been run, teacher included."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        compare("--methods", "kd", "itrd", "crd", "--seeds", "2", "--trainer.epochs", "2")
    return folder


def compare(*arguments):
    main(["compare", PAIR, "--teacher-epochs", "3", *SMALL, *arguments])


def test_results_and_page_hold_every_run(folder):
    out = folder / "runs" / "compare" / PAIR
    results = json.loads((out / "results.json").read_text())
    assert [(r["method"], r["seed"]) for r in results["runs"]] == [
        (m, s) for m in ("kd", "itrd", "crd") for s in (0, 1)
    ]
    assert results["dataset"] == "digits"
    assert results["teacher"]["model"] == "convnet_32_64"
    page = (out / "report.html").read_text()
    assert page.count("<figure") == 7  # accuracy, speed, cross-entropy, KD, two of ITRD, CRD
    assert not re.search(r"<script|<link|<img|\bsrc=", page)
    plots = {path.stem: path.read_text() for path in (out / "plots").glob("*.svg")}
    assert {"accuracy", "speed", "cross_entropy", "kd", "correlation", "mutual_information", "crd"} == plots.keys()
    for text in plots.values():
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert not re.search(r"currentColor|var\(", text)
    for label in ("KD", "CRD", "ITRD, correlation + MI"):
        assert label in page


def test_the_teacher_is_trained_on_all_images_by_its_own_recipe(folder):
    teacher = run.RunResult.read(folder / "runs" / "digits" / "convnet_32_64" / "seed0")
    assert len(teacher.history) == 3
    assert teacher.test_accuracy > 0.5  # which a hundred images and three epochs would not give


def test_finished_runs_are_not_run_again(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("itrd_distill.comparison.train", None)
    compare("--methods", "kd", "itrd", "--seeds", "2", "--trainer.epochs", "2", "--data.workers", "1")
    assert capsys.readouterr().out.count("(finished before)") == 4


def test_a_started_run_goes_on(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    directory = folder / "runs" / "compare" / PAIR / "kd" / "seed1"
    before = run.RunResult.read(directory)
    (directory / "run.json").unlink()
    compare("--methods", "kd", "--seeds", "2", "--trainer.epochs", "2")
    after = run.RunResult.read(directory)
    assert "kd, seed 0: " in capsys.readouterr().out
    # The checkpoint after the last epoch was there: nothing is left to do, and the history is the old one.
    assert after.history == before.history


def test_other_settings_do_not_pass_for_finished(folder, monkeypatch):
    monkeypatch.chdir(folder)
    changed = r"optimizer.learning_rate 0.1 → 0.01; trainer.epochs 2 → 3"
    with pytest.raises(SystemExit, match=rf"kd/seed0 holds a run with other settings \({changed}\)"):
        compare("--methods", "kd", "--seeds", "1", "--trainer.epochs", "3", "--optimizer.learning_rate", "0.01")


def test_a_method_that_cannot_be_trained_is_named_before_the_others_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("itrd_distill.comparison.train", None)
    torch.save(create_model("convnet_32_64", 7).state_dict(), "teacher.pt")
    with pytest.raises(SystemExit, match="loss kd compares logits, but the teacher has 7 classes and the student 10"):
        compare("--methods", "itrd", "kd", "--seeds", "1", "--teacher.checkpoint", "teacher.pt")


def test_a_sweep_draws_accuracy_against_the_setting(folder, monkeypatch):
    monkeypatch.chdir(folder)
    compare("--methods", "itrd", "--sweep", "loss.options.alpha=2,1.01", "--seeds", "2", "--trainer.epochs", "1")
    out = folder / "runs" / "compare" / PAIR / "alpha"
    results = json.loads((out / "results.json").read_text())
    assert {r["method"] for r in results["runs"]} == {"itrd, alpha = 2", "itrd, alpha = 1.01"}
    assert "alpha: 1.01" in (out / "itrd, alpha = 1.01" / "seed0" / "recipe.yaml").read_text()
    assert "Accuracy against alpha" in (out / "report.html").read_text()


def test_students_are_probed_and_speeds_measured_apart(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("itrd_distill.comparison.measure_speeds", lambda *_: {"kd": [11.0, 22.0], "crd": [33.0, 44.0]})
    arguments = ["--methods", "kd", "crd", "--seeds", "2", "--trainer.epochs", "2", "--probe", "digits"]
    compare(*arguments, "--speed-seconds", "3")
    out = folder / "runs" / "compare" / PAIR
    results = json.loads((out / "results.json").read_text())
    assert [run["images_per_second"] for run in results["runs"]] == [11, 22, 33, 44]
    assert results["command"].startswith(f"itrd-distill compare {PAIR} --teacher-epochs 3")
    assert "3 s each, 2 times" in (out / "report.html").read_text()
    probed = json.loads((out / "probe-digits" / "results.json").read_text())
    assert [(run["method"], run["seed"]) for run in probed["runs"]] == [("kd", 0), ("kd", 1), ("crd", 0), ("crd", 1)]
    assert {run["parameters"] for run in probed["runs"]} == {16 * 10 + 10}
    assert all(run["test_accuracy"] > 0.3 for run in probed["runs"])
    page = (out / "probe-digits" / "report.html").read_text()
    assert "Teacher" in page
    assert "images / s" not in page
    # Both again: nothing is left to train.
    monkeypatch.setattr("itrd_distill.comparison.train", None)
    monkeypatch.setattr("itrd_distill.transfer.train_probe", None)
    compare(*arguments, "--teacher.cache", "cache")
    page = (out / "report.html").read_text()
    assert "No speeds are shown" in page
    assert "images / s" not in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep", "loss.options.alpha=a,b", "--methods", "itrd"], "--sweep must look like"),
        (["--sweep", "loss.options.alpha=1,2", "--methods", "itrd", "kd"], "give --methods one name"),
        (["--seeds", "0"], "seeds must be ≥ 1"),
    ],
)
def test_mistakes_are_named(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match=message):
        compare(*arguments)


@pytest.mark.parametrize("download", [["--download"], ["--data.download=true"], ["--data.download", "true"], []])
def test_download_holds_for_students_teacher_and_probe(download, monkeypatch):
    seen = []

    def train_command(recipe, *_, **__):
        seen.append(recipe)

    def compared(recipes, *_, train_teacher, command, transfer_to, **__):
        train_teacher()
        seen.extend([*recipes.values(), transfer_to])
        seen.append(command)

    monkeypatch.setattr("itrd_distill.commands.compare.train_command", train_command)
    monkeypatch.setattr("itrd_distill.commands.compare.compare", compared)
    compare("--methods", "kd", *download, "--data.root", "elsewhere", "--probe", "digits")
    *recipes, command = seen
    assert [(recipe.data.download, recipe.data.root) for recipe in recipes] == [(bool(download), "elsewhere")] * 3
    # The command that is noted asks for the same again.
    seen.clear()
    main(shlex.split(command)[1:])
    assert seen == [*recipes, command]


def test_the_probe_is_of_the_student_that_is_trained(monkeypatch):
    seen = []
    monkeypatch.setattr("itrd_distill.commands.compare.compare", lambda *_, transfer_to, **__: seen.append(transfer_to))
    compare("--methods", "kd", "--student", "convnet_32_64", "--probe", "digits")
    assert seen[0].student == "convnet_32_64"


def test_relative_improvement_is_the_papers():
    """Table 2 of the paper's footnote: (X − Y) / (X − KD)."""

    def summaries(**means):
        return [MethodSummary(method, 1, Spread(mean, 0.0), Spread(1.0, 0.0), 1) for method, mean in means.items()]

    found = relative_improvements(summaries(none=0.70, kd=0.72, itrd=0.76, crd=0.75, sp=0.77, at=0.72))
    assert found == pytest.approx({"crd": 0.25, "sp": -0.25, "at": 1.0})
    # Where ITRD is no better than KD the measure has no meaning.
    assert relative_improvements(summaries(kd=0.76, itrd=0.76, crd=0.75)) == {}
    assert relative_improvements(summaries(itrd=0.76, crd=0.75)) == {}
