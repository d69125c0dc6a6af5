"""What setup.py says where it cannot build, from a copy of the project that takes no time to compile."""

import shutil
import zipfile
from pathlib import Path

import pytest
from cases import run_python

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="there is no checkout around these tests")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project, whose native code is one line that does not compile."""
    (tmp_path / "itrd_kernels").mkdir()
    (tmp_path / "csrc" / "cpu").mkdir(parents=True)
    for name in (
        "setup.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "itrd_kernels/__init__.py",
        "csrc/fingerprint.py",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "csrc/cpu/operators.cpp").write_text("#error planted\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# As far as the build can tell, the interpreter has no global lock.
FREE_THREADED = """
import runpy, sys, sysconfig
real = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else real(name)
sys.argv = ["setup.py", "bdist_wheel"]
runpy.run_path("setup.py", run_name="__main__")
"""


def build(**environment):
    # No CUDA library: it would take a toolkit's time.
    return run_python("setup.py", "build_ext", CUDA_HOME="/none", **environment)


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler here")
def test_a_library_that_does_not_compile_is_left_out(project):
    done = build()
    assert done.returncode == 0, done.stderr
    assert "building without the itrd_kernels._cpu (it does not compile" in done.stderr
    required = build(ITRD_REQUIRE_NATIVE="1")
    assert required.returncode != 0
    assert "planted" in required.stdout + required.stderr


def test_no_compiler_is_a_reason(project):
    done = build(CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "point CXX at" in done.stderr


def test_old_setuptools_is_named(project):
    (project / "setuptools.py").write_text("__version__ = '76.1.0'\n")
    done = build(PYTHONPATH=str(project))
    assert done.returncode != 0
    assert "needs setuptools >= 77, but 76.1.0 is installed; pip install 'setuptools>=77'" in done.stderr


def test_libraries_that_there_are_not(project):
    done = build(ITRD_LIBRARIES="cpu gpu")
    assert done.returncode != 0
    assert "ITRD_LIBRARIES must be 'cpu cuda' or one of them, got 'cpu gpu'" in done.stderr


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize("free_threaded", [False, True])
def test_only_a_python_with_a_global_lock_gets_the_limited_interface(free_threaded, project):
    (project / "csrc/cpu/operators.cpp").write_text("int nothing() { return 0; }\n")
    command = ("-c", FREE_THREADED) if free_threaded else ("setup.py", "bdist_wheel")
    done = run_python(*command, CUDA_HOME="/none", ITRD_LIBRARIES="cpu", ITRD_REQUIRE_NATIVE="1")
    assert done.returncode == 0, done.stderr
    assert ("-DPy_LIMITED_API" in done.stdout) == (not free_threaded)
    (wheel,) = (project / "dist").glob("*.whl")
    assert ("-cp310-abi3-" in wheel.name) == (not free_threaded)
    (library,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("itrd_kernels/_cpu."))
    assert (".abi3." in library) == (not free_threaded)
