"""The checks must be able to fail: each of these mistakes, put into the kernels, must be caught."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from sanitizer import SanitizerError, sanitized
from steps import Case, check, poisoned
from test_schedules import batch, compare

from itrd_kernels.backends import triton

PACKAGE = "itrd_kernels.backends.triton"
# In the order in which they import each other.
MODULES = (
    "numerics", "losses.pair", "losses.mutual_information", "losses.polynomial", "losses.logarithm", "losses.pkt",
    "losses", "correlation", "rows", "gram", "kernels", "pair_kernels", "launch", "pair_launch",
)  # fmt: skip

RAGGED = Case(torch.float32, 37, 50, 21)
WRONG, RACE = AssertionError, SanitizerError

BUGS = {
    "no mask at the ragged end of the rows": (
        "rows", "tl.store(side.norms + row, scale, inside)", "tl.store(side.norms + row, scale)", WRONG,
    ),
    "no mask at the ragged end of the columns": (
        "gram",
        "(row < n)[:, None] & (columns < own.width)[None, :]\n    g =",
        "(row < n)[:, None] & (columns <= own.width)[None, :]\n    g =",
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
        "gram", "g -= (projection * rnorm * rnorm)[:, None] * z", "g -= 0.0 * z", WRONG,
    ),
    "the teacher's gradient takes the student's weight": (
        "losses.mutual_information", "-c_st * g_s * g_s * g_t", "-c_st * g_s * g_t * g_t", WRONG,
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
        "rows", "tl.store(counts + block, ", "tl.store(counts + block * 0, ", RACE,
    ),
}  # fmt: skip


# The same for the operator `gram`, with the loss and the own rows (None: the triangle) that show them.
PAIR_BUGS = {
    "tiles beside the diagonal count once": (
        "pair_kernels", "tl.where(i != j, 2.0, 1.0)", "tl.where(i != j, 1.0, 1.0)", "polynomial", None,
    ),
    "a row that does not count is read": (
        "rows", "inside & (tl.load(side.norms + n + row, inside, 0.0) != 0)", "inside", "mutual_information", None,
    ),
    "own row i is taken for other row i": (
        "pair_kernels", "(row_i + offset)[:, None]", "row_i[:, None]", "polynomial", (0.3, 0.8),
    ),
    "a column's row sums are a row's": (
        "pair_kernels", "mirror.row_t, index * 2 + 1, 0, BLOCK", "mirror.row_t, index * 2 + 1, 1, BLOCK", "pkt", None,
    ),
    "one direction is missing from W": (
        "pair_kernels", "w_s + mirror.w_s, w_t + mirror.w_t", "w_s, w_t", "pkt", (0.3, 0.8),
    ),
    "no slope of the kernel": (
        "losses.polynomial", "of.w_s * (slope_s / most)", "of.w_s", "polynomial", (0.3, 0.8),
    ),
    "the logarithm's series ends too early": (
        "losses.logarithm", "tl.static_range(TERMS, 0, -1)", "tl.static_range(1, 0, -1)", "pkt", None,
    ),
}  # fmt: skip


def mutate(name: str, old: str, new: str, folder: Path, monkeypatch) -> None:
    """Put the backend's modules over kernels in which `old` reads `new` in place of its own."""
    for module in MODULES:
        path = Path(triton.__file__).parent / module.replace(".", "/")
        source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        if module == name:
            assert old in source, "the planted bug no longer applies"
            source = source.replace(old, new)
        path = folder / f"{module}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{module}", path)
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, loaded)
        # `from package import module` reads the package's attribute.
        package, _, attribute = spec.name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(package), attribute, loaded, raising=False)
        spec.loader.exec_module(loaded)


def mutated_launch(*mutation):
    """The backend's launch module over such kernels."""
    mutate(*mutation)
    return sys.modules[f"{PACKAGE}.launch"]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_caught(bug, tmp_path, monkeypatch):
    name, old, new, error = BUGS[bug]
    launch = mutated_launch(name, old, new, tmp_path, monkeypatch)
    with pytest.raises(error or AssertionError):
        # More rows than the partial moments that are merged at a time hold, where that matters.
        check(RAGGED if error else Case(torch.float32, 530, 3, 0, beta_mi=0.0), launch=launch)


@pytest.mark.parametrize("bug", PAIR_BUGS)
def test_planted_bug_of_a_sweep_is_caught(bug, tmp_path, monkeypatch):
    *mutation, loss, own = PAIR_BUGS[bug]
    mutate(*mutation, tmp_path, monkeypatch)
    s, t, keep = batch(70, 20, 33, torch.float32, "some")
    with pytest.raises(AssertionError), sanitized(), poisoned():
        compare("triton", (s, t), keep, loss, own, torch.float32)


def test_harness_itself_passes(tmp_path, monkeypatch):
    check(RAGGED, launch=mutated_launch("gram", "tl.trans(", "tl.trans(", tmp_path, monkeypatch))
    s, t, keep = batch(70, 20, 33, torch.float32, "some")
    with sanitized(), poisoned():
        compare("triton", (s, t), keep, "pkt", None, torch.float32)
