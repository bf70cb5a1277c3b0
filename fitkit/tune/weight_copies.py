"""All tensors that make up a trained model, and copies of them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from fitkit.interop import keras_layers_of

__all__ = ["copy_of", "trained_tensors"]


def trained_tensors(model: nn.Module) -> list[Tensor]:
    """Return parameters, buffers and running statistics, in an order that other processes share.

    The states of Keras's random generators and of its metrics are none of these, although Keras
    keeps them as parameters as well.
    """
    layers: list[Any] = keras_layers_of(model)
    of_keras = {id(v.value) for layer in layers for v in layer.variables}
    own = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in of_keras]
    weights = [variable.value for layer in layers for variable in layer.weights]
    return list({id(tensor): tensor for tensor in (*own, *weights)}.values())


def copy_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return detached copies, on the same devices. Syncs: never."""
    return [tensor.detach().clone() for tensor in tensors]
