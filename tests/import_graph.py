"""Which module of a package imports which other, read from the sources without running them."""

import ast
from collections.abc import Iterator
from pathlib import Path


def modules(package: Path) -> dict[str, Path]:
    """Every module below the folder of a package, by its full name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = [package.name, *path.relative_to(package).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def circles(package: Path) -> list[list[str]]:
    """The modules that import each other, directly or through others: one sorted list for each knot of them.

    Imports within functions count: they put off a circle, and leave it there. That a module's package is imported
    before the module itself does not count, for then every package that re-exports something would be a circle.
    """
    files = modules(package)
    direct = {name: _imported(name, path, files) for name, path in files.items()}
    reached = {name: _reached_from(name, direct) for name in files}
    knots = {frozenset(b for b in reached[a] if a in reached[b]) for a in files if a in reached[a]}
    return sorted(sorted(knot) for knot in knots)


def foreign(package: Path) -> list[str]:
    """The modules of others that a package imports anywhere, relative imports aside."""
    found = set()
    for path in modules(package).values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return sorted(name for name in found if name.partition(".")[0] != package.name)


def _imported(module: str, path: Path, files: dict[str, Path]) -> set[str]:
    own_package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text("utf-8"))
    return {name for node in ast.walk(tree) for name in _named(node, own_package, files)} - {module}


def _named(node: ast.AST, own_package: str, files: dict[str, Path]) -> Iterator[str]:
    """The modules of `files` that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
    elif isinstance(node, ast.ImportFrom):
        above = own_package.split(".")
        origin = [*above[: len(above) - node.level + 1], *([node.module] if node.module else [])]
        source = ".".join(origin) if node.level else str(node.module)
        for alias in node.names:
            # What is imported from a package is one of its modules, or something that the package itself holds.
            name = f"{source}.{alias.name}"
            yield from (candidate for candidate in (name if name in files else source,) if candidate in files)


def _reached_from(start: str, direct: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    ahead = [*direct[start]]
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += direct[module]
    return reached
