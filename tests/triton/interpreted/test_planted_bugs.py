"""The checks must be able to fail: each of these mistakes, put into the kernels, must be caught."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from sanitizer import SanitizerError
from steps import Case, check

from itrd_kernels.backends import triton

PACKAGE = "itrd_kernels.backends.triton"
# In the order in which they import each other.
MODULES = ("numerics", "correlation", "gram", "kernels", "launch")

RAGGED = Case(torch.float32, 37, 50, 21)
WRONG, RACE = AssertionError, SanitizerError

BUGS = {
    "no mask at the ragged end of the rows": (
        "kernels", "tl.store(student.scales + row, scale_s, inside)", "tl.store(student.scales + row, scale_s)", WRONG,
    ),
    "no mask at the ragged end of the columns": (
        "gram",
        "(row < n)[:, None] & (columns < side.width)[None, :]\n    g =",
        "(row < n)[:, None] & (columns <= side.width)[None, :]\n    g =",
        WRONG,
    ),
    "only one block of partial moments is merged": (
        "correlation", "for start in range(0, blocks, BLOCKS):", "for start in range(0, 1, BLOCKS):", None,
    ),
    "the second stage of the loss drops tiles": (
        "gram", "index < length, 0.0)", "index < length - 1, 0.0)", WRONG,
    ),
    "a stored tile is not transposed left of the diagonal": (
        "gram", "tl.load(tile + local[:, None] + depth[None, :] * BLOCK)",
        "tl.load(tile + local[:, None] * BLOCK + depth[None, :])", WRONG,
    ),
    "wrong sign in the backward pass": (
        "correlation", "a[None, :] * hat_t - b[None, :] * hat_s", "a[None, :] * hat_t + b[None, :] * hat_s", WRONG,
    ),
    "no projection onto the tangent of the sphere": (
        "gram", "g -= (projection * rnorm * rnorm)[:, None] * own", "g -= 0.0 * own", WRONG,
    ),
    "the teacher's gradient takes the student's weight": (
        "gram", "-c_st * g_s * g_s * g_t", "-c_st * g_s * g_t * g_t", WRONG,
    ),
    "the last program does not acquire": (
        "numerics", 'sem="acq_rel"', 'sem="release"', RACE,
    ),
    "the other programs do not release": (
        "numerics", 'sem="acq_rel"', 'sem="acquire"', RACE,
    ),
    "the scalars are written before all programs are done": (
        "numerics", "== programs - 1", "== programs - 2", AssertionError,
    ),
    "two programs store to one place": (
        "kernels", "tl.store(counts + block, ", "tl.store(counts + block * 0, ", RACE,
    ),
}  # fmt: skip


def mutated_launch(name: str, old: str, new: str, folder: Path, monkeypatch):
    """The backend's launch module over kernels in which `old` reads `new`."""
    for module in MODULES:
        source = (Path(triton.__file__).parent / f"{module}.py").read_text()
        if module == name:
            assert old in source, "the planted bug no longer applies"
            source = source.replace(old, new)
        path = folder / f"{module}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{module}", path)
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, loaded)
        # `from package import module` reads the package's attribute.
        monkeypatch.setattr(triton, module, loaded, raising=False)
        spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_caught(bug, tmp_path, monkeypatch):
    name, old, new, error = BUGS[bug]
    launch = mutated_launch(name, old, new, tmp_path, monkeypatch)
    with pytest.raises(error or AssertionError):
        # More rows than the partial moments that are merged at a time hold, where that matters.
        check(RAGGED if error else Case(torch.float32, 530, 3, 0, beta_mi=0.0), launch=launch)


def test_harness_itself_passes(tmp_path, monkeypatch):
    check(RAGGED, launch=mutated_launch("gram", "tl.trans(", "tl.trans(", tmp_path, monkeypatch))
