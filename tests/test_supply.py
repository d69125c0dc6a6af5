"""What the project runs with is pinned, and its code evaluates and unpickles nothing that users give it."""

import importlib.metadata
import re
import sys
from pathlib import Path

import audit
import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from unsafe_calls import offences

ROOT = Path(__file__).parent.parent
PACKAGES = ("itrd_kernels", "python/itrd_distill", "benchmarks")
# Where `make` installs what a file pins.
ENVIRONMENTS = {".venv": "constraints.txt", ".venv-oldest": "constraints-oldest.txt"}

pytestmark = pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="there is no checkout around these tests")


def pins(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")]
    assert all(found), f"{name} holds something else than NAME==VERSION"
    return {canonicalize_name(match[1]): match[2] for match in found}


def needed(requirements):
    """Names of all that these requirements ask for here, directly or not, and the versions that are installed."""
    found, todo = {}, [(Requirement(text), "") for text in requirements]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        if (str(requirement), extra) in seen or (
            requirement.marker and not requirement.marker.evaluate({"extra": extra})
        ):
            continue
        seen.add((str(requirement), extra))
        name = canonicalize_name(requirement.name)
        try:
            held = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None  # such as pykeops, which benchmarks alone install
            continue
        found[name] = held.version
        todo += [(Requirement(text), own) for text in held.requires or () for own in ("", *requirement.extras)]
    return found


def asked_for():
    if Path(sys.prefix).name == ".venv-oldest":
        return ["torch", "numpy", "setuptools", "wheel", "ninja", "pytest", "pytest-xdist"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    return ["setuptools", "wheel", *project["dependencies"], *extras["dev"], *extras["distill"], *extras["bench"]]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt", "constraints-audit.txt"])
def test_pins_are_exact_and_each_is_there_once(name):
    lines = [line for line in (ROOT / name).read_text("utf-8").splitlines() if not line.startswith("#")]
    assert len(pins(name)) == len(lines) > 20


@pytest.mark.skipif(Path(sys.prefix).name not in ENVIRONMENTS, reason="this environment is none of make's")
def test_all_that_is_needed_is_pinned_and_is_what_is_installed():
    pinned = pins(ENVIRONMENTS[Path(sys.prefix).name])
    installed = needed(asked_for())
    assert len(installed) > 30
    assert {name: pinned.get(name) for name in installed} == {
        name: version or pinned[name] for name, version in installed.items()
    }


def test_the_oldest_versions_are_the_promised_ones():
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    oldest = pins("constraints-oldest.txt")
    texts = [
        *promised["build-system"]["requires"],
        *promised["project"]["dependencies"],
        *promised["project"]["optional-dependencies"]["triton"],
    ]
    for requirement in map(Requirement, texts):
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert oldest[requirement.name].startswith(bound.version), requirement.name


def test_nothing_from_users_is_evaluated_unpickled_or_given_to_a_shell():
    files = [ROOT / "setup.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    assert len(files) > 80
    assert [f"{path}: {found}" for path in files for found in offences(path.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)", "import builtins\nbuiltins.eval(text)", "run = exec", "code.interact()", "runpy.run_path(path)",
        "os.system(command)", "from os import system\nsystem(command)", "os.execvp(file, args)", "os.popen(command)",
        "subprocess.run(command, shell=True)", "subprocess.run(command, shell=given)", "subprocess.getoutput(command)",
        "yaml.load(text, Loader)", "yaml.unsafe_load_all(text)", "importlib.import_module(name)",
        "torch.load(path)", "torch.load(path, weights_only=False)", "from torch import load\nload(path)",
        "import torch as t\nt.load(path)", "torch.jit.load(path)", "torch.serialization.load(path)",
        "torch.hub.load(repository, model)", "Model.load_from_checkpoint(path)", "trainer.fit(model, ckpt_path=path)",
        "np.load(path)", "np.load(path, allow_pickle=True)", "numpy.load(path, None, False)",
        "pandas.read_pickle(path)", "pickle.loads(content)", "from pickle import load\nload(file)",
        "import pickle as p\np.load(file)", "pickle.Unpickler(file).load()",
        "dill.load(file)", "marshal.loads(content)", "shelve.open(path)",
        "map(pickle.loads, contents)", "archive.extractall(folder)", "archive.extract(member)",
        "archive.extractall(folder, filter='fully_trusted')", "shutil.unpack_archive(path)",
        "path.read_text()", "path.write_text(text)", "path.open()", "path.open('w')", "Path(name).open(mode='a')",
        "open(path)", "open(path, 'w')", "open(path_b)", "open(path, mode)", "open(path, buffering=1)",
        "open(path, 'ab' if binary else 'w')", "io.open(path)",
    ],
)  # fmt: skip
def test_what_must_not_be_called_is_seen(source):
    assert len(list(offences(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()", "re.compile(pattern)", "torch.compile(model)", "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)", "json.loads(text)", "isinstance(error, pickle.UnpicklingError)",
        "trainer.fit(model, ckpt_path=path, weights_only=True)", "np.load(path, allow_pickle=False)",
        "path.read_text('utf-8')", "path.write_text(text, encoding='utf-8')", "open(path, 'rb')",
        "open(path, mode='wb')", "open(path, 'w', encoding='utf-8')", "path.open('rb')", "path.open(encoding='utf-8')",
        "archive.open(part)", "from PIL import Image\nImage.open(path)", "import os\nos.open(path, flags)",
        "archive.extractall(folder, filter='data')", "extract(model)", "subprocess.run(command)",
        "runpy.run_path(ROOT / 'csrc/x.py')", "importlib.import_module('timm')",
        "importlib.import_module(f'benchmarks.{name}')",
    ],
)  # fmt: skip
def test_what_may_be_called_is_not_blamed(source):
    assert list(offences(source)) == []


HARMLESS = {"name": "one", "version": "1.0", "vulns": []}
MENDED = {"name": "two", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
OPEN = {"name": "three", "version": "3.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
UNKNOWN = {"name": "four", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("answers", "status", "told"),
    [
        ([HARMLESS], 0, "0 known vulnerabilities in 1 versions"),
        ([HARMLESS, UNKNOWN], 0, "in 1 versions; four could not be looked up"),
        ([HARMLESS, MENDED], 1, r"two 2.0 has PYSEC-1 \(mended in 2.1\)"),
        ([OPEN], 1, r"three 3.0 has PYSEC-2 \(not mended yet\)"),
        # An index that knows none of them is no database, though pip-audit calls that no known vulnerabilities.
        ([UNKNOWN], 0, "no database of vulnerabilities can be reached, so nothing is known"),
        ([], 0, "no database of vulnerabilities can be reached, so nothing is known .*why"),
    ],
)
def test_an_audit_says_what_is_known(answers, status, told, monkeypatch, capsys):
    monkeypatch.setattr(audit, "ask", lambda service, constraints: (answers, "" if answers else "why"))
    assert audit.main() == status
    assert re.search(told, capsys.readouterr().out)


def test_the_next_database_is_asked_where_the_first_is_silent(monkeypatch, capsys):
    replies = {"pypi": ([UNKNOWN], ""), "osv": ([MENDED], "")}
    monkeypatch.setattr(audit, "ask", lambda service, constraints: replies[service])
    assert audit.main() == 1
    assert "PYSEC-1" in capsys.readouterr().out


def test_a_program_that_breaks_off_is_no_answer(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert audit.ask("osv", ROOT / "constraints.txt") == ([], "no answer")
