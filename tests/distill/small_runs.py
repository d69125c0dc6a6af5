"""Runs of a hundred digits, which take a second, by the command line."""

from itrd_distill.cli import main

SMALL = ["--trainer.accelerator", "cpu", "--data.options.train_images", "100", "--data.batch_size", "20"]


def start(*arguments, epochs=1):
    main(["train", *SMALL, "--trainer.epochs", str(epochs), *map(str, arguments)])


def content(folder):
    """Every file of a folder and what is in it, but for the lock's."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in files.items() if path.name != "in_use.lock"}
