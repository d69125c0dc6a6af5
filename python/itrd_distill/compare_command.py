"""`itrd-distill compare`: which recipes a comparison consists of."""

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from itrd_distill.compare import compare
from itrd_distill.recipes import methods, teacher_recipe
from itrd_distill.report import Sweep
from itrd_distill.training.command import train_command
from itrd_distill.training.settings import Recipe, TeacherSettings


def compare_command(arguments: list[str], parse: Callable[[list[str]], tuple[Recipe, object]]) -> None:
    """Parse the command line and compare.

    Args:
        arguments: what follows `itrd-distill compare`.
        parse: makes a recipe of arguments as `itrd-distill train` takes them.
    """
    parser = argparse.ArgumentParser(
        prog="itrd-distill compare",
        description="Run methods × seeds of one pair of models, skipping what is finished, and write one page. "
        "All other options are those of `itrd-distill train` and hold for every run. A teacher whose weights are "
        "missing is trained first, by its recipe.",
    )
    parser.add_argument("pair", help="DATASET/TEACHER-STUDENT, as `itrd-distill recipes` lists them")
    parser.add_argument("--methods", nargs="+", default=["none", "kd", "itrd_corr", "itrd"], choices=methods())
    parser.add_argument("--sweep", help="vary one setting of one method: loss.options.alpha=1.01,1.5,2")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--out", type=Path, help="folder of the comparison (default: runs/compare/PAIR)")
    parser.add_argument("--teacher-epochs", type=int, help="epochs for a teacher that has to be trained first")
    parser.add_argument("--probe", help="DATASET: also train a linear classifier on its images and every student")
    parser.add_argument(
        "--speed-seconds", type=float, default=0.0, help="measure each method's speed apart, so long, in turn"
    )
    own, overrides = parser.parse_known_args(arguments)
    if own.sweep is None:
        recipes = {method: parse(["--recipe", f"{own.pair}-{method}", *overrides]) for method in own.methods}
        sweep = None
    else:
        recipes, sweep = _swept(own, overrides, parse)
    compare(
        recipes,
        own.seeds,
        own.out or Path("runs", "compare", own.pair, sweep.name if sweep else ""),
        sweep=sweep,
        train_teacher=lambda: _train_teacher(own, overrides, parse, next(iter(recipes.values())).teacher),
        speed_seconds=own.speed_seconds,
        command=shlex.join(["itrd-distill", "compare", *arguments]),
        transfer_to=_probe(own, overrides, parse) if own.probe else None,
    )


def _probe(own, overrides: list[str], parse) -> Recipe:
    student = own.pair.rpartition("-")[2]
    shared = _kept(overrides, ("--data.root", "--data.download", "--trainer.accelerator"))
    return parse(["--recipe", f"{own.probe}/{student}", *shared])


def _swept(own, overrides: list[str], parse) -> tuple[dict[str, Recipe], Sweep]:
    setting, _, listed = own.sweep.partition("=")
    try:
        values = [float(value) for value in listed.split(",")]
    except ValueError:
        raise ValueError(f"--sweep must look like loss.options.alpha=1.01,1.5,2; got {own.sweep!r}") from None
    if len(own.methods) != 1:
        raise ValueError(f"--sweep varies one method: give --methods one name, got {', '.join(own.methods)}")
    (method,) = own.methods
    name = setting.split(".")[-1]
    named = {f"{method}, {name} = {value:g}": value for value in values}
    recipes = {
        title: parse(["--recipe", f"{own.pair}-{method}", *overrides, f"--{setting}", str(value)])
        for title, value in named.items()
    }
    return recipes, Sweep(name, named)


def _train_teacher(own, overrides: list[str], parse, wanted: TeacherSettings) -> None:
    """Train the teacher where the recipes look for it, by its own recipe, on all images of the same data set."""
    shared = (
        "--data.",
        "--trainer.accelerator",
        "--trainer.devices",
        "--trainer.precision",
        "--trainer.channels_last",
    )
    kept = _kept(overrides, shared)
    epochs = ["--trainer.epochs", str(own.teacher_epochs)] if own.teacher_epochs else []
    recipe = parse(["--recipe", teacher_recipe(own.pair), *kept, *epochs])
    leaves = recipe.folder() / "weights.pt"
    if Path(wanted.checkpoint or "") != leaves or wanted.model != recipe.student:
        raise FileNotFoundError(
            f"no checkpoint at {wanted.checkpoint}: {recipe.student} would be trained by its own recipe and left at "
            f"{leaves}; give a --teacher.checkpoint that is there, or none"
        )
    train_command(recipe, None, resume=True)


def _kept(overrides: list[str], names: tuple[str, ...]) -> list[str]:
    """The options that begin with one of these names, with their values, but for the choice of fewer images."""
    kept = []
    for i, argument in enumerate(overrides):
        if argument.startswith(names) and not argument.startswith("--data.options.train_images"):
            kept += overrides[i : i + (1 if "=" in argument else 2)]
    return kept
