"""The Triton backend: why it cannot run, if so, and its operators. Triton itself is imported on their first call."""

import importlib.metadata
import importlib.util

import torch

from itrd_kernels import schema
from itrd_kernels.backends import emulated
from itrd_kernels.backends.base import Backend

OLDEST = (3, 6)

# Definitions made from Python end with the object that made them.
_LIBRARIES: list[torch.library.Library] = []


def unavailable() -> str | None:
    """None if the operators can be registered, else the reason and the remedy."""
    needed = ".".join(map(str, OLDEST))
    spec = importlib.util.find_spec("triton")
    # A folder that happens to be called so has no origin.
    if spec is None or spec.origin is None:
        return f"Triton is not installed; pip install 'triton>={needed}' (Linux), or use backend='auto'"
    version = triton_version()
    if version is not None and version < OLDEST:
        return f"Triton {'.'.join(map(str, version))} is too old; pip install 'triton>={needed}', or use backend='auto'"
    return None


def triton_version() -> tuple[int, int] | None:
    """Major and minor version, without importing it; None where no distribution says so (a build from source)."""
    for name in ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm", "triton-windows"):
        try:
            major, minor = importlib.metadata.version(name).split(".")[:2]
        except importlib.metadata.PackageNotFoundError:
            continue
        return int(major), int(minor)
    return None


def register() -> None:
    """Define itrd_triton::forward, ::backward and ::gram."""
    library = torch.library.Library(schema.namespace("triton"), "DEF")
    library.define(schema.FORWARD)
    library.define(schema.BACKWARD)
    library.define(schema.GRAM)
    for device_type in BACKEND.takes:
        library.impl("forward", _forward, device_type.upper())
        library.impl("backward", _backward, device_type.upper())
        library.impl("gram", _gram, device_type.upper())
    _LIBRARIES.append(library)


def _forward(*arguments):
    from itrd_kernels.backends.triton import launch

    return launch.forward(*arguments)


def _backward(*arguments):
    from itrd_kernels.backends.triton import launch

    return launch.backward(*arguments)


def _gram(*arguments):
    from itrd_kernels.backends.triton import pair_launch

    return pair_launch.gram(*arguments)


# On AMD's GPUs, too, PyTorch calls the device type "cuda".
BACKEND = Backend(
    "triton", ("cuda",), unavailable, register, runs_on=("cuda", "cpu") if emulated.interpreting() else None
)
