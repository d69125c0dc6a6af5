"""The paper's experiments by name: DATASET/TEACHER-STUDENT-METHOD distils, DATASET/MODEL trains a teacher
(or, with `itrd-distill probe`, a linear classifier on the frozen model).

A recipe is put together from the YAML files beside this one, later ones going before earlier ones: the data set's
settings, what its student wants, the method's, the method's within or across families and for this student, and the
data set's own for this method and this student. Any two models may be paired; `names` lists the pairs of the paper.
A data set's file may name another data set, `teachers`, whose recipes train its teachers.
"""

from collections.abc import Iterator
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from itrd_distill.models import model_names
from itrd_distill.options import contains_itself

_FILES = resources.files("itrd_distill.recipes")


def names() -> list[str]:
    """Every teacher and every pair × method that the data sets' files list."""
    found = []
    for dataset in _stems("datasets"):
        listed = _read(f"datasets/{dataset}.yaml")
        pairs = listed.get("pairs", [])
        models = [*listed.get("models", []), *(model for pair in pairs for model in pair)]
        found += [f"{dataset}/{model}" for model in dict.fromkeys(models)]
        found += [f"{dataset}/{teacher}-{student}-{m}" for teacher, student in pairs for m in methods()]
    return found


def methods() -> list[str]:
    """The methods in the order of the paper's Table 1."""
    baselines = ["kd", "fitnet", "at", "sp", "cc", "rkd", "pkt", "ft", "nst", "crd", "wcord", "review"]
    order = ["none", *baselines, "itrd_corr", "itrd"]
    return sorted(_stems("methods"), key=lambda name: [*order, name].index(name))


def resolve(name: str) -> dict[str, Any]:
    """The settings of a recipe, as `itrd_distill.training.settings.Recipe` takes them.

    Raises:
        ValueError: the name is not of the form above, or a part of it is unknown; the message says which.
    """
    dataset, _, rest = name.partition("/")
    _check("data set", dataset, _stems("datasets"), name)
    base = _read(f"datasets/{dataset}.yaml")
    own_methods, own_students = base.pop("methods", {}), base.pop("students", {})
    teachers = base.pop("teachers", dataset)
    for listing in ("pairs", "models"):
        base.pop(listing, None)
    parts = rest.split("-")
    if len(parts) == 1:
        _check("model", rest, model_names(), name)
        return _merged(
            base,
            _read("students.yaml").get(rest, {}),
            own_students.get(rest, {}),
            {"name": name, "student": rest, "method": "none"},
        )
    if len(parts) != 3:
        raise ValueError(f"recipe {name!r} is neither DATASET/MODEL nor DATASET/TEACHER-STUDENT-METHOD")
    teacher, student, method = parts
    _check("teacher", teacher, model_names(), name)
    _check("student", student, model_names(), name)
    _check("method", method, methods(), name)
    settings = _read(f"methods/{method}.yaml")
    students, families = settings.pop("students", {}), ("across_families", "within_family")
    by_family = {family: settings.pop(family, {}) for family in families}
    related = any(teacher in family and student in family for family in _read("families.yaml"))
    named = {
        "name": name,
        "student": student,
        "method": method,
        # Where `itrd-distill train --recipe TEACHERS/TEACHER` leaves them.
        "teacher": {"model": teacher, "checkpoint": str(Path("runs", teachers, teacher, "seed0", "weights.pt"))},
    }
    return _merged(
        base,
        _read("students.yaml").get(student, {}),
        settings,
        by_family[families[related]],
        students.get(student, {}),
        own_methods.get(method, {}),
        own_students.get(student, {}),
        named,
    )


def settings_in(path: Path) -> dict[str, Any]:
    """The settings in a recipe file.

    Raises:
        ValueError: it is no YAML in UTF-8, or holds something other than settings; the message names the file.
    """
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if contains_itself(found):
        raise ValueError(f"{path}: a mapping or a list contains itself: write out what it shall hold")
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold settings, such as `seed: 1`, got {found!r}")
    return found


def teacher_recipe(pair: str) -> str:
    """DATASET/TEACHER, the recipe that trains the teacher of DATASET/TEACHER-STUDENT."""
    dataset, _, models = pair.partition("/")
    _check("data set", dataset, _stems("datasets"), pair)
    return f"{_read(f'datasets/{dataset}.yaml').get('teachers', dataset)}/{models.rpartition('-')[0]}"


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Later layers over earlier ones, mappings within mappings."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            below = result.get(key)
            if isinstance(below, dict) and isinstance(value, dict):
                result[key] = _merged(below, value)
            else:
                result[key] = deepcopy(value)
    return result


def _check(what: str, name: str, known: list[str], recipe: str) -> None:
    if name not in known:
        raise ValueError(f"recipe {recipe!r}: {what} must be one of {', '.join(known)}; got {name!r}")


def _read(path: str) -> Any:
    return yaml.safe_load(_FILES.joinpath(path).read_text("utf-8"))


def _stems(folder: str) -> list[str]:
    files: Iterator = _FILES.joinpath(folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
