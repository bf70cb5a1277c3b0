"""Outputs of many batches as one: a row for each sample."""

from typing import cast

import torch
from torch import Tensor

from fitkit.data.structure import Structure, leaves, map_leaves
from fitkit.errors import DataError

__all__ = ["check_rows", "joined"]


def check_rows(outputs: Structure, size: int | None, *, who: str) -> None:
    """Refuse outputs that have no row for each sample: they would stand beside other ones.

    Args:
        outputs: What a model gave for a batch.
        size: Number of samples in the batch; None if any number of rows will do.
        who: Wants them, for the message.

    Raises:
        DataError: a leaf is no tensor of such a shape; names its path.
    """
    for path, leaf in leaves(outputs, "outputs"):
        if isinstance(leaf, Tensor) and leaf.dim() and size in (None, len(leaf)):
            continue
        is_tensor = isinstance(leaf, Tensor)
        found = f"the shape {tuple(leaf.shape)}" if is_tensor else type(leaf).__name__
        samples = "samples" if size is None else f"{size} samples"
        raise DataError(
            f"{who}: {path} of a batch of {samples} is {found}, expected a row for each\n"
            f"Let the model give one row per sample, or do without {who}."
        )


def joined(batches: list[Structure], *, who: str) -> Structure:
    """Return the rows of all batches in one structure of tensors.

    Raises:
        DataError: samples of two batches have different shapes.
    """
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], Tensor):  # as nearly always; there are many of them
        return _cat(batches, who)
    columns = zip(*([leaf for _, leaf in leaves(batch)] for batch in batches), strict=True)
    whole = iter([_cat(cast("list[Tensor]", list(column)), who) for column in columns])
    return map_leaves(lambda _: next(whole), batches[0])


def _cat(parts: list[Tensor], who: str) -> Tensor:
    shapes = list(dict.fromkeys(tuple(part.shape[1:]) for part in parts))
    if len(shapes) > 1:
        raise DataError(
            f"{who}: samples have the shape {shapes[0]} here, {shapes[1]} in another batch\n"
            f"Pad all batches to one length, or do without {who}."
        )
    return torch.cat(parts)
