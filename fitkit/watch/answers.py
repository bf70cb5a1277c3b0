"""What a classifier said, whatever form its outputs and targets have."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fitkit.errors import ConfigError, brief

__all__ = ["Answers", "answers_of", "check_classes", "names_of"]


class Answers(NamedTuple):
    """The answers for a batch, all on its device.

    Attributes:
        readings: Probabilities, float32 (2, batch, classes): if the outputs are probabilities, and
            if they are logits. A single batch does not always tell.
        shares: Bool (): whether the outputs may be probabilities: they lie between 0 and 1 and,
            where there are several, add up to 1.
        finite: Bool (batch,): whether the outputs of a sample are finite; if not, they do not tell.
        labels: Right classes, int64 (batch,); outside of the range where a sample has none.
        fit: Bool (): whether the targets are classes at all, and not numbers to come near to.
    """

    readings: Tensor
    shares: Tensor
    finite: Tensor
    labels: Tensor
    fit: Tensor


def answers_of(outputs: Any, targets: Any) -> Answers | None:
    """Return the answers, None if outputs and targets have other shapes. Syncs: never.

    Args:
        outputs: Probabilities or logits. Shape (batch, classes); (batch, 1) or (batch,) for two
            classes.
        targets: Class indices, shape (batch,) or (batch, 1), or one-hot rows, (batch, classes).
            For two classes 0 or 1.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    if not outputs.is_floating_point() or outputs.dim() not in (1, 2) or not len(outputs):
        return None
    # Rounding each probability moves their sum by less than this.
    tolerance = 1e-3 + torch.finfo(outputs.dtype).eps
    rows = outputs.detach().reshape(len(outputs), -1).float()
    of_two = rows.shape[1] == 1
    if targets.numel() == len(rows):
        labels = targets.flatten()
        fit = (labels == 0) | (labels == 1) if of_two else labels == labels.round()
    elif targets.shape == outputs.shape and not of_two:
        fit = ((targets == 0) | (targets == 1)).all() & (targets.sum(1) == 1).all()
        labels = targets.argmax(1)
    else:
        return None
    finite = rows.isfinite().all(1)
    is_share = (rows >= 0) & (rows <= 1 + tolerance)
    if not of_two:
        is_share &= ((rows.sum(1) - 1).abs() < tolerance)[:, None]
    shares = (is_share.all(1) | ~finite).all()
    if of_two:
        yes = torch.stack([rows, rows.sigmoid()])
        readings = torch.cat([1 - yes, yes], 2)
    else:
        readings = torch.stack([rows, rows.softmax(1)])
    return Answers(readings, shares, finite, labels.long(), fit.all())


def check_classes(classes: Any, owner: str) -> list[str] | None:
    """Return the names of classes as text, None if there are none.

    Raises:
        ConfigError: If they are no list of at least two.
    """
    if classes is None:
        return None
    given: Any = classes
    names: list[Any] = [*given] if type(given) in (tuple, list) else []
    if len(names) < 2:
        raise ConfigError(
            f"{owner}(classes={brief(given)}), expected a list of at least two names\n"
            f'Write {owner}(classes=["cat", "dog"]), or leave it out.'
        )
    return [str(name) for name in names]


def names_of(classes: Sequence[str] | None, num: int, owner: str) -> Sequence[str]:
    """Return a name for each class.

    Raises:
        ConfigError: If there are names for another number of classes.
    """
    if classes is not None and len(classes) != num:
        raise ConfigError(
            f"{owner} got {len(classes)} names of classes, the model has {num}\n"
            f"They are {brief(classes)}.\n"
            "Give one name per output of the model."
        )
    return classes or [str(index) for index in range(num)]
