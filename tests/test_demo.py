"""The demo, end to end: two seeds, two epochs."""

import json
import re
from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch

from itrd_distill.cli import main
from itrd_distill.commands.demo import METHODS, STUDENT, STUDENT_IMAGES, TEACHER
from itrd_distill.data import create_data
from itrd_distill.models import create_model
from itrd_distill.report.styles import styles
from itrd_distill.training.files import load_model

SEEDS, EPOCHS = 2, 2


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, what was printed)"""
    folder, printed = tmp_path_factory.mktemp("demo"), StringIO()
    with redirect_stdout(printed):
        main(["demo", "--seeds", str(SEEDS), "--epochs", str(EPOCHS), "--out", str(folder)])
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def results(demo):
    return json.loads((demo[0] / "results.json").read_text())


def test_results_have_the_documented_form(results):
    assert set(results) == {"dataset", "teacher", "student", "runs", "versions"}
    assert results["dataset"] == "digits"
    assert set(results["teacher"]) == {"model", "test_accuracy"}
    assert results["teacher"]["model"] == TEACHER
    parameters = sum(p.numel() for p in create_model(STUDENT, 10).parameters())
    assert results["student"] == {"model": STUDENT, "parameters": parameters}
    assert {(run["method"], run["seed"]) for run in results["runs"]} == {(m, s) for m in METHODS for s in range(SEEDS)}
    for run in results["runs"]:
        assert set(run) == {"method", "seed", "test_accuracy", "images_per_second", "curve"}
        assert [set(row) for row in run["curve"]] == [{"epoch", "test_accuracy", "loss"}] * EPOCHS
        assert [row["epoch"] for row in run["curve"]] == list(range(EPOCHS))
        assert run["test_accuracy"] == run["curve"][-1]["test_accuracy"]
        assert run["images_per_second"] > 0
    assert results["versions"]["torch"] == torch.__version__


def test_every_loss_is_minimised(results):
    for run in results["runs"]:
        first, last = run["curve"][0]["loss"], run["curve"][-1]["loss"]
        assert last < first, run["method"]


def test_reported_accuracy_is_that_of_the_saved_weights(demo, results):
    images = create_data("digits", train_images=STUDENT_IMAGES).test
    assert len(images) == 597
    batch = images.__getitems__([(0, i) for i in range(len(images))])
    for run in results["runs"][:: SEEDS + 1]:
        student = load_model(demo[0] / run["method"] / f"seed{run['seed']}" / "weights.pt", STUDENT, 10).eval()
        with torch.no_grad():
            accuracy = (student(batch.images).argmax(1) == batch.labels).float().mean().item()
        assert accuracy == pytest.approx(run["test_accuracy"], abs=1e-6)


def test_page_is_self_contained_and_shows_every_method_and_term(demo):
    page = (demo[0] / "report.html").read_text()
    assert not re.search(r"<script|<link|@import|<img|\bsrc=|href=\"(?!#)", page)
    assert page.count("<figure") == 6  # accuracy, speed, cross-entropy, KD, correlation, mutual information
    for method, style in styles(list(METHODS)).items():
        assert style.label in page
        # Drawn in its own colour in the curves, the scatter and the cross-entropy at least.
        assert page.count(f"stroke: var({style.variable})") >= 2, method
    for identifier in re.findall(r'<clipPath id="([^"]+)"', page):
        assert page.count(f'id="{identifier}"') == 1


def test_table_is_printed(demo, results):
    for method, style in styles(list(METHODS)).items():
        accuracies = [100 * run["test_accuracy"] for run in results["runs"] if run["method"] == method]
        row = next(line for line in demo[1].splitlines() if f" {style.label} " in line)
        assert f"{sum(accuracies) / SEEDS:.2f} ± " in row
        assert f"{results['student']['parameters']:,}" in row


def test_folders_hold_checkpoints_and_both_logs(demo):
    run = demo[0] / "itrd" / "seed1"
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert "mutual_information" in (run / "csv" / "version_0" / "metrics.csv").read_text()
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("argument", ["--seeds", "--epochs"])
def test_nothing_to_do_is_refused(argument, tmp_path):
    with pytest.raises(SystemExit, match=f"{argument[2:]} must be ≥ 1, got 0"):
        main(["demo", argument, "0", "--out", str(tmp_path)])
