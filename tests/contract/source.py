"""The source of fitkit as text and syntax trees, for the rules that are checked by reading it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fitkit"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Module(NamedTuple):
    """One source file; a rule takes it, so a test can hand it a bad text under any path."""

    path: str  # relative to the root, with slashes
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def modules() -> list[Module]:
    """All source files of fitkit."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [Module(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


def imported(module: Module) -> Iterator[str]:
    """The dotted names a module imports, wherever in the file."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno} imports relatively"
            yield node.module or ""
            # `from fitkit import step` names a package too
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Qualified name and node of every function below `tree`."""
    for node in ast.iter_child_nodes(tree):
        name = f"{prefix}{getattr(node, 'name', '')}"
        if isinstance(node, Function):
            yield name, node
        yield from functions(node, f"{name}." if isinstance(node, Documented) else prefix)


def code_lines(node: ast.AST, text: str) -> int:
    """Lines of a node that hold code: no blank lines, no comments, no docstrings."""
    lines = text.splitlines()
    span = set(range(node.lineno, node.end_lineno + 1))
    for inner in ast.walk(node):
        if isinstance(inner, Documented) and ast.get_docstring(inner) is not None:
            span -= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    stripped = [lines[number - 1].strip() for number in span]
    return sum(bool(line) and not line.startswith("#") for line in stripped)
