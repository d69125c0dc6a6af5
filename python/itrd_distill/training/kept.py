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
Shapes = dict[str, tuple[int, int]]
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


def kept(path: Path, fingerprint: str, shapes: Shapes, compute: Callable[[], Tensors], remedy: str) -> Tensors:
    """The tensors in `path`; they are computed, and written there, if it lacks them or has others.

    Args:
        path: of the file.
        fingerprint: of what they are made from; it stands in the file, with the file's name.
        shapes: name → (rows, columns) of each tensor.
        compute: makes them.
        remedy: what to do where the file cannot be written.

    Raises:
        OSError: the file cannot be written.
        FloatingPointError: what is computed is not finite, which would be damage in a file.
    """
    held, _ = _read(path, fingerprint, shapes)
    if held is not None:
        return held
    with _alone(path, remedy):
        # Another process may have made it in the meantime.
        held, wrong = _read(path, fingerprint, shapes)
        if held is None:
            if wrong:
                say(f"{path} {wrong}; it is made again")
            held = compute()
            _check_finite(path, held)
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


def _read(path: Path, fingerprint: str, shapes: Shapes) -> tuple[Tensors | None, str]:
    """The tensors in `path`, or None and what is wrong with it, which is nothing where there is no file."""
    try:
        content = load_whole(path)
        made_from, held = (content["fingerprint"], content["name"]), {name: content[name] for name in shapes}
        whole = all(held[name].shape == shapes[name] and held[name].is_floating_point() for name in shapes)
        finite = whole and all(map(_is_finite, held.values()))
    except FileNotFoundError:
        return None, ""
    # A file cut short or overwritten ends in exceptions of pickle, zipfile, torch and others.
    except Exception as error:
        return None, f"is damaged ({type(error).__name__})"
    if made_from != (fingerprint, path.name):
        return None, "was made from other weights, images or settings"
    if not whole:
        return None, "holds tensors of another shape or type"
    return (held, "") if finite else (None, "holds numbers that are not finite")


def _is_finite(values: Tensor) -> bool:
    # A NaN is both the least and the greatest, and no mask of the tensor's size is needed.
    return all(bool(value.isfinite()) for value in values.aminmax())


def _check_finite(path: Path, computed: Tensors) -> None:
    for name, values in computed.items():
        if not _is_finite(values):
            rows = (~values.isfinite().all(1)).nonzero().flatten().tolist()
            raise FloatingPointError(
                f"{path} cannot be made: row {rows[0]} of {name} is not finite, nor are {len(rows) - 1} of the "
                f"{len(values) - 1} others: look at the weights that it is computed from, and at the precision"
            )


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
