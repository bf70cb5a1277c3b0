"""Code in markdown and docstrings: fenced blocks, and a way to run them."""

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.contract.source import ROOT, Documented, modules

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+(?:e[-+]?\d+)?")


class Block(NamedTuple):
    """A fenced block: where it stands, its language, its text without the indentation."""

    place: str
    language: str
    text: str


def blocks(place: str, text: str) -> list[Block]:
    """All fenced blocks of a text."""
    found = []
    for match in FENCE.finditer(text):
        indent, language, body = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        found.append(Block(f"{place}:{line}", language, body))
    return found


def pages() -> list[str]:
    """README, docs and the READMEs beside the code, relative to the root."""
    paths = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "fitkit").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def docstring_blocks() -> Iterator[Block]:
    """The python blocks of all docstrings of fitkit."""
    for module in modules():
        for node in ast.walk(module.tree):
            doc = ast.get_docstring(node) if isinstance(node, Documented) else None
            name = getattr(node, "name", "")
            for block in blocks(f"{module.path} {name}", doc or ""):
                if block.language == "python":
                    yield block._replace(place=f"{module.path} {name}")


def run(block: Block, namespace: dict[str, Any]) -> str:
    """Run a block and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.place, "exec"), namespace)
    return printed.getvalue()


def masked(text: str) -> list[str]:
    """Lines with decimal numbers masked and spaces squeezed: what does not depend on the machine."""
    lines = [re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip() for line in text.splitlines()]
    return [line for line in lines if line]
