"""Code in markdown and docstrings: find the blocks, run them, and show what they print.

A block of language "text" after a python block is its output. One that ends in "..." is the
beginning of it.
"""

import contextlib
import io
import re
from typing import Any, NamedTuple

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


def run(block: Block, namespace: dict[str, Any]) -> str:
    """Run a block and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.place, "exec"), namespace)
    return printed.getvalue()


def masked(text: str) -> list[str]:
    """Lines with decimals masked and spaces squeezed: what does not depend on the machine."""
    lines = [re.sub(r"\s+", " ", NUMBER.sub("#", line)).strip() for line in text.splitlines()]
    return [line for line in lines if line]


def outputs(place: str, text: str) -> list[tuple[str, str, str]]:
    """Run a page's python blocks in one namespace; return place, shown and printed text."""
    namespace: dict[str, Any] = {"__name__": "snippet"}
    printed, found = "", []
    for block in blocks(place, text):
        if block.language == "python":
            printed = run(block, namespace)
        elif block.language == "text" and printed:
            found.append((block.place, block.text, printed))
            printed = ""
    return found


def agrees(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed, decimal numbers aside."""
    left, right = masked(shown), masked(printed)
    if left[-1:] == ["..."]:
        left, right = left[:-1], right[: len(left) - 1]
    return left == right


def refreshed(place: str, text: str) -> str:
    """Return the page with each output that is out of date replaced by what is printed now."""
    for _, shown, printed in outputs(place, text):
        if not agrees(shown, printed):
            cut = shown.splitlines()[-1:] == ["..."]
            lines = (
                printed.splitlines()[: len(shown.splitlines()) - 1] if cut else [printed.rstrip()]
            )
            new = "\n".join([*lines, *(["..."] if cut else [])]) + "\n"
            text = text.replace(f"```text\n{shown}```", f"```text\n{new}```", 1)
    return text
