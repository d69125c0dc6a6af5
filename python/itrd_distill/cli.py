"""The command `itrd-distill`."""

import sys
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from itrd_distill.training.settings import Recipe


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(prog="itrd-distill", description="Train small students from large teachers.")
    commands = parser.add_subcommands(required=True)
    commands.add_subcommand("demo", _demo_parser(), help="four losses on handwritten digits, in minutes")
    commands.add_subcommand("train", _train_parser(), help="train a student from a frozen teacher, or a teacher")
    chosen = parser.instantiate(parser.parse_args(arguments))
    settings = chosen[chosen.subcommand]
    try:
        _COMMANDS[chosen.subcommand](settings)
    except (ValueError, FileNotFoundError) as error:
        # What the user can mend is said in a line; anything else keeps its traceback.
        sys.exit(f"itrd-distill: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Distil a student on scikit-learn's digits under four losses.")
    parser.add_argument("--seeds", type=int, default=8, help="runs of each loss")
    parser.add_argument("--epochs", type=int, default=100, help="passes of the student over its images")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for the report and the runs")
    return parser


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Train a student from a frozen teacher; without --teacher.model, train plainly, as for a teacher."
    )
    parser.add_argument("--recipe", action="config", help="YAML file with any of the settings below")
    parser.add_class_arguments(Recipe, as_group=False)
    parser.add_argument("--out", type=Path | None, help="folder of the run; runs/STUDENT-METHOD-seedN if not given")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint, if there is one")
    parser.add_argument("--ckpt-path", type=Path | None, help="go on from this checkpoint")
    return parser


def _demo(settings: Namespace) -> None:
    from itrd_distill.demo import demo

    demo(settings.seeds, settings.epochs, settings.out)


def _train(settings: Namespace) -> None:
    from itrd_distill.training.command import train_command

    values = {field.name: settings[field.name] for field in fields(Recipe)}
    train_command(Recipe(**values), settings.out, settings.resume, settings.ckpt_path)


_COMMANDS = {"demo": _demo, "train": _train}
