"""Who writes into a folder: one command at a time."""

import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from itrd_distill.processes import is_first
from itrd_distill.training.earlier import is_run, recover

# The lock's own file says nothing of its holder: not every release of filelock leaves alone what stands in it.
LOCK, HOLDER = "in_use.lock", "in_use.txt"

_held: set[Path] = set()


class InUse(OSError):
    """Another command writes into the folder."""


@contextlib.contextmanager
def owned(directory: Path, wait: float = 0.0) -> Iterator[None]:
    """Nobody else writes into the folder while this lasts, and what a start that was killed had set aside is back.

    The lock is the operating system's and dies with the process. It is held by the first of several processes, for all
    of them. Within one that holds it nothing is done.

    Args:
        directory: made if it is not there, with those above it, and removed again if nothing is written into it.
        wait: seconds that another holder is given.

    Raises:
        InUse: another command holds it; the message says which.
    """
    key = directory.resolve()
    if not is_first() or key in _held:
        yield
        return
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise InUse(
            f"{directory} is in use by {_holder(directory)}: wait for it, stop it or choose another --out"
        ) from None
    _held.add(key)
    try:
        # Arguments may hold bytes that are no text.
        (directory / HOLDER).write_text(_self(), "utf-8", errors="backslashreplace")
        recover(directory)
        yield
    finally:
        _held.discard(key)
        (directory / HOLDER).unlink(missing_ok=True)
        if made and [path.name for path in directory.iterdir()] == [LOCK]:
            (directory / LOCK).unlink()
            # One that another command has begun to use meanwhile stays.
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()
        lock.release()


def holds_run(directory: Path) -> bool:
    """Whether there is an earlier run to be lost. Of several processes the first alone finds one: what the others
    would find may be of its making."""
    return is_first() and is_run(directory)


def _self() -> str:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')} ({command})"


def _holder(directory: Path) -> str:
    try:
        return " ".join((directory / HOLDER).read_text("utf-8", errors="backslashreplace").split())
    except OSError:
        return "another command"
