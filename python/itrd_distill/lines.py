"""What a command prints: lines of any text, on any terminal, whatever Python does with warnings."""

import io
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from itrd_distill.processes import is_first

# Of a character: controls, and what else ends a line.
NO_TEXT = ("Cc", "Zl", "Zp")


def say(text: str) -> None:
    """Print `itrd-distill: text` on standard error; of several processes the first alone speaks."""
    if is_first():
        print(line(text), file=sys.stderr, flush=True)


def line(text: object) -> str:
    """`itrd-distill: text` as one line in which nothing moves the cursor."""
    joined = re.sub(r"\s*[\r\n]+\s*", " ", str(text).strip())
    shown = (c.encode("unicode_escape").decode() if unicodedata.category(c) in NO_TEXT else c for c in joined)
    return f"itrd-distill: {''.join(shown)}"


def console() -> Console:
    """Standard output, where brackets, colons and dollars are what they are."""
    return Console(markup=False, emoji=False)


def flush(further: str = "") -> bool:
    """Write out what was printed, and something further; False where nobody reads it any more, as behind `| head`."""
    try:
        print(end=further, flush=True)
    except BrokenPipeError:
        # Else Python complains when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


@contextmanager
def lines_alone() -> Iterator[None]:
    """Meanwhile what is printed fits every encoding, by escapes if need be, and warnings are lines, each said once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    said = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            say(str(message))

    with warnings.catch_warnings():
        # A slow fallback or a part that nobody trains is said even to who asked Python not to warn.
        warnings.filterwarnings("always", module="itrd_kernels")
        warnings.showwarning = show
        yield
