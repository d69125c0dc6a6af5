"""Loads the compiled libraries of csrc/ at import; one that does not load becomes a reason, not an error."""

from pathlib import Path

import torch

_PACKAGE = Path(__file__).parent.parent
_REBUILD = "reinstall with a C++ compiler present (pip install --no-build-isolation --force-reinstall itrd_kernels)"


def _load(name: str) -> str | None:
    """Load itrd_kernels/_<name>.*; None if that worked, else the reason and the remedy."""
    candidates = [path for path in sorted(_PACKAGE.glob(f"_{name}.*")) if path.suffix in (".so", ".pyd", ".dylib")]
    if not candidates:
        return f"the native library itrd_kernels/_{name} was not built; {_REBUILD}"
    try:
        torch.ops.load_library(candidates[0])
    except (OSError, RuntimeError) as error:
        name = candidates[0].name
        return f"the native library {name} does not load with torch {torch.__version__} ({error}); {_REBUILD}"
    return None


_REASONS = {name: _load(name) for name in ("cpu",)}


def unavailable(name: str) -> str | None:
    """None if the native library of this backend is loaded, else the reason and the remedy."""
    return _REASONS[name]
