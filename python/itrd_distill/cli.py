"""The command `itrd-distill`."""

import sys
from dataclasses import fields
from pathlib import Path

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from itrd_distill.stopping import advice, stoppable
from itrd_distill.training.settings import Recipe


class _ActionRecipe(ActionConfigFile):
    """A configuration file, or the name of a recipe in place of one."""

    def __call__(self, parser, namespace, value, option_string=None):
        if not Path(value).is_file():
            from itrd_distill.recipes import resolve

            value = yaml.safe_dump(resolve(value))
        super().__call__(parser, namespace, value, option_string)


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(prog="itrd-distill", description="Train small students from large teachers.")
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("demo", _demo_parser(), help="four losses on handwritten digits, in minutes")
    commands.add_subcommand("train", train_parser(), help="train a student from a frozen teacher, or a teacher")
    commands.add_subcommand("compare", ArgumentParser(), help="methods × seeds of one pair of models, on one page")
    commands.add_subcommand("probe", _probe_parser(), help="a linear classifier on a trained model's frozen features")
    commands.add_subcommand("recipes", _recipes_parser(), help="list the recipes")
    arguments = sys.argv[1:] if arguments is None else arguments
    # `--download` is short for `--data.download true`.
    arguments = ["--data.download=true" if argument == "--download" else argument for argument in arguments]
    with stoppable(advice(arguments)):
        try:
            if arguments[:1] == ["compare"]:
                return _compare(arguments[1:])
            chosen = parser.instantiate(parser.parse_args(recipe_first(arguments)))
            settings = chosen[chosen.subcommand]
            _COMMANDS[chosen.subcommand](settings)
        except (ValueError, OSError, FloatingPointError) as error:
            # What the user can mend is said in a line; anything else keeps its traceback.
            sys.exit(f"itrd-distill: {error}")


def recipe_first(arguments: list[str]) -> list[str]:
    """The arguments with --recipe before all other options: what the command line says goes over it, wherever it is."""
    for i, argument in enumerate(arguments):
        if argument == "--recipe" or argument.startswith("--recipe="):
            end = i + (2 if argument == "--recipe" else 1)
            options = next((k for k, a in enumerate(arguments) if a.startswith("-")), i)
            return [*arguments[:options], *arguments[i:end], *arguments[options:i], *arguments[end:]]
    return arguments


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Distil a student on scikit-learn's digits under four losses.")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each loss")
    parser.add_argument("--epochs", type=int, default=100, help="passes of the student over its images")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the report and the runs")
    return parser


def train_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Train a student from a frozen teacher; without --teacher.model, train plainly, as for a teacher."
    )
    _add_recipe(parser)
    parser.add_argument("--out", type=Path | None, help="folder of the run; if not given, runs/RECIPE/seedN")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    parser.add_argument("--ckpt-path", type=Path | None, help="go on from this checkpoint")
    return parser


def _probe_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Freeze the trained model --student and train a linear classifier on its penultimate features."
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="of the model: a weights.pt of this tool, or a state_dict"
    )
    _add_recipe(parser)
    parser.add_argument("--out", type=Path | None, help="folder of the run; if not given, runs/probe/DATA/…")
    return parser


def _add_recipe(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--recipe",
        action=_ActionRecipe,
        help="name of a recipe (see `itrd-distill recipes`) or YAML file with any of the settings below",
    )
    parser.add_class_arguments(Recipe, as_group=False)


def _recipes_parser() -> ArgumentParser:
    parser = ArgumentParser(description="List the recipes, or those whose names contain some text.")
    parser.add_argument("text", type=str, nargs="?", default="", help="text to look for")
    return parser


def _recipes(settings: Namespace) -> None:
    from itrd_distill.recipes import names

    print("\n".join(name for name in names() if settings.text in name))


def _demo(settings: Namespace) -> None:
    from itrd_distill.demo import demo

    demo(settings.seeds, settings.epochs, settings.out)


def _train(settings: Namespace) -> None:
    from itrd_distill.training.command import train_command

    train_command(_recipe(settings), settings.out, settings.resume, settings.overwrite, settings.ckpt_path)


def _probe(settings: Namespace) -> None:
    from itrd_distill.probe import probe_command

    probe_command(_recipe(settings), settings.weights, settings.out)


def _compare(arguments: list[str]) -> None:
    from itrd_distill.compare_command import compare_command

    parser = train_parser()
    compare_command(arguments, lambda given: _recipe(parser.instantiate(parser.parse_args(recipe_first(given)))))


def _recipe(settings: Namespace) -> Recipe:
    return Recipe(**{field.name: settings[field.name] for field in fields(Recipe)})


_COMMANDS = {"demo": _demo, "train": _train, "probe": _probe, "recipes": _recipes}
