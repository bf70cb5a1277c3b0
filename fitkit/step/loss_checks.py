"""What is checked about targets and losses, so that a wrong one is an error and not a number."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fitkit.data import describe
from fitkit.errors import DataError
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["LossKind", "check_loss", "check_targets", "kind_of", "require_targets"]


class LossKind(NamedTuple):
    """A loss as the checks know it.

    Attributes:
        name: As messages call it.
        known: Its name without case, underscores and "loss", if torch or Keras supply it, else "".
        of_keras: Whether it is Keras's; Keras adds or drops a last axis of length 1.
        ignored: The class index that counts for nothing; None if there is none.
    """

    name: str
    known: str
    of_keras: bool
    ignored: int | None


_INDEX = {"crossentropy", "nll", "sparsecategoricalcrossentropy"}
_BINARY = {"bce", "bcewithlogits", "binarycrossentropy", "binarycrossentropywithlogits"}
_ELEMENTWISE = {
    *("mse", "l1", "smoothl1", "huber", "logcosh", "meansquarederror", "meanabsoluteerror"),
    *("meansquaredlogarithmicerror", "meanabsolutepercentageerror", "categoricalcrossentropy"),
    *_BINARY,
}


def kind_of(loss: Any) -> LossKind:
    """Return what the checks need to know of a loss, asked once."""
    name: str = getattr(loss, "__name__", None) or type(loss).__name__
    module: str = getattr(loss, "__module__", None) or ""
    of_keras = module.startswith("keras.")
    known = name.lower().replace("_", "").removesuffix("loss")
    if not (of_keras or module.startswith("torch.")):
        known = ""
    default = None if of_keras else -100  # torch's own
    ignored = getattr(loss, "ignore_index", getattr(loss, "ignore_class", default))
    return LossKind(name, known, of_keras, ignored)


def require_targets(state: State) -> None:
    """Raise DataError if the batch has no targets."""
    if state.targets is None:
        raise DataError(
            "the batch has no targets, expected (inputs, targets) or (inputs, targets, weights)\n"
            f"  given: {describe(state.batch)}\n"
            "Say which part is what: FitLoop(..., unpack=lambda batch: (inputs, targets, None))."
        )


def check_loss(loss: Any, state: State) -> Tensor:
    """Return `loss` if it is a scalar tensor that gradients can flow from. Syncs: never.

    Raises:
        DataError: If it is not, saying shape, type and the likely cause.
    """
    if not isinstance(loss, Tensor):
        raise DataError(
            f"the loss is a {type(loss).__name__}, expected a tensor, at {state.place()}\n"
            "It was turned into a number (.item(), float()): return the tensor itself."
        )
    if loss.dim() != 0:
        raise DataError(
            f"the loss is {describe(loss)}, expected shape (), at {state.place()}\n"
            "Reduce it, for example with .mean(), or use the loss's own reduction."
        )
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


def check_targets(kind: LossKind, state: State) -> None:
    """Check shapes, dtypes and class indices of the first batch of a pass.

    Raises:
        DataError: If the targets cannot be right for this loss.
    """
    outputs, targets = state.outputs, state.targets
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return  # nested outputs: the loss itself knows what belongs together
    if kind.known in _INDEX:
        sparse = kind.known.startswith("sparse")
        if sparse or outputs.shape != targets.shape:  # the same shape: probabilities
            _check_indices(kind, outputs, targets, -1 if sparse else min(1, outputs.dim() - 1))
        return
    if kind.known in _BINARY and not kind.of_keras and not targets.is_floating_point():
        raise DataError(
            f"{kind.name} got targets of {targets.dtype}, expected a floating dtype like outputs\n"
            "Convert them: targets.float()."
        )
    _check_shapes(kind, outputs, targets, state.batch_index)


def _check_indices(kind: LossKind, outputs: Tensor, targets: Tensor, axis: int) -> None:
    classes = outputs.shape[axis]
    shape = list(outputs.shape)
    del shape[axis]
    fitting = [shape, [*shape, 1]] if kind.of_keras else [shape]
    if list(targets.shape) not in fitting:
        raise DataError(
            f"{kind.name} got outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}, "
            f"expected targets {tuple(shape)}\n"
            "Give one class index per sample, for example targets.squeeze(1), or probabilities."
        )
    if not kind.of_keras and targets.dtype not in (torch.int64, torch.uint8):
        raise DataError(
            f"{kind.name} got class indices of {targets.dtype} for {classes} classes, "
            "expected torch.int64\n"
            "Convert them: targets.long(). Probabilities need the shape of the outputs."
        )
    counted = targets if kind.ignored is None else torch.where(targets == kind.ignored, 0, targets)
    low, high = torch.aminmax(counted)
    smallest, largest = int(low), int(high)  # sync: first batch of a phase only
    if smallest < 0 or largest >= classes:
        raise DataError(
            f"class indices run from {smallest} to {largest}, the outputs have {classes} classes\n"
            f"Use indices from 0 to {classes - 1}, or give the model more outputs."
        )


def _check_shapes(kind: LossKind, outputs: Tensor, targets: Tensor, batch_index: int) -> None:
    given = f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
    advice = "Give both the same shape, for example targets.unsqueeze(1) or outputs.squeeze(1)."
    if outputs.shape == targets.shape:
        return
    if kind.of_keras and _fits_without_last_axis(outputs.shape, targets.shape):
        return
    if kind.known in _ELEMENTWISE:
        raise DataError(
            f"{kind.name} got {given} in batch {batch_index}, one shape expected\n{advice}"
        )
    floating = outputs.is_floating_point() and targets.is_floating_point()
    if not kind.known and floating and _blows_up(outputs.shape, targets.shape):
        warnings.warn(
            f"{kind.name} got {given} in batch {batch_index}: each would meet each\n{advice}",
            stacklevel=2,
        )


def _fits_without_last_axis(a: torch.Size, b: torch.Size) -> bool:
    return (*a, 1) == tuple(b) or tuple(a) == (*b, 1)


def _blows_up(a: torch.Size, b: torch.Size) -> bool:
    try:
        together = torch.Size(np.broadcast_shapes(a, b)).numel()
    except ValueError:
        return False  # the loss will say so itself
    return together > max(a.numel(), b.numel())
