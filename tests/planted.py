"""Bugs planted in a copy of the sources, for the tests that must find them."""

import shutil
from collections.abc import Iterable
from pathlib import Path


def planted(sources: Path, copy: Path, changes: Iterable[tuple[str, str, str]]) -> Path:
    """`copy` of the folder `sources`, where each `right` text of a file, there once, has given way to a `wrong` one."""
    shutil.copytree(sources, copy)
    for file, right, wrong in changes:
        text = (copy / file).read_text()
        assert text.count(right) == 1, f"{file} has changed: where is {right!r}?"
        (copy / file).write_text(text.replace(right, wrong))
    return copy
