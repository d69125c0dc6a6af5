"""The backend in the table of backends, without a GPU and without running a kernel."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import types

import pytest
import torch

from itrd_kernels import FusedITRDLoss, available_backends, backends
from itrd_kernels.backends import emulated, triton

without_interpreter = pytest.mark.skipif(emulated.interpreting(), reason="is about the backend without the interpreter")


def test_missing_triton_is_a_reason(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install" in triton.unavailable()


def test_a_folder_of_that_name_is_not_triton(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.SimpleNamespace(origin=None))
    assert "pip install" in triton.unavailable()


@pytest.mark.parametrize(
    ("version", "usable"), [("3.5.1", False), ("3.6.0", True), ("3.8.0+git123", True), ("4.0", True)]
)
def test_old_triton_is_a_reason(version, usable, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: types.SimpleNamespace(origin="triton/__init__.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert (triton.unavailable() is None) == usable


@without_interpreter
def test_cpu_tensors_are_refused_with_the_remedy():
    if backends.has_operators("triton"):
        with pytest.raises(
            RuntimeError, match="it runs on cuda tensors; move the inputs there, or use backend='auto'$"
        ):
            FusedITRDLoss(4, 4, backend="triton")(torch.randn(3, 4), torch.randn(3, 4))


@without_interpreter
def test_no_gpu_is_a_reason_without_test_equipment():
    if not torch.cuda.is_available() and backends.has_operators("triton"):
        assert "sees no GPU: install its driver" in available_backends()["triton"]
        assert "TRITON_INTERPRET" not in available_backends()["triton"]


def test_import_does_not_import_triton():
    code = "import sys, itrd_kernels; assert not [name for name in sys.modules if name.split('.')[0] == 'triton']"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_auto_never_takes_the_interpreter():
    assert backends.fastest("cpu") != "triton"
