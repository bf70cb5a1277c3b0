"""How much a batch counts in the mean over several: what its loss was divided by."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fitkit.errors import ConfigError
from fitkit.interop import is_keras
from fitkit.loop.bus import owner_of
from fitkit.loop.callback import Turn
from fitkit.loop.events import Event, Phase
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["BatchWeight", "batch_weight_of"]

Weigh = Callable[[State], int | Tensor]


class BatchWeight(NamedTuple):
    """How the batches of a loss count.

    Attributes:
        of: Gives the number of samples of a batch, or what else its loss was divided by: shape (),
            on the device. To be asked after LOSS.
        is_sum: Whether the loss is divided by nothing; each batch counts 1 then.
    """

    of: Weigh
    is_sum: bool = False


_COUNTING = (nn.CrossEntropyLoss, nn.NLLLoss)
_COUNTING_FUNCTIONS = (nn.functional.cross_entropy, nn.functional.nll_loss)
_MEANS = ("sum_over_batch_size", "mean", None)


def batch_weight_of(loop: "FitLoop", turn: Turn | None) -> BatchWeight:
    """Return how the batches of a turn count, by its loss.

    Raises:
        ConfigError: If the model was compiled with losses that count batches in different ways.
    """
    hooks = loop.bus.hooks(Phase.TRAIN, Event.LOSS, turn)
    loss: Any = next((getattr(owner_of(hook), "loss", None) for hook in hooks), None)
    compiled: Any = getattr(loop.model, "_compile_loss", None)
    if loss is None and compiled is not None:
        loss = _only_loss(list(_flat(compiled._user_loss)))
    if getattr(loss, "reduction", "mean") == "sum":
        return BatchWeight(_one, is_sum=True)
    if is_keras(loss, "losses.Loss"):
        return BatchWeight(_keras_weight(loss))
    if isinstance(loss, _COUNTING) or loss in _COUNTING_FUNCTIONS:
        return BatchWeight(_counted(loss))
    return BatchWeight(_samples)


def _samples(state: State) -> int:
    return state.batch_size


def _one(state: State) -> int:
    return 1


def _counted(loss: Any) -> Weigh:
    """Return how torch's cross-entropy counts: ignored targets not, others by class weight."""
    ignored: int = getattr(loss, "ignore_index", -100)
    class_weight: Tensor | None = getattr(loss, "weight", None)
    if getattr(loss, "reduction", "mean") == "none":  # fitkit's mean over all of them
        return _samples

    def weigh(state: State) -> int | Tensor:
        targets: Tensor = state.targets
        if targets.is_floating_point():  # probabilities: torch divides by their number
            return state.batch_size
        counts = targets != ignored
        if class_weight is None:
            return counts.sum()
        return (class_weight[torch.where(counts, targets, 0)] * counts).sum()

    return weigh


def _keras_weight(loss: Any) -> Weigh:
    """Return how a Keras loss counts: masked values not, others by sample weight if it says so."""
    ignored = getattr(loss, "ignore_class", None)
    by_weight = loss.reduction == "mean_with_sample_weight"

    def weigh(state: State) -> int | Tensor:
        mask: Tensor | None = getattr(state.outputs, "_keras_mask", None)
        if ignored is not None:
            counts = state.targets.reshape(state.outputs.shape[:-1]) != ignored
            mask = counts if mask is None else mask & counts
        weight: Tensor | None = state.sample_weight if by_weight else None
        if weight is None:
            return state.batch_size if mask is None else mask.sum()
        if mask is None:
            return weight.sum()
        return (weight.reshape(*weight.shape, *[1] * (mask.dim() - weight.dim())) * mask).sum()

    return weigh


def _only_loss(losses: list[Any]) -> Any:
    """Return the loss of a compiled model; None if all of several are means over samples."""
    if len(losses) == 1:
        return losses[0]
    for loss in losses:
        reduction = getattr(loss, "reduction", None)
        if reduction not in _MEANS:
            raise ConfigError(
                f"Accumulate: one of {len(losses)} losses of the model reduces by '{reduction}'\n"
                'Compile it with losses that are means over samples: reduction="mean".'
            )
    return None


def _flat(losses: Any) -> Iterator[Any]:
    if isinstance(losses, Mapping):
        losses = list(cast("Mapping[Any, Any]", losses).values())
    if isinstance(losses, list | tuple):
        for loss in cast("list[Any]", losses):
            yield from _flat(loss)
    else:
        yield losses
