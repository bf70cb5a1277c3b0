"""What is checked about targets and losses, so that a wrong one is an error and not a number."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fitkit.data import describe
from fitkit.errors import DataError
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["check_loss", "check_targets", "require_targets"]


def require_targets(state: State) -> None:
    """Raise DataError if the batch has no targets."""
    if state.targets is None:
        raise DataError(
            f"the batch has no targets: {describe(state.batch)}\n"
            "A loss needs (inputs, targets) or (inputs, targets, weights); or say which is which "
            "with FitLoop(..., unpack=lambda batch: (inputs, targets, None))."
        )


def check_loss(loss: Any, state: State) -> Tensor:
    """Return `loss` if it is a scalar tensor that gradients can flow from. Syncs: never.

    Raises:
        DataError: If it is not, saying shape, type and the likely cause.
    """
    if not isinstance(loss, Tensor):
        cause = "The loss was turned into a number (.item(), float()): return the tensor itself."
        raise DataError(f"the loss is a {type(loss).__name__}, expected a tensor\n{cause}")
    if loss.dim() != 0:
        cause = "Reduce it, for example with .mean(), or use the loss's own reduction."
        raise DataError(f"the loss has shape {tuple(loss.shape)}, expected ()\n{cause}")
    if state.phase is Phase.TRAIN and loss.grad_fn is None:
        raise DataError(
            f"the loss {describe(loss)} has no gradient function at {state.place()}\n"
            f"{_why_no_gradient(loss)}"
        )
    return loss


def _why_no_gradient(loss: Tensor) -> str:
    if loss.is_inference() or torch.is_inference_mode_enabled():
        return "It was computed under torch.inference_mode(): leave that mode to train."
    return "Something cut the graph: .detach(), torch.no_grad() or argmax in the model or the loss."


_INDEX_LOSSES = {"CrossEntropyLoss", "NLLLoss", "SparseCategoricalCrossentropy"}
_BINARY_LOSSES = {"BCELoss", "BCEWithLogitsLoss"}


def check_targets(loss: Any, state: State) -> None:
    """Check shapes, dtypes and class indices of the first batch of a pass.

    Raises:
        DataError: If the targets cannot be right for this loss.
    """
    outputs, targets = state.outputs, state.targets
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return  # nested outputs: the loss itself knows what belongs together
    name = type(loss).__name__
    if name in _INDEX_LOSSES and targets.dim() < outputs.dim() + (name[0] == "S"):
        _check_indices(name, outputs, targets, getattr(loss, "ignore_index", -100))
    elif name in _BINARY_LOSSES and not targets.is_floating_point():
        raise DataError(
            f"{name} got targets of {targets.dtype}, expected a floating dtype like the outputs\n"
            "Convert them: targets.float()."
        )
    elif isinstance(loss, nn.Module) and name not in _INDEX_LOSSES:
        _check_shapes(name, outputs, targets, state)


def _check_indices(name: str, outputs: Tensor, targets: Tensor, ignored: int) -> None:
    if targets.is_floating_point() and name != "SparseCategoricalCrossentropy":
        raise DataError(
            f"{name} got class indices of {targets.dtype}, expected torch.int64\n"
            "Convert them: targets.long(). Probabilities need the shape of the outputs."
        )
    classes = outputs.shape[-1 if name[0] == "S" else 1]
    low, high = torch.aminmax(torch.where(targets == ignored, 0, targets))
    smallest, largest = int(low), int(high)  # sync: first batch of a pass only
    if smallest < 0 or largest >= classes:
        raise DataError(
            f"class indices run from {smallest} to {largest}, the outputs have {classes} classes\n"
            f"Use indices from 0 to {classes - 1}, or give the model more outputs."
        )


def _check_shapes(name: str, outputs: Tensor, targets: Tensor, state: State) -> None:
    if outputs.shape == targets.shape:
        return
    try:
        together = torch.Size(np.broadcast_shapes(outputs.shape, targets.shape))
    except ValueError:
        return  # the loss will say so itself
    if together.numel() > max(outputs.numel(), targets.numel()):
        raise DataError(
            f"{name} would broadcast outputs {tuple(outputs.shape)} and targets "
            f"{tuple(targets.shape)} to {tuple(together)} in batch {state.batch_index}\n"
            "Give both the same shape, for example targets.unsqueeze(1) or outputs.squeeze(1)."
        )
