import fcntl
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import compile_on_host as build


@pytest.fixture(scope="session")
def compiled_once():
    """compile_on_host.build for a program, by one worker of pytest-xdist at a time."""

    def compile_program(name, sources, flags, kernels=build.CUDA):
        build.OUT.mkdir(parents=True, exist_ok=True)
        with open(build.OUT / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return build.build(build.OUT / name / "program", sources, flags, kernels=kernels)

    return compile_program
