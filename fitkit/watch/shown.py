"""Images with what a model said about them, on the device until they are drawn."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.watch.answers import Answers, answers_of

__all__ = ["Shown", "answers_table", "check_shape", "images_of", "pixels_of"]

_LARGEST = 96  # pixels of a side; larger images are drawn smaller
_CHANNELS = (1, 3)


@dataclass
class Shown:
    """Images with their answers, on the device: (n, height, width, channels) and (2, n, 6).

    There are answers for both readings of the outputs, see `Answers`. The columns: how wrong, said
    class, right class, said number, right number, and how many classes there are; 0 of them are
    numbers. What is NaN cannot be said.
    """

    images: Tensor
    answers: Tensor

    def first(self, num: int) -> "Shown":
        """Return the first ones."""
        return Shown(self.images[:num], self.answers[:, :num])

    def __add__(self, other: "Shown") -> "Shown":
        return Shown(
            torch.cat([self.images, other.images]), torch.cat([self.answers, other.answers], 1)
        )

    def worst(self, num: int, reading: int) -> "Shown":
        """Return those that are most wrong in a reading, the worst first. Syncs: never."""
        index = self.answers[reading, :, 0].topk(min(num, len(self.images))).indices
        return Shown(self.images.index_select(0, index), self.answers.index_select(1, index))


def check_shape(shape: Any) -> tuple[int, ...] | None:
    """Return `shape` if images can have it, or None as it is.

    Raises:
        ConfigError: If they cannot.
    """
    if shape is None:
        return None
    given: Any = shape
    sides: list[Any] = [*given] if type(given) in (tuple, list) else []
    whole = all(isinstance(side, int) and side > 0 for side in sides)
    if whole and (len(sides) == 2 or (len(sides) == 3 and sides[2] in _CHANNELS)):
        return tuple(sides)
    raise ConfigError(
        f"Images(shape={brief(given)}), expected (height, width) or (height, width, 1 or 3)\n"
        "Write for example Images(shape=(28, 28))."
    )


def images_of(inputs: Any, shape: tuple[int, ...] | None) -> Tensor | None:
    """Return inputs as images of shape (batch, height, width, channels), None if they are none.

    Args:
        inputs: What the model was shown.
        shape: What the rest of each flat row is, without the batch.

    Raises:
        ConfigError: If `shape` has not as many numbers.
    """
    if not isinstance(inputs, Tensor) or not len(inputs):
        return None
    if shape is not None:
        if inputs.numel() != len(inputs) * math.prod(shape):
            raise ConfigError(
                f"Images(shape={shape}) does not fit inputs of shape {tuple(inputs.shape)}\n"
                "Give height, width and channels of what the model is shown."
            )
        inputs = inputs.reshape(len(inputs), *shape)
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
    """Return bytes: numbers from 0 to 1 as they are, others stretched to their finite range."""
    if images.dtype == torch.uint8:
        return images.cpu().numpy()  # sync: once per validation, they are drawn on the host
    values: Any = images.detach().float().cpu().numpy()  # sync: once per validation, as above
    finite = values[np.isfinite(values)]
    low, high = finite.min(initial=0.0), finite.max(initial=1.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    return ((values - low) / (high - low) * 255).round().astype(np.uint8)
