"""The Triton backend: why it cannot run, if so, and its operators. Triton itself is imported on their first call."""

import importlib.metadata
import importlib.util
import os

import torch

OLDEST = (3, 6)


def interpreting() -> bool:
    """Triton's interpreter runs the kernels, slowly, on CPU tensors; Triton reads the variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


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


def register(forward_schema: str, backward_schema: str) -> torch.library.Library:
    """Define itrd_triton::forward and ::backward; the library must be kept alive."""
    library = torch.library.Library("itrd_triton", "DEF")
    library.define(forward_schema)
    library.define(backward_schema)
    for key in ("CUDA", "CPU") if interpreting() else ("CUDA",):
        library.impl("forward", _forward, key)
        library.impl("backward", _backward, key)
    return library


def _forward(*arguments):
    from itrd_kernels.backends.triton import launch

    return launch.forward(*arguments)


def _backward(*arguments):
    from itrd_kernels.backends.triton import launch

    return launch.backward(*arguments)
