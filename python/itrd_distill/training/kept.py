"""What was computed once and is kept in a file: made again if that is damaged, or was made from something else."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from itrd_distill.lines import say
from itrd_distill.training.files import load_whole, write_atomically

Tensors = dict[str, Tensor]
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


def kept(path: Path, fingerprint: str, rows: dict[str, int], compute: Callable[[], Tensors], remedy: str) -> Tensors:
    """The tensors in `path`; they are computed, and written there, if it lacks them or has others.

    Args:
        path: of the file.
        fingerprint: of what they are made from; it stands in the file, with the file's name.
        rows: name → number of rows of each tensor.
        compute: makes them.
        remedy: what to do where the file cannot be written.

    Raises:
        OSError: the file cannot be written.
    """
    held, _ = _read(path, fingerprint, rows)
    if held is not None:
        return held
    with _alone(path, remedy):
        # Another process may have made it in the meantime.
        held, wrong = _read(path, fingerprint, rows)
        if held is None:
            if wrong:
                say(f"{path} {wrong}; it is made again")
            held = compute()
            content = {"fingerprint": fingerprint, "name": path.name, **held}
            with _named(path, remedy):
                write_atomically(path, lambda partial: torch.save(content, partial))
    return held


def make_folder(path: Path, remedy: str) -> None:
    """The folder that `path` is to stand in.

    Raises:
        OSError: it cannot be made; the message names it and says what to do.
    """
    with _named(path, remedy):
        path.parent.mkdir(parents=True, exist_ok=True)


def _read(path: Path, fingerprint: str, rows: dict[str, int]) -> tuple[Tensors | None, str]:
    """The tensors in `path`, or None and what is wrong with it, which is nothing where there is no file."""
    try:
        content = load_whole(path)
        made_from, held = (content["fingerprint"], content["name"]), {name: content[name] for name in rows}
        whole = all(len(held[name]) == rows[name] and held[name].is_floating_point() for name in rows)
    except FileNotFoundError:
        return None, ""
    # A file cut short or overwritten ends in exceptions of pickle, zipfile, torch and others.
    except Exception as error:
        return None, f"is damaged ({type(error).__name__})"
    if made_from != (fingerprint, path.name):
        return None, "was made from other weights, images or settings"
    return (held, "") if whole else (None, "is not complete")


@contextmanager
def _alone(path: Path, remedy: str) -> Iterator[None]:
    """Of runs side by side one computes, and the others wait for it."""
    lock = FileLock(path.with_suffix(".lock"))
    make_folder(path, remedy)
    with _named(path, remedy):
        try:
            lock.acquire()
        except (NotImplementedError, OSError) as error:
            # Some network disks know no locks: at worst each run computes the same, and files are written whole.
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _named(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    # torch.save reports a full disk by a RuntimeError.
    except (OSError, RuntimeError) as error:
        raise OSError(f"{path} cannot be written ({' '.join(str(error).split())}): {remedy}") from error
