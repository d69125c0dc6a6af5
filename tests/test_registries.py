"""Every list of the pair losses names the same ones, with the same traits: C++, Triton, plain PyTorch, the tests."""

import re
from pathlib import Path

import pytest
import test_schedules

from itrd_kernels import backends
from itrd_kernels.formulas.gram import ENTRIES

CSRC = Path(__file__).parents[1] / "csrc"


def in_cpp() -> dict[str, tuple[str, int, bool]]:
    """{name: (type, how many parameters, whether one-sided)} of csrc/losses/list.h."""
    text = (CSRC / "losses/list.h").read_text("utf-8")
    found = re.findall(r'X\((\w+), "(\w+)", (\d+), (true|false)\)', text)
    return {name: (kind, int(parameters), one_sided == "true") for kind, name, parameters, one_sided in found}


def test_formulas_and_tests_know_every_loss():
    assert list(in_cpp()) == list(ENTRIES)
    assert list(test_schedules.LOSSES) == list(ENTRIES)


def test_every_loss_of_cpp_has_its_header():
    included = (CSRC / "losses/all.h").read_text("utf-8")
    for name, (kind, _, _) in in_cpp().items():
        assert f"struct {kind} {{" in (CSRC / f"losses/{name}.h").read_text("utf-8")
        assert f'#include "{name}.h"' in included


def test_triton_takes_the_same_losses():
    reason = backends.triton.unavailable()
    if reason is not None:
        pytest.skip(reason)
    from itrd_kernels.backends.triton.losses import LOSSES

    traits = {name: (loss.traits.parameters, loss.traits.one_sided) for name, loss in LOSSES.items()}
    assert traits == {name: (parameters, one_sided) for name, (_, parameters, one_sided) in in_cpp().items()}
