"""The command `itrd-distill`."""

import re
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, get_loader, set_loader

from itrd_distill.lines import flush, line, lines_alone, say
from itrd_distill.options import check_tree, contains_itself, expected, hint_of
from itrd_distill.stopping import advice, stoppable
from itrd_distill.training.settings import Recipe

_load = get_loader("yaml")


def _load_finite(text: str) -> object:
    value = _load(text)
    if contains_itself(value):
        raise yaml.YAMLError("a mapping or a list contains itself")
    return value


# Paths may hold bytes that are no text, which YAML does not take; they are what they are.
set_loader("yaml", _load_finite, (yaml.YAMLError, UnicodeEncodeError, RecursionError))


class _Parser(ArgumentParser):
    """Says a mistake in one line; options are taken in full, so that a typing error is none of another's name."""

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, allow_abbrev=False, **settings)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.exit(line(_in_words(message)))


def _in_words(message: str) -> str:
    """jsonargparse's message; where a value is not of its type, what that is in place of the type's name."""
    if message.startswith("unrecognized arguments"):
        return f"{message}; --help lists what there is"
    setting = re.search(r'Parser key "([\w.]+)"', message)
    came = re.search(r"(?:Got value|Given value): (.*)", message)
    if not setting or not came:
        return message
    plain = re.search(r"Expected a <class '(int|float)'>", message)
    hint = hint_of(Recipe, setting[1]) or (plain and {"int": int, "float": float}[plain[1]])
    return f"{setting[1]} must be {expected(hint)}, got {came[1]}" if hint else message


class _ActionRecipe(ActionConfigFile):
    """A configuration file, or the name of a recipe in place of one."""

    def __call__(self, parser, namespace, value, option_string=None):
        from itrd_distill.recipes import resolve, settings_in

        is_file = Path(value).is_file()
        if is_file:
            settings = settings_in(Path(value))
        else:
            try:
                settings = resolve(value)
            except ValueError as error:
                raise ValueError(f"{error}; nor is there a file of this name") from error
        check_tree(value, settings, Recipe)
        before = namespace.get(self.dest) or []
        super().__call__(parser, namespace, yaml.safe_dump(settings), option_string)
        # In place of jsonargparse's own list, which knows the text alone.
        namespace[self.dest] = [*before, Path(value)] if is_file else before


def main(arguments: list[str] | None = None) -> None:
    parser = _Parser(prog="itrd-distill", description="Train small students from large teachers.")
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("demo", _demo_parser(), help="four losses on handwritten digits, in minutes")
    commands.add_subcommand("train", train_parser(), help="train a student from a frozen teacher, or a teacher")
    commands.add_subcommand("compare", compare_parser(), help="methods × seeds of one pair of models, on one page")
    commands.add_subcommand("probe", _probe_parser(), help="a linear classifier on a trained model's frozen features")
    commands.add_subcommand("recipes", _recipes_parser(), help="list the recipes")
    arguments = sys.argv[1:] if arguments is None else arguments
    # `--download` is short for `--data.download true`.
    arguments = ["--data.download=true" if argument == "--download" else argument for argument in arguments]
    with stoppable(advice(arguments)), lines_alone():
        try:
            _check_out(arguments)
            chosen = parser.parse_args(recipe_first(arguments))
            if chosen.subcommand != "compare":  # whose settings are of no use without the recipes they go over
                chosen = parser.instantiate(chosen)
            _COMMANDS[chosen.subcommand](chosen[chosen.subcommand], arguments[1:])
            flush()
        except (ValueError, OSError, FloatingPointError) as error:
            # What the user can mend is said in a line; anything else keeps its traceback.
            # Whether it was standard output that broke shows where something is written there.
            sys.exit(line(error) if not isinstance(error, BrokenPipeError) or flush("\n") else 141)


def _check_out(arguments: list[str]) -> None:
    # As a path it would be the working directory.
    if "--out=" in arguments or ("--out", "") in pairwise(arguments):
        raise ValueError("--out must name a folder, got ''; the working directory is .")


def recipe_first(arguments: list[str]) -> list[str]:
    """The arguments with --recipe before all other options: what the command line says goes over it, wherever it is."""
    for i, argument in enumerate(arguments):
        if argument == "--recipe" or argument.startswith("--recipe="):
            end = i + (2 if argument == "--recipe" else 1)
            options = next((k for k, a in enumerate(arguments) if a.startswith("-")), i)
            return [*arguments[:options], *arguments[i:end], *arguments[options:i], *arguments[end:]]
    return arguments


def _demo_parser() -> ArgumentParser:
    parser = _Parser(description="Distil a student on scikit-learn's digits under four losses.")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each loss")
    parser.add_argument("--epochs", type=int, default=100, help="passes of the student over its images")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the report and the runs")
    return parser


def train_parser() -> ArgumentParser:
    parser = _Parser(
        description="Train a student from a frozen teacher; without --teacher.model, train plainly, as for a teacher."
    )
    _add_recipe(parser)
    parser.add_argument("--out", type=Path | None, help="folder of the run; if not given, runs/RECIPE/seedN")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    parser.add_argument("--ckpt-path", type=Path | None, help="go on from this checkpoint")
    return parser


def compare_parser() -> ArgumentParser:
    from itrd_distill.recipes import methods

    parser = _Parser(
        description="Run methods × seeds of one pair of models, skipping what is finished, and write one page. The "
        "settings of `itrd-distill train` hold for every run. A teacher whose weights are missing is trained first, by "
        "its recipe."
    )
    parser.add_argument("pair", type=str, help="DATASET/TEACHER-STUDENT, as `itrd-distill recipes` lists them")
    parser.add_argument("--methods", nargs="+", default=["none", "kd", "itrd_corr", "itrd"], choices=methods())
    parser.add_argument(
        "--sweep", type=str | None, help="vary one setting of one method: loss.options.alpha=1.01,1.5,2"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--out", type=Path | None, help="folder of the comparison; if not given, runs/compare/PAIR")
    parser.add_argument("--teacher-epochs", type=int | None, help="epochs for a teacher that has to be trained first")
    parser.add_argument(
        "--probe", type=str | None, help="DATASET: also train a linear classifier on its images and every student"
    )
    parser.add_argument(
        "--speed-seconds", type=float, default=0.0, help="measure each method's speed apart, so long, in turn"
    )
    _add_recipe(parser)
    return parser


def _probe_parser() -> ArgumentParser:
    parser = _Parser(
        description="Freeze the trained model --student and train a linear classifier on its penultimate features."
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="of the model: a weights.pt of this tool, or a state_dict"
    )
    _add_recipe(parser)
    parser.add_argument("--out", type=Path | None, help="folder of the run; if not given, runs/probe/DATA/…")
    # So that a teacher asks for no loss, which a probe would refuse.
    parser.set_defaults({"loss.name": "none"})
    return parser


def _add_recipe(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        action=_ActionRecipe,
        help="name of a recipe (see `itrd-distill recipes`) or YAML file with any of the settings below",
    )
    parser.add_class_arguments(Recipe, as_group=False)


def _recipes_parser() -> ArgumentParser:
    parser = _Parser(description="List the recipes, or those whose names contain some text.")
    parser.add_argument("text", type=str, nargs="?", default="", help="text to look for")
    return parser


def _recipes(settings: Namespace, _: list[str]) -> None:
    from itrd_distill.commands.recipes import recipes_command

    recipes_command(settings.text)


def _demo(settings: Namespace, _: list[str]) -> None:
    from itrd_distill.commands.demo import demo_command

    demo_command(settings.seeds, settings.epochs, settings.out)


def _train(settings: Namespace, _: list[str]) -> None:
    from itrd_distill.commands.train import train_command

    recipe = _recipe(settings)
    recipe.try_out()
    if recipe.loss.name == "none":
        _say_unused(recipe, "loss.name is none")
    read_from = settings.recipe or []
    train_command(recipe, settings.out, settings.resume, settings.overwrite, settings.ckpt_path, read_from)


def _probe(settings: Namespace, _: list[str]) -> None:
    from itrd_distill.commands.probe import probe_command

    recipe = _recipe(settings)
    if recipe.loss.name != "none":
        raise ValueError(
            f"loss.name is {recipe.loss.name}, but a probe learns by cross-entropy alone: give DATASET/MODEL"
        )
    _say_unused(recipe, "a probe has no teacher")
    recipe.try_out()
    probe_command(recipe, settings.weights, settings.out)


def _say_unused(recipe: Recipe, why: str) -> None:
    if unused := recipe.distils_with():
        say(f"{why}: {', '.join(unused)} will not be looked at")


def _compare(settings: Namespace, arguments: list[str]) -> None:
    from itrd_distill.commands.compare import compare_command

    parser = compare_parser()

    def recipe(name: str, given: list[str]) -> Recipe:
        return _recipe(parser.instantiate(parser.parse_args(["--recipe", name, *recipe_first(given)])))

    compare_command(settings, arguments, recipe)


def _recipe(settings: Namespace) -> Recipe:
    return Recipe(**{field.name: settings[field.name] for field in fields(Recipe)})


_COMMANDS = {"demo": _demo, "train": _train, "compare": _compare, "probe": _probe, "recipes": _recipes}
