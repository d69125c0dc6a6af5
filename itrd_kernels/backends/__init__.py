"""The table of backends: which can run here, and if not, why not and what to do."""

import functools
import warnings
from collections.abc import Callable

import torch

from itrd_kernels.backends import native, triton
from itrd_kernels.graphs import constant_in_graphs

# Backends in the order in which "auto" prefers them; those with operators own the namespace itrd_<name>.
WITH_OPERATORS = ("cpu", "triton", "cuda")

_UNAVAILABLE: dict[str, Callable[[], str | None]] = {
    "reference": lambda: None,
    "cpu": lambda: native.unavailable("cpu"),
    "triton": triton.unavailable,
    "cuda": lambda: native.unavailable("cuda"),
}

# The reasons do not change while the process runs, and asking on every call would cost more than a small batch.
_REASONS = {name: unavailable() for name, unavailable in _UNAVAILABLE.items()}

_MEANT_FOR = {"cpu": "cpu", "triton": "cuda", "cuda": "cuda"}
# Test equipment takes CPU tensors for what is meant for a GPU, and has to be asked for.
_DEVICE_TYPES = {
    "cpu": ("cpu",),
    "triton": ("cuda", "cpu") if triton.interpreting() else ("cuda",),
    "cuda": ("cpu",) if native.CUDA_ON_HOST else ("cuda",),
}
_ON_CPU = {
    "triton": "set TRITON_INTERPRET=1 before Python starts to run its kernels, slowly, on CPU tensors",
    "cuda": "set ITRD_CUDA_ON_HOST=1 after `make cuda-on-host` to run its kernels, slowly, on CPU tensors",
}


def available_backends() -> dict[str, str | None]:
    """{backend: None if it can run here, else the reason and the remedy}."""
    return {name: reason or _no_device(name) for name, reason in _REASONS.items()}


def _no_device(name: str) -> str | None:
    if "cpu" in _DEVICE_TYPES.get(name, ("cpu",)) or torch.cuda.is_available():
        return None
    return f"torch {torch.__version__} sees no GPU; {_ON_CPU[name]}"


def why_not(name: str, device_type: str) -> str | None:
    """None if the backend can run on tensors of this device type, else the reason and the remedy."""
    reason = _REASONS[name]
    types = _DEVICE_TYPES.get(name, (device_type,))
    if reason is None and device_type not in types:
        hint = f", or {_ON_CPU[name]}" if device_type == "cpu" and name in _ON_CPU else ""
        return f"it runs on {types[0]} tensors; move the inputs there, or use backend='auto'{hint}"
    return reason


def _first_that_runs(device_type: str) -> str:
    for name in WITH_OPERATORS:
        # Not the test equipment.
        if _MEANT_FOR[name] == device_type and why_not(name, device_type) is None:
            return name
    return "reference"


_FASTEST = {device_type: _first_that_runs(device_type) for device_type in ("cpu", "cuda")}


def fastest(device_type: str) -> str:
    """The backend that "auto" takes on this device type; "reference" wherever no other can run."""
    return _FASTEST.get(device_type, "reference")


@functools.cache
def _warn_of_formulas(device_type: str) -> None:
    reasons = [f"{name}: {why_not(name, device_type)}" for name, meant in _MEANT_FOR.items() if meant == device_type]
    if reasons:
        warnings.warn(
            f"itrd_kernels runs plain PyTorch formulas on {device_type} tensors, slower and with n × n arrays in "
            f"memory, since no fused backend can run ({'; '.join(reasons)}). backend='reference' asks for them "
            "without this warning",
            stacklevel=2,
        )


@constant_in_graphs
def warn_of_formulas(device_type: str) -> None:
    """Say once, for a device type that backends are meant for, that "auto" runs the formulas; tracing says it too."""
    _warn_of_formulas(device_type)


def has_operators(name: str) -> bool:
    return _REASONS[name] is None
