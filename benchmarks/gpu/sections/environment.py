"""What the day runs on: GPU, driver, versions, compilers, tools, backends."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator

import torch

import itrd_kernels
from benchmarks.gpu.day import Case, Day
from itrd_kernels.backends import native

PACKAGES = ("torch", "triton", "numpy", "pytest", "pytest-xdist", "torchvision", "setuptools", "ninja", "matplotlib")
TOOLS = {"nvcc": "--version", "compute-sanitizer": "--version", "ncu": "--version", "c++": "--version"}


def cases(day: Day) -> Iterator[Case]:
    yield Case("versions", versions)
    yield Case("backends", backends)
    yield Case("device", device)


def versions() -> dict:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    tools = {name: _first_version_line(name, option) for name, option in TOOLS.items()}
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "packages": found,
        "torch_cuda": torch.version.cuda,
        "tools": tools,
    }


def backends() -> dict:
    """`python -m itrd_kernels`, and why the CUDA library does not load, if it is there and does not."""
    done = subprocess.run([sys.executable, "-m", "itrd_kernels"], capture_output=True, text=True)
    reason = native.unavailable("cuda")
    return {
        "package": os.path.dirname(itrd_kernels.__file__),
        "report": done.stdout.splitlines(),
        "backends": itrd_kernels.available_backends(),
        "load_error": reason if reason and "does not load" in reason else None,
    }


def device() -> dict:
    properties = torch.cuda.get_device_properties(0)
    asked = "driver_version,pstate,power.limit,ecc.mode.current"
    query = ["nvidia-smi", "-i", "0", f"--query-gpu={asked}", "--format=csv,noheader"]
    smi = subprocess.run(query, capture_output=True, text=True).stdout.strip() if shutil.which("nvidia-smi") else ""
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "driver, state, power limit, ECC": smi,
    }


def _first_version_line(name: str, option: str) -> str | None:
    """The line of its answer that holds a number."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        text = subprocess.run([path, option], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not answer: {error}"
    lines = [line.strip() for line in text.splitlines() if any(letter.isdigit() for letter in line)]
    return next((line for line in lines if "release" in line or "ersion" in line), lines[0] if lines else text[:80])
