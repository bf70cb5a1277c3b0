"""Tables for people, as lines of text."""

from collections.abc import Iterable, Sequence

__all__ = ["short", "text_table"]

_MAX_NAME = 40


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return lines: the first column to the left, all others to the right."""
    cells = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def short(name: str) -> str:
    """Return a name that leaves room for others: at most 40 characters, its end most of all."""
    return name if len(name) <= _MAX_NAME else f"{name[:7]}...{name[-_MAX_NAME + 10 :]}"
