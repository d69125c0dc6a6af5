"""What no source of the project may do: run or unpickle what it is given, or leave a text's encoding to the locale."""

import ast
import re
from collections.abc import Iterator

# Not to be named at all, lest it be called by another name. An exception of pickle's is no function.
FORBIDDEN = re.compile(
    r"eval|exec|compile|__import__|shutil\.unpack_archive|(pd|pandas)\.read_pickle|code\.(interact|Interactive\w+)"
    r"|os\.(system|popen|exec[lv]\w*|spawn\w+|posix_spawnp?|startfile)|subprocess\.get(status)?output"
    r"|(_?pickle|cPickle|dill|cloudpickle|jsonpickle|joblib|marshal|shelve)\.(?!\w+Error)\w+"
    r"|yaml\.(full_|unsafe_)?load(_all)?|torch\.(jit|hub|export|serialization)\.load\w*"
)


def offences(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    imported = _imported(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Name() | ast.Attribute():
                wrong: object = FORBIDDEN.fullmatch(_name(node, imported))
            case ast.Call():
                wrong = _is_unsafe(node, imported) or _is_text_of_any_encoding(node, imported)
            case _:
                continue
        if wrong:
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _imported(tree: ast.AST) -> dict[str, str]:
    """The names that imports give to modules and to what is in them → what that is."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {a.asname: a.name for a in node.names if a.asname}
            found |= {root: root for a in node.names if not a.asname and (root := a.name.partition(".")[0])}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _name(node: ast.AST, imported: dict[str, str]) -> str:
    """With the modules that it stands in, as far as imports tell; it begins with a dot if it is what a call returns."""
    match node:
        case ast.Name():
            return imported.get(node.id, node.id).removeprefix("builtins.")
        case ast.Attribute():
            return f"{_name(node.value, imported)}.{node.attr}".removeprefix("builtins.")
    return ""


def _is_unsafe(call: ast.Call, imported: dict[str, str]) -> bool:
    name, given = _name(call.func, imported), {key.arg: ast.unparse(key.value) for key in call.keywords}
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return (
        given.get("shell", "False") != "False"
        or (
            (name == "torch.load" or method == "load_from_checkpoint" or "ckpt_path" in given)
            and given.get("weights_only") != "True"
        )
        or (name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False")
        or (method in ("extract", "extractall") and given.get("filter") != "'data'")
        # The source itself must say which module, or at least in which package or folder.
        or (name in ("importlib.import_module", "runpy.run_path", "runpy.run_module") and not _texts(call.args[0]))
    )


def _texts(node: ast.AST) -> list[str]:
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def _is_text_of_any_encoding(call: ast.Call, imported: dict[str, str]) -> bool:
    given, name = {key.arg: key.value for key in call.keywords}, _name(call.func, imported)
    root, _, method = name.partition(".")[0], *name.rpartition(".")[1:]
    if "encoding" in given:
        return False
    if method in ("read_text", "write_text"):
        return len(call.args) < {"read_text": 1, "write_text": 2}[method]
    opens = name in ("open", "io.open")
    # A module's own `open` reads archives, images and the like.
    if method != "open" or (not opens and root in {name.partition(".")[0] for name in imported.values()}):
        return False
    mode = given.get("mode", next(iter(call.args[1 if opens else 0 :]), ast.Constant("r")))
    modes = _texts(mode)
    # What stands for a mode in the method may be a part of an archive.
    return not all("b" in mode for mode in modes) if modes else opens
