"""The emulation header computes what CUDA does, and refuses what CUDA leaves undefined."""

import os
import subprocess

import compile_on_host as build
import pytest


@pytest.fixture(scope="module")
def checks(compiled_once):
    return compiled_once("emulation_checks", [build.HERE / "emulation_checks.cpp"], ["-O1"])


def run(checks, name, seed=None):
    environment = {**os.environ, **({"ITRD_EMULATION_SEED": seed} if seed else {})}
    return subprocess.run([str(checks), name], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("seed", [None, "1", "2"])
@pytest.mark.parametrize(
    "name",
    [
        "shuffles",
        "barriers order shared memory",
        "shared memory starts as NaN",
        "copies arrive at their wait",
        "products of tf32",
        "products of float16",
        "products of bfloat16",
        "half precision",
        "order follows the seed",
    ],
)
def test_computes(checks, name, seed):
    done = run(checks, name, seed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "done\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing thread at barrier", "some threads have ended while others wait"),
        ("missing lane in shuffle", "wait at different barriers or warp instructions"),
        ("lanes at different instructions", "the lanes of a warp disagree"),
        ("copy never waited for", "ends with asynchronous copies under way"),
        ("copy misaligned", "not aligned to 16 bytes"),
        ("partial mask", "leaves lanes out"),
    ],
)
def test_refuses(checks, name, message):
    done = run(checks, name)
    assert done.returncode != 0
    assert message in done.stderr
