"""Pictures drawn on the host with Pillow, which TensorBoard brings along."""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fitkit.watch.text_table import short

__all__ = ["Picture", "confusion_picture", "label_of", "lines_of", "tiles_picture"]

Picture = tuple[bytes, tuple[int, int, int]]
"""A PNG file; height, width, channels."""

_INK, _GREEN, _RED = (30, 30, 30), (22, 128, 60), (200, 30, 40)
_TILE, _LINE, _GAP = 72, 17, 6  # pixels
_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")  # of lines
_SERIES = 108, 60  # pixels: three of them are as wide as TensorBoard shows a picture
_FINER = 3  # lines are drawn larger, then made smaller: smooth


def confusion_picture(counts: NDArray[np.int64], names: Sequence[str]) -> Picture:
    """Draw how often each class (row) was taken for each (column), in shares of the row.

    Args:
        counts: Shape (classes, classes).
        names: The classes.
    """
    num, names = len(counts), [label_of(name) for name in names]
    cell = max(10, min(40, 800 // num))
    font = _font(15 if cell > 30 else 10)
    left = _TILE // 4 + 2 * _LINE + max(round(font.getlength(name)) for name in names)
    top, bottom = 2 * _LINE, left
    canvas, draw = _canvas(left + num * cell + _LINE, top + num * cell + bottom)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row in range(num):
        for column in range(num):
            share = shares[row, column]
            x, y = left + column * cell, top + row * cell
            color = tuple(round(255 - share * (255 - full)) for full in (8, 69, 148))
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=color)
            if cell >= 20 and counts[row, column]:
                ink = (255, 255, 255) if share > 0.5 else _INK
                middle = (x + cell / 2 - 1, y + cell / 2 - 1)
                draw.text(
                    middle,
                    f"{counts[row, column]}",
                    ink,
                    _font(14 if cell > 30 else 10),
                    anchor="mm",
                )
    for index, name in enumerate(names):
        middle = index * cell + cell / 2 - 1
        if cell >= 13:
            draw.text((left - 6, top + middle), name, _INK, font, anchor="rm")
            _below(canvas, name, (left + round(middle), top + num * cell + 6), font, cell)
    right = round(100 * np.trace(counts) / max(counts.sum(), 1), 1)
    middle = left + num * cell / 2
    draw.text((middle, _LINE), f"{right} % right", _INK, _font(15), anchor="mm")
    draw.text(
        (middle, top + num * cell + bottom - _LINE), "predicted", _INK, _font(15), anchor="mm"
    )
    title = _sideways("true class", _font(15))
    canvas.paste(title, (4, top + (num * cell - title.height) // 2))
    return _png(canvas)


def tiles_picture(
    images: NDArray[np.uint8], captions: Sequence[tuple[str, bool | None]], columns: int
) -> Picture:
    """Draw images side by side, each with a line below it: green where right, red where wrong.

    Args:
        images: Shape (n, height, width, 1 or 3).
        captions: n texts, and whether the answer was right; None if that cannot be said.
        columns: How many stand in a row.
    """
    image: Any = import_module("PIL.Image")
    height, width = images.shape[1:3]
    scale = max(1, round(_TILE / max(height, width)))
    font = _font(15)
    widest = max([round(font.getlength(text)) for text, _ in captions], default=0)
    step_x = max(width * scale, widest) + 2 * _GAP
    step_y = height * scale + _LINE + 2 * _GAP
    canvas, draw = _canvas(columns * step_x, -(-len(images) // columns) * step_y)
    for index, (pixels, (text, is_right)) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        x = column * step_x + (step_x - width * scale) // 2
        y = row * step_y + _GAP
        tile = image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        tile = tile.resize((width * scale, height * scale), image.Resampling.NEAREST)
        canvas.paste(tile.convert("RGB"), (x, y))
        color = _INK if is_right is None else _GREEN if is_right else _RED
        middle = (x + width * scale / 2, y + height * scale + _LINE / 2 + 2)
        draw.text(middle, text, color, font, anchor="mm")
    return _png(canvas)


def lines_of(series: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw each series as lines over time, each feature between its extremes in all of them.

    Args:
        series: Shape (n, time, features); there is a gap where a number is not finite.

    Returns:
        Images of shape (n, height, width, 3).
    """
    image: Any = import_module("PIL.Image")
    size = _SERIES
    finite = np.where(np.isfinite(series), series, np.nan)
    is_known = np.isfinite(finite).any((0, 1))
    finite = finite[..., is_known]
    low, high = np.nanmin(finite, (0, 1)), np.nanmax(finite, (0, 1))
    shares = (finite - low) / np.where(high > low, high - low, 1)
    x = np.linspace(3, size[0] - 4, max(2, series.shape[1])) * _FINER
    y = (size[1] - 4 - shares * (size[1] - 7)) * _FINER
    drawn = np.empty((len(series), size[1], size[0], 3), np.uint8)
    for tile, lines in zip(drawn, y, strict=True):
        canvas, draw = _canvas(size[0] * _FINER, size[1] * _FINER)
        for line, color in [*zip(lines.T, _COLORS, strict=False)][::-1]:
            gaps = np.isnan(line)
            for part in np.split(np.arange(len(line)), np.flatnonzero(gaps)):
                known = part[~gaps[part]]
                draw.line([*zip(x[known], line[known], strict=True)], color, width=_FINER)
        small = canvas.resize(size, image.Resampling.BOX)
        tile[:] = np.asarray(small)
        tile[[0, -1]] = tile[:, [0, -1]] = 215  # a frame
    return drawn


def label_of(name: str) -> str:
    """Return a name as it can be drawn: on one line, which is not too long."""
    return short("".join(char if char.isprintable() else "?" for char in name))


def _canvas(width: int, height: int) -> tuple[Any, Any]:
    image: Any = import_module("PIL.Image")
    canvas = image.new("RGB", (round(width), round(height)), (255, 255, 255))
    return canvas, import_module("PIL.ImageDraw").Draw(canvas)


@cache
def _font(size: int) -> Any:
    fonts: Any = import_module("PIL.ImageFont")
    return fonts.load_default(size=size)


def _below(canvas: Any, name: str, at: tuple[int, int], font: Any, room: int) -> None:
    """Write a name below a column, turned by 90 degrees where it is wider than the column."""
    strip = _strip(name, font) if font.getlength(name) < room else _sideways(name, font)
    canvas.paste(strip, (at[0] - strip.width // 2, at[1]))


def _sideways(text: str, font: Any) -> Any:
    """Return text that reads from bottom to top."""
    return _strip(text, font).rotate(90, expand=True)


def _strip(text: str, font: Any) -> Any:
    strip, draw = _canvas(round(font.getlength(text)) + 2, 18)
    draw.text((1, 9), text, _INK, font, anchor="lm")
    return strip


def _png(canvas: Any) -> Picture:
    file = BytesIO()
    canvas.save(file, format="PNG", compress_level=1)  # more saves little, and takes longer
    return file.getvalue(), (canvas.height, canvas.width, 3)
