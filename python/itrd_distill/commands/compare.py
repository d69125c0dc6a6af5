"""`itrd-distill compare`: which recipes a comparison consists of, from the command line."""

import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from jsonargparse import Namespace

from itrd_distill.commands.train import train_command
from itrd_distill.comparison import compare
from itrd_distill.lines import say
from itrd_distill.options import Count, Weight, check, hint_of
from itrd_distill.recipes import resolve, teacher_recipe
from itrd_distill.report import Sweep
from itrd_distill.training.settings import Recipe, TeacherSettings

# Makes a recipe of a recipe's name and the command line's options.
Parse = Callable[[str, list[str]], Recipe]


def compare_command(own: Namespace, arguments: list[str], parse: Parse) -> None:
    """Compare what the command line asks for.

    Args:
        own: the options of `compare`.
        arguments: what follows `itrd-distill compare`.
        parse: takes PAIR and the options of `compare`, too.
    """
    _check(own, arguments)
    if own.sweep is None:
        recipes = {method: _recipe(own.pair, method, arguments, parse) for method in own.methods}
        sweep = None
        for method, recipe in recipes.items():
            if unread := _unread(recipe):
                say(f"method {method} has no distillation loss: {', '.join(unread)} will not be looked at")
    else:
        recipes, sweep = _swept(own, arguments, parse)
    for recipe in recipes.values():
        recipe.try_out()
    compare(
        recipes,
        own.seeds,
        own.out or Path("runs", "compare", own.pair, sweep.name if sweep else ""),
        sweep=sweep,
        train_teacher=lambda: _train_teacher(own, arguments, parse, next(iter(recipes.values())).teacher),
        speed_seconds=own.speed_seconds,
        command=shlex.join(["itrd-distill", "compare", *arguments]),
        transfer_to=_probe(own, next(iter(recipes.values())).student, arguments, parse) if own.probe else None,
    )


def _check(own: Namespace, arguments: list[str]) -> None:
    check("--teacher-epochs", own.teacher_epochs, Count | None)
    check("--speed-seconds", own.speed_seconds, Weight)
    _once("--methods", own.methods)
    for option, instead in (
        ("--seed", "--seeds says how many"),
        ("--method", "--methods says which"),
        ("--loss.name", "--methods says which"),
    ):
        if any(argument.split("=")[0] == option for argument in arguments):
            raise ValueError(f"{option} is none of compare's: it runs several, and {instead}")


def _recipe(pair: str, method: str, arguments: list[str], parse: Parse) -> Recipe:
    """A method's recipe with the command line's options, among them a recipe file's, of which none changes its loss."""
    recipe = parse(f"{pair}-{method}", arguments)
    own = resolve(f"{pair}-{method}")["loss"]["name"]
    if recipe.loss.name != own:
        raise ValueError(
            f"loss.name is {recipe.loss.name}, but that of method {method} is {own}: leave it out, --methods says which"
        )
    return recipe


def _unread(recipe: Recipe) -> list[str]:
    return [f"loss.options.{name}" for name in recipe.loss.options] if recipe.loss.name == "none" else []


def _once(option: str, named: list[str]) -> None:
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise ValueError(f"{option} names {', '.join(twice)} twice: give each once")


def _probe(own: Namespace, student: str, arguments: list[str], parse: Parse) -> Recipe:
    shared = _kept(arguments, ("--data.root", "--data.download", "--trainer.accelerator"))
    return parse(f"{own.probe}/{student}", [own.pair, *shared])


def _swept(own: Namespace, arguments: list[str], parse: Parse) -> tuple[dict[str, Recipe], Sweep]:
    setting, _, listed = own.sweep.partition("=")
    texts = listed.split(",")
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if not re.fullmatch(r"\w+(\.\w+)+", setting) or not values:
        raise ValueError(f"--sweep must look like loss.options.alpha=1.01,1.5,2; got {own.sweep!r}")
    group, _, name = setting.rpartition(".")
    if hint_of(Recipe, setting) is None and group not in ("loss.options", "data.options"):
        raise ValueError(f"--sweep: there is no setting {setting}; `itrd-distill train --help` lists those there are")
    if len(own.methods) != 1:
        raise ValueError(f"--sweep varies one method: give --methods one name, got {', '.join(own.methods)}")
    (method,) = own.methods
    titles = [f"{method}, {name} = {value:g}" for value in values]
    _once("--sweep", titles)
    recipes = {
        title: _recipe(own.pair, method, [*arguments, f"--{setting}={text}"], parse)
        for title, text in zip(titles, texts, strict=True)
    }
    if setting in _unread(recipes[titles[0]]):
        raise ValueError(f"--sweep varies {setting}, but method {method} has no distillation loss that would read it")
    return recipes, Sweep(name, dict(zip(titles, values, strict=True)))


def _train_teacher(own: Namespace, arguments: list[str], parse: Parse, wanted: TeacherSettings) -> None:
    """Train the teacher where the recipes look for it, by its own recipe, on all images of the same data set."""
    shared = (
        "--data.",
        "--trainer.accelerator",
        "--trainer.devices",
        "--trainer.precision",
        "--trainer.channels_last",
    )
    epochs = ["--trainer.epochs", str(own.teacher_epochs)] if own.teacher_epochs else []
    recipe = parse(teacher_recipe(own.pair), [own.pair, *_kept(arguments, shared), *epochs])
    leaves = recipe.folder() / "weights.pt"
    if Path(wanted.checkpoint or "") != leaves or wanted.model != recipe.student:
        raise FileNotFoundError(
            f"no checkpoint at {wanted.checkpoint}: {recipe.student} would be trained by its own recipe and left at "
            f"{leaves}; give a --teacher.checkpoint that is there, or none"
        )
    train_command(recipe, None, resume=True)


def _kept(arguments: list[str], names: tuple[str, ...]) -> list[str]:
    """The options that begin with one of these names, with their values, but for the choice of fewer images."""
    kept = []
    for i, argument in enumerate(arguments):
        if argument.startswith(names) and not argument.startswith("--data.options.train_images"):
            kept += arguments[i : i + (1 if "=" in argument else 2)]
    return kept
