"""What others keep in a folder: no run replaces, moves or removes it, and a start that would is refused in a line."""

import re
import shutil

import pytest
import torch
from small_runs import content, start

from itrd_distill.training.earlier import Start
from itrd_distill.training.ownership import owned
from itrd_distill.training.result import RunResult


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my {name}")


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of one epoch."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("options", [[], ["--resume"], ["--overwrite"], ["--ckpt-path"]])
@pytest.mark.parametrize(
    "name",
    ["checkpoints/mine.pth", "checkpoints", "csv/version_0/table.csv", "csv/table.csv", "tensorboard/other",
     "recipe.yaml/mine", "nan_batch.pt/mine"],
)  # fmt: skip
def test_a_first_start_is_refused_where_it_would_replace_them(name, options, finished, tmp_path):
    write(tmp_path, name, "further")
    before = content(tmp_path)
    if options == ["--ckpt-path"]:
        options = ["--ckpt-path", finished / "checkpoints" / "last.ckpt"]
    there = re.escape(str(tmp_path / name.removesuffix("/mine")))
    with pytest.raises(SystemExit, match=rf"{there}.* was made by no run, .*: move it elsewhere") as refused:
        start("--out", tmp_path, *options)
    assert len(str(refused.value).splitlines()) == 1
    assert content(tmp_path) == before


def test_what_a_start_left_that_died_before_its_first_checkpoint_is_replaced(run):
    for name in ("run.json", "weights.pt", "checkpoints/last.ckpt"):
        (run / name).unlink()
    write(run, "recipe.yaml.17.partial", "checkpoints/last.ckpt.fresh.17.partial", "notes")
    start("--out", run, "--seed", 3)
    assert RunResult.read(run).seed == 3
    assert (run / "notes").read_text() == "my notes"


def test_a_copy_among_the_checkpoints_is_not_overwritten(run):
    shutil.copy(run / "checkpoints" / "last.ckpt", run / "checkpoints" / "best.ckpt")
    before = content(run)
    with pytest.raises(SystemExit, match=r"checkpoints/best.ckpt was made by no run"):
        start("--out", run, "--overwrite")
    assert content(run) == before
    # Going on replaces no checkpoint but the run's own.
    start("--out", run, "--resume", "--trainer.epochs", 2)
    assert content(run)["checkpoints/best.ckpt"] == before["checkpoints/best.ckpt"]


@pytest.mark.parametrize("path", ["../disk", "absolute"])
def test_checkpoints_may_be_moved_to_another_disk(path, run, tmp_path):
    (run / "checkpoints").rename(tmp_path / "disk")
    (run / "checkpoints").symlink_to(tmp_path / "disk" if path == "absolute" else path)
    start("--out", run, "--resume", "--trainer.epochs", 2)
    assert (run / "checkpoints").is_symlink()
    assert (tmp_path / "disk" / "previous.ckpt").exists()
    before = content(run)
    with pytest.raises(SystemExit, match="run/checkpoints was made by no run"):
        start("--out", run, "--overwrite")
    assert content(run) == before


def test_what_a_file_manager_leaves_is_no_file_of_others(run):
    (run / "tensorboard" / ".DS_Store").touch()
    start("--out", run, "--overwrite", "--seed", 3)
    assert RunResult.read(run).seed == 3


def test_no_folder_of_theirs_is_taken_for_what_was_set_aside(run):
    theirs = ["earlier/notes", "earlier/run.json", "earlier.done/notes", "itrd-distill.earlier/run.json"]
    write(run, *theirs)
    before = content(run)
    with owned(run):
        pass
    assert content(run) == before
    with pytest.raises(SystemExit, match="itrd-distill.earlier holds something that no run put there: move it"):
        start("--out", run, "--overwrite")
    assert content(run) == before
    shutil.rmtree(run / "itrd-distill.earlier")
    start("--out", run, "--overwrite")
    assert {name: before[name] for name in theirs[:3]}.items() <= content(run).items()


def test_what_they_put_beside_a_killed_start_stays(run, capsys):
    before = content(run)
    Start(run, goes_on=False).__enter__()
    write(run, "itrd-distill.earlier/notes", "checkpoints/mine.pth")
    with pytest.raises(SystemExit, match=r"run/checkpoints holds what no run made, .* move it elsewhere"):
        start("--out", run, "--resume")
    shutil.move(run / "checkpoints" / "mine.pth", run / "mine.pth")
    with owned(run):
        assert "what was there before it is back" in capsys.readouterr().err
    theirs = {"itrd-distill.earlier/notes": b"my itrd-distill.earlier/notes", "mine.pth": b"my checkpoints/mine.pth"}
    assert content(run) == {**before, **theirs}


@pytest.mark.parametrize("text", ["data: {name: digits}  # mine", "data: [", "a: 1"])
def test_a_recipe_of_another_making_is_kept(text, tmp_path, capsys):
    for times in (1, 2):
        (tmp_path / "recipe.yaml").write_text(text)
        with owned(tmp_path), Start(tmp_path, goes_on=False):
            assert not (tmp_path / "recipe.yaml").exists()
        assert (tmp_path / f"recipe.yaml.kept-{times}").read_text() == text
        assert f"was written by no run: it is kept as recipe.yaml.kept-{times}" in capsys.readouterr().err


def test_a_recipe_file_is_not_replaced_by_what_the_run_writes(run, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    recipe = new / "recipe.yaml"
    shutil.copy(run / "recipe.yaml", recipe)
    with pytest.raises(SystemExit, match=r"--recipe .*new/recipe.yaml is where the run writes its own"):
        start("--recipe", recipe, "--out", new, "--seed", 3)
    assert recipe.read_bytes() == (run / "recipe.yaml").read_bytes()
    start("--recipe", recipe, "--out", new, "--resume")
    assert torch.load(new / "weights.pt", weights_only=True)["name"] == "convnet_8_16"
