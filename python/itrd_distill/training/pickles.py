"""What pickles name and which of its objects they fill, told from their operations, none of which is carried out."""

import contextlib
import pickletools
from typing import IO, Any, NamedTuple

# What torch.load puts for Python 2's names, which pickle keeps up to protocol 2.
from torch._utils import IMPORT_MAPPING, NAME_MAPPING

_MARK = object()
_FILLED_AS = {"SETITEM": dict, "SETITEMS": dict, "APPEND": list, "APPENDS": list}
# They do something to an object, or call it, and leave what comes of that in its place.
_IN_PLACE = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", *_FILLED_AS}


class Survey(NamedTuple):
    """protocol: the highest; names: classes and functions → what their objects are filled as, dict, list or None."""

    protocol: int
    names: dict[str, type | None]


def survey(file: IO[bytes], pickles: int) -> Survey:
    """Of the next pickles in the file, up to where they are no pickles any more, which torch.load will say."""
    protocol, names = 0, dict[str, type | None]()
    with contextlib.suppress(Exception):
        for _ in range(pickles):
            # For every object its class, for a text the text itself, for all else None.
            stack: list[Any] = []
            memo: dict[int, Any] = {}
            argument: Any
            made: list[Any]
            for operation, argument, _ in pickletools.genops(file):
                kind = operation.name
                if kind == "MEMOIZE" or kind.endswith("PUT"):
                    memo[len(memo) if argument is None else argument] = stack[-1]
                    continue
                taken = _take(stack, operation.stack_before)
                made = [argument if isinstance(argument, str) else None] * len(operation.stack_after)
                if kind == "PROTO":
                    protocol = max(protocol, argument)
                elif kind == "MARK":
                    made = [_MARK]
                elif kind.endswith("GET"):
                    made = [memo[argument]]
                elif kind in ("GLOBAL", "STACK_GLOBAL"):
                    made = [_name(*(taken or argument.split(" ", 1)))]
                    names.setdefault(made[0])
                elif kind in _IN_PLACE:
                    made = taken[:1]
                    if kind in _FILLED_AS and made[0] in names:
                        names[made[0]] = _FILLED_AS[kind]
                stack += made
    return Survey(protocol, names)


def _take(stack: list[Any], before: list[Any]) -> list[Any]:
    """Take from the stack what an operation takes; return what was below the mark, if it takes all above one."""
    if pickletools.markobject in before:
        while stack.pop() is not _MARK:
            pass
        before = before[: before.index(pickletools.markobject)]
    start = len(stack) - len(before)
    taken = stack[start:]
    del stack[start:]
    return taken


def _name(module: str, name: str) -> str:
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
