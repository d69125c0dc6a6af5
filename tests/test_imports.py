"""Every module can be imported first and alone, and no modules import each other in a circle."""

import importlib.util
from pathlib import Path

import pytest
from cases import run_python
from import_graph import circles, foreign, modules

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "itrd_kernels", ROOT / "python" / "itrd_distill"]

# What others have written takes seconds, and is imported once; each module then has a process of its own, in which
# nothing else of its package has been imported.
ALONE = """
import contextlib, importlib, os, sys, traceback
others, own = (names.split() for names in sys.argv[1:])
for name in others:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
failed = []
for module in own:
    process = os.fork()
    if process == 0:
        try:
            importlib.import_module(module)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if os.waitpid(process, 0)[1]:
        failed.append(module)
sys.exit(f"cannot be imported alone: {', '.join(failed)}" if failed else 0)
"""


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_modules_import_each_other(package):
    assert circles(package) == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_every_module_can_be_imported_alone(package):
    if package.name == "itrd_distill":
        pytest.importorskip("lightning")
    names = [name for name in modules(package) if not name.endswith("__main__")]
    if importlib.util.find_spec("triton") is None:
        names = [name for name in names if ".triton." not in name]
    result = run_python("-c", ALONE, " ".join(foreign(package)), " ".join(names))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("import numpy", []),
        ("from made.a import value", [["made.a", "made.b", "made.c"]]),
        ("def later():\n    import made.a", [["made.a", "made.b", "made.c"]]),
        ("from . import a", [["made.a", "made.b", "made.c"]]),
        ("from made import b", [["made.b", "made.c"]]),
        ("from made import a_value", [["made", "made.a", "made.b", "made.c"]]),
    ],
)
def test_circles_are_found(last, expected, tmp_path):
    package = tmp_path / "made"
    package.mkdir()
    contents = {"__init__": "from made.a import a_value", "a": "import made.b", "b": "from .c import x", "c": last}
    for name, content in contents.items():
        (package / f"{name}.py").write_text(content)
    assert circles(package) == expected
