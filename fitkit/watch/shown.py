"""Images and series with what a model said about them, on the device until they are drawn."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.watch.answers import Answers, answers_of
from fitkit.watch.drawing import lines_of

__all__ = ["Layout", "Shown", "answers_table", "check_shape", "images_of", "layout_of", "pixels_of"]

_LARGEST = 96  # pixels of a side; larger images are drawn smaller
_CHANNELS = (1, 3)
_LONGEST, _LINES = 288, 6  # points in time, features

Layout = tuple[int, ...] | Literal[1, 2] | None
"""What inputs are: images of this shape, series along this axis, or images as they come."""


@dataclass
class Shown:
    """Images with their answers, on the device: (n, height, width, channels) and (2, n, 6).

    Series are (n, time, features). Of several sizes the smaller ones get a margin. There are
    answers for both readings of the outputs, see `Answers`. The columns: how wrong, said class,
    right class, said number, right number, and how many classes there are; 0 of them are numbers.
    What is NaN cannot be said.
    """

    images: Tensor
    answers: Tensor

    def first(self, num: int) -> "Shown":
        """Return the first ones."""
        return Shown(self.images[:num], self.answers[:, :num])

    def __add__(self, other: "Shown") -> "Shown":
        images = _joined(self.images, other.images)
        return Shown(images, torch.cat([self.answers, other.answers], 1))

    def worst(self, num: int, reading: int) -> "Shown":
        """Return those that are most wrong in a reading, the worst first. Syncs: never."""
        index = self.answers[reading, :, 0].topk(min(num, len(self.images))).indices
        return Shown(self.images.index_select(0, index), self.answers.index_select(1, index))


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Return both, one below the other. Syncs: never."""
    parts = [first, second]
    sides = [max(pair) for pair in zip(first.shape[1:], second.shape[1:], strict=True)]
    for index, part in enumerate(parts):
        if [*part.shape[1:]] != sides:
            margin = math.nan if part.is_floating_point() else 0
            parts[index] = part.new_full((len(part), *sides), margin)
            parts[index][(..., *[slice(side) for side in part.shape[1:]])] = part
    return torch.cat(parts)


def check_shape(shape: Any) -> tuple[int, ...] | Literal["series"] | None:
    """Return `shape` if images can have it, or "series" or None as they are.

    Raises:
        ConfigError: If they cannot.
    """
    if shape is None or shape == "series":
        return shape
    given: Any = shape
    sides: list[Any] = [*given] if type(given) in (tuple, list) else []
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    if whole and (len(sides) == 2 or (len(sides) == 3 and sides[2] in _CHANNELS)):
        return tuple(sides)
    raise ConfigError(
        f"Images(shape={brief(given)}), expected (height, width) or (height, width, 1 or 3)\n"
        'Write for example Images(shape=(28, 28)), or Images(shape="series") for lines over time.'
    )


def layout_of(inputs: Any, shape: tuple[int, ...] | Literal["series"] | None) -> Layout:
    """Return what inputs are: as `shape` says, or as their sides do.

    Without channels an image has sides of about the same length. A series is longer than it has
    features; so time is the longer side.
    """
    if not isinstance(inputs, Tensor) or isinstance(shape, tuple):
        return shape if isinstance(shape, tuple) else None
    if inputs.dim() == 3:
        short, long = sorted(inputs.shape[1:])
        if shape == "series" or long > 2 * short:
            return 2 if inputs.shape[1] < inputs.shape[2] else 1
    return 1 if shape == "series" and inputs.dim() == 2 else None


def images_of(inputs: Any, layout: Layout) -> Tensor | None:
    """Return inputs as images of shape (batch, height, width, channels), None if they are none.

    Series are (batch, time, features), both thinned out where they are many.

    Args:
        inputs: What the model was shown.
        layout: What they are.

    Raises:
        ConfigError: If `layout` has not as many numbers.
    """
    if not isinstance(inputs, Tensor) or not len(inputs):
        return None
    if isinstance(layout, int):
        series = inputs.unsqueeze(-1) if inputs.dim() == 2 else inputs.movedim(layout, 1)
        return series[:, :: -(-series.shape[1] // _LONGEST) or 1, :_LINES]
    if layout is not None:
        if inputs.numel() != len(inputs) * math.prod(layout):
            raise ConfigError(
                f"Images(shape={layout}) does not fit inputs of shape {tuple(inputs.shape)}\n"
                "Give height, width and channels of what the model is shown."
            )
        inputs = inputs.reshape(len(inputs), *layout)
    if inputs.dim() == 3:
        inputs = inputs.unsqueeze(-1)
    if inputs.dim() != 4:
        return None
    if inputs.shape[-1] not in _CHANNELS:
        inputs = inputs.movedim(1, -1)
    if inputs.shape[-1] not in _CHANNELS:
        return None
    every = -(-max(inputs.shape[1:3]) // _LARGEST)
    return inputs if every == 1 else inputs[:, ::every, ::every]


def answers_table(outputs: Any, targets: Any, num: int) -> tuple[Tensor, Tensor]:
    """Return the answers of `Shown`, and whether the outputs may be probabilities. Syncs: never."""
    numbers: Any = isinstance(outputs, Tensor) and isinstance(targets, Tensor)
    numbers = numbers and outputs.numel() == targets.numel() == num
    answers = answers_of(outputs, targets)
    device = outputs.device if isinstance(outputs, Tensor) else "cpu"
    table = torch.full((num, 6), torch.nan, device=device)
    table[:, 0] = 0
    if numbers:
        said, right = outputs.detach().flatten().float(), targets.flatten().float()
        rows = [(said - right).abs(), said, right, said, right, torch.zeros_like(said)]
        table = torch.stack(rows, 1)
    if answers is None:
        return table.expand(2, num, 6), torch.ones((), dtype=torch.bool, device=device)
    return torch.stack([_in(scores, answers, table) for scores in answers.readings]), answers.shares


def _in(scores: Tensor, answers: Answers, table: Tensor) -> Tensor:
    """Return the answers in one reading, `table` where there are no classes."""
    size = scores.shape[1]
    known = (answers.labels >= 0) & (answers.labels < size)
    labels = answers.labels.clamp(0, size - 1)[:, None]
    others = scores.scatter(1, labels, -1).amax(1)
    behind = (others - scores.gather(1, labels)[:, 0]).where(answers.finite, torch.inf)
    said = scores.argmax(1).float().where(answers.finite, torch.nan)
    num = torch.full_like(behind, size)
    rows = [behind, said, answers.labels.float(), table[:, 3], table[:, 4], num]
    return torch.where(answers.fit & known[:, None], torch.stack(rows, 1), table)


def pixels_of(images: Tensor) -> NDArray[np.uint8]:
    """Return bytes: numbers from 0 to 1 as they are, others stretched to their finite range.

    Series are drawn as lines.
    """
    if images.dim() == 3:
        return lines_of(images.detach().float().cpu().numpy())  # sync: once per validation
    if images.dtype == torch.uint8:
        return images.cpu().numpy()  # sync: once per validation, they are drawn on the host
    values: Any = images.detach().float().cpu().numpy()  # sync: once per validation, as above
    finite = values[np.isfinite(values)]
    low, high = finite.min(initial=0.0), finite.max(initial=1.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return ((values - low) / (high - low) * 255).round().astype(np.uint8)
