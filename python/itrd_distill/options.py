"""What values settings and options may take, declared where they are: as the annotation of a field or a parameter.

`Annotated[float, above(0)]` is a finite number > 0. Settings, losses and data sets are all checked by `check`.
"""

import inspect
import sys
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from itrd_distill.lines import NO_TEXT


class Rule(NamedTuple):
    """words: as they follow "must be a number", say; holds: of a value of the right type."""

    words: str
    holds: Callable[[Any], bool]

    def __repr__(self) -> str:  # as `--help` shows it
        return self.words


def at_least(least: float) -> Rule:
    return Rule(f"≥ {least}", lambda value: value >= least)


def above(bound: float) -> Rule:
    return Rule(f"> {bound}", lambda value: value > bound)


def at_most(most: float) -> Rule:
    return Rule(f"≤ {most}", lambda value: value <= most)


def below(bound: float) -> Rule:
    return Rule(f"< {bound}", lambda value: value < bound)


def one_of(*names: str) -> Rule:
    return Rule(f"that is one of {', '.join(names)}", lambda value: value in names)


def is_a_line(text: str) -> bool:
    return bool(text) and not any(unicodedata.category(character) in NO_TEXT for character in text)


Count = Annotated[int, at_least(1)]
CountFromZero = Annotated[int, at_least(0)]
Weight = Annotated[float, at_least(0)]
Positive = Annotated[float, above(0)]
Share = Annotated[float, at_least(0), at_most(1)]
Line = Annotated[str, Rule("on one line", is_a_line)]

_WORDS = {int: "an integer", float: "a finite number", bool: "true or false", str: "text", dict: "a mapping"}


def check(name: str, value: object, hint: Any) -> None:
    """Raise a ValueError that names the setting and what it may be, unless the value is what the annotation says."""
    if wrong := misfit(name, value, hint):
        raise ValueError(wrong)


def misfit(name: str, value: object, hint: Any) -> str:
    """What the value must be and is not, in words; empty if it is what the annotation says."""
    return "" if _fits(value, hint) else f"{name} must be {expected(hint)}, got {value!r}"


def check_fields(settings: Any, prefix: str = "") -> None:
    """`check` every field of a dataclass."""
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        check(prefix + field.name, getattr(settings, field.name), hints[field.name])


def check_options(
    whose: str, prefix: str, function: Callable, options: Mapping[str, object], given: tuple[str, ...]
) -> None:
    """Check the options of a loss or a data set against the signature of what makes it.

    Args:
        whose: "loss kd".
        prefix: before an option's name in messages.
        function: takes the options, beside what is `given`.
        options: name → value.
        given: parameters that are no options.

    Raises:
        ValueError: an option is unknown, missing, or not what its parameter's annotation says.
    """
    parameters = parameters_of(function, given)
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    for name, value in options.items():
        if name not in parameters:
            raise ValueError(f"{whose} takes the options {', '.join(parameters)}; got {name!r}")
        check(prefix + name, value, hints[name])
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise ValueError(f"{whose} needs the option {prefix}{name}, {expected(hints[name])}")


def parameters_of(function: Callable, given: tuple[str, ...]) -> dict[str, inspect.Parameter]:
    """The options that a loss or a data set takes, by name."""
    return {name: p for name, p in inspect.signature(function).parameters.items() if name not in given}


def hint_of(settings: type, path: str) -> Any:
    """The annotation of the setting GROUP.NAME of nested dataclasses; None if there is no such setting."""
    hint: Any = settings
    for name in path.split("."):
        if not is_dataclass(hint):
            return None
        hint = get_type_hints(hint, include_extras=True).get(name)
    return hint


def check_tree(whose: str, settings: Mapping[str, object], kind: type, prefix: str = "") -> None:
    """Raise a ValueError unless all keys of nested mappings are fields of nested dataclasses."""
    for name, value in settings.items():
        hint = hint_of(kind, f"{prefix}{name}")
        if hint is None:
            raise ValueError(f"{whose}: there is no setting {prefix}{name}")
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ValueError(f"{whose}: {prefix}{name} must be a mapping of settings, got {value!r}")
            check_tree(whose, value, kind, f"{prefix}{name}.")


def contains_itself(value: object) -> bool:
    """Whether a mapping or a list is within itself, which YAML can say."""
    looked_at: set[int] = set()

    def returns(part: object, above: frozenset[int]) -> bool:
        if id(part) in above:
            return True
        if not isinstance(part, dict | list) or id(part) in looked_at:
            return False
        looked_at.add(id(part))
        return any(returns(p, above | {id(part)}) for p in (part.values() if isinstance(part, dict) else part))

    return returns(value, frozenset())


def expected(hint: Any) -> str:
    """What an annotation stands for, in words."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{expected(parts[0])} {' and '.join(rule.words for rule in parts[1:])}"
    if origin in (Union, UnionType):
        return " or ".join(expected(part) for part in parts)
    if origin is list:
        return f"a list, each {expected(parts[0])}"
    if hint is NoneType:
        return "null"
    return _WORDS.get(origin or hint, f"{getattr(hint, '__name__', hint)}")


def _fits(value: object, hint: Any) -> bool:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, parts[0]) and all(rule.holds(value) for rule in parts[1:])
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
