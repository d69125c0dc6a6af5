import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import compile_on_host as build


@pytest.fixture(scope="session")
def compiled_once():
    """compile_on_host.build for a program."""

    def compile_program(name, sources, flags, kernels=build.CUDA):
        return build.build(build.OUT / name / "program", sources, flags, kernels=kernels)

    return compile_program
