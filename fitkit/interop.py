"""The one typed boundary to Keras: everything fitkit asks of Keras objects is asked here.

Keras ships no type stubs and takes seconds to import, so it is never imported on behalf of a user
who has no Keras object: an object can only be Keras's if the module is already loaded.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from fitkit.errors import ConfigError

__all__ = [
    "KerasMetric",
    "KerasOptimizer",
    "KerasVariable",
    "children_of",
    "device_of",
    "global_seed",
    "innermost",
    "ignores_training",
    "is_keras",
    "keras",
    "keras_layers_of",
    "modules_of",
    "optimizer_variables",
    "overrides",
    "require_torch_backend",
    "set_global_seed",
    "state_tensors",
    "trainable_parameters",
    "weights_of",
]

# Where Keras keeps the seed that nobody has given; made at its first use, with one of Python's.
_GLOBAL_STATE, _GLOBAL_SEED = "keras.src.backend.common.global_state", "global_seed_generator"


class KerasVariable(Protocol):
    """A `keras.Variable`: a named tensor that layers and optimizers share."""

    path: str
    value: Tensor


class KerasOptimizer(Protocol):
    """A `keras.optimizers.Optimizer`."""

    built: bool
    name: str
    learning_rate: Any
    loss_scale_factor: float | None
    scale_loss: Callable[[Tensor], Tensor]
    variables: list[KerasVariable]
    apply: Callable[[Sequence[Tensor | None], Sequence[KerasVariable]], None]


class KerasMetric(Protocol):
    """A `keras.metrics.Metric`."""

    name: str
    variables: list[KerasVariable]
    update_state: Callable[..., Any]
    result: Callable[[], Any]
    reset_state: Callable[[], None]


def keras() -> Any:
    """Return the Keras module, importing it if need be.

    Raises:
        ConfigError: If Keras runs on another backend than torch, or on one that is not installed.
    """
    try:
        import keras  # pyright: ignore[reportMissingTypeStubs]  # there are none
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Keras cannot be imported: there is no module '{error.name}', perhaps of its backend\n"
            'Set os.environ["KERAS_BACKEND"] = "torch" before the first import of keras.'
        ) from error
    require_torch_backend()
    return cast(Any, keras)


def require_torch_backend() -> None:
    """Check the backend of Keras, if Keras is loaded.

    Raises:
        ConfigError: If it is another one than torch.
    """
    module = sys.modules.get("keras")
    if module is None or not hasattr(module, "config"):
        return
    backend: str = module.config.backend()
    if backend != "torch":
        raise ConfigError(
            f"Keras runs on the backend '{backend}', fitkit needs 'torch'\n"
            'Set os.environ["KERAS_BACKEND"] = "torch" before the first import of keras.'
        )


def is_keras(value: object, kind: str) -> bool:
    """Return whether `value` is an instance of `keras.<kind>`, for example "optimizers.Optimizer".

    Imports nothing. Raises ConfigError if it is one and the backend is not torch.
    """
    module: Any = sys.modules.get("keras")
    for part in kind.split("."):
        module = getattr(module, part, None)
    if module is None or not isinstance(value, module):
        return False
    require_torch_backend()
    return True


def trainable_parameters(model: Any) -> list[tuple[str, Tensor]]:
    """Return name and tensor of everything `model` trains: Keras variables or parameters."""
    if is_keras(model, "Model"):
        return [(variable.path, variable.value) for variable in model.trainable_variables]
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return all modules of a model, and all layers of a Keras model.

    A Keras model does not register its layers as torch submodules, so `modules()` misses them.
    """
    found = dict.fromkeys(model.modules())
    for module in list(found):  # a Keras model may be a part of a torch module
        if is_keras(module, "Layer"):
            found.update(dict.fromkeys(cast(Any, module)._flatten_layers()))
    return list(found)


def children_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return name and module of the parts of a module, layers of a Keras layer among them."""
    found: dict[int, tuple[str, nn.Module]] = {}
    if is_keras(module, "Layer"):
        layer: Any = module
        parts = layer.layers if is_keras(layer, "Model") else layer._flatten_layers(False, False)
        found = {id(part): (part.name, part) for part in parts}
    for name, child in module.named_children():
        # What Keras keeps for itself begins with an underscore.
        if not (is_keras(module, "Layer") and name.startswith("_")):
            found.setdefault(id(child), (name, child))
    return list(found.values())


def weights_of(module: nn.Module) -> list[tuple[Tensor, bool]]:
    """Return the weights and running statistics of a module, and whether each is trained.

    The seeds of Keras's random layers are not among them.
    """
    layers = keras_layers_of(module)
    held = [(v.value, bool(v.trainable)) for layer in layers for v in layer.weights]
    of_keras = {id(v.value) for layer in layers for v in layer.variables}
    own = [(p, p.requires_grad) for p in module.parameters()]
    own += [(buffer, False) for buffer in module.buffers()]
    held += [(tensor, trained) for tensor, trained in own if id(tensor) not in of_keras]
    return list({id(tensor): (tensor, trained) for tensor, trained in held}.values())


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def optimizer_variables(optimizer: KerasOptimizer) -> list[KerasVariable]:
    """Return the variables a Keras optimizer was built for; none if it was not built yet."""
    return innermost(optimizer)._trainable_variables if optimizer.built else []


def innermost(optimizer: Any) -> Any:
    """Return the optimizer that a Keras LossScaleOptimizer wraps, any other one as it is."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def overrides(model: Any, method: str) -> bool:
    """Return whether a Keras model, or its class, has a `method` other than `keras.Model`'s."""
    own: Any = getattr(cast(Any, type(model)), method)
    return method in vars(model) or own is not getattr(keras().Model, method)


def keras_layers_of(model: nn.Module) -> list[Any]:
    """Return the outermost Keras layers: the model itself, or those a torch module holds."""
    if is_keras(model, "Layer"):
        return [model]
    return [layer for child in model.children() for layer in keras_layers_of(child)]


def ignores_training(model: Any) -> bool:
    """Return whether `training=` cannot matter to a Keras model, so that it need not be passed.

    True only for Keras's own layers whose `call` does not take it. A layer of anybody else may
    ask for it in other ways.
    """
    return all(_ignores_training(layer) for layer in model._flatten_layers())


def _ignores_training(layer: Any) -> bool:
    kind = cast(type[Any], type(layer))
    activation = getattr(layer, "activation", None)  # any callable, so it could be a layer, too
    if not _is_own(kind) or (activation is not None and not _is_own(activation)):
        return False
    if kind.__name__ in ("Functional", "Sequential"):
        return True  # they hand it on to layers that are asked themselves
    if kind.__name__ == "Dense":
        return layer.quantization_mode is None  # it takes the argument for its float8 mode alone
    return not _takes_training(kind)


def _is_own(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").startswith("keras.src.")


@cache
def _takes_training(kind: type[Any]) -> bool:
    parameters = inspect.signature(kind.call).parameters.values()
    return any(p.name == "training" or p.kind is p.VAR_KEYWORD for p in parameters)


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every tensor a model keeps, by name: weights, statistics, seeds, buffers.

    Metrics of a Keras model are not among them.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()

    def add(name: str, tensor: Tensor) -> None:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[_unused(name, found)] = tensor

    for layer in keras_layers_of(model):
        for variable in layer.variables:
            add(variable.path, variable.value)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        add(name, tensor)
    for module in modules_of(model):  # torch modules within Keras layers are in nobody's list
        for name, tensor in module.named_buffers(recurse=False):
            add(f"{type(module).__name__}.{name}", tensor)
    return found


def global_seed() -> Tensor | None:
    """Return the state of the seed that `keras.random` falls back on, None if nobody has used it.

    It is no part of any model, and Keras has no public way to it.
    """
    module: Any = sys.modules.get(_GLOBAL_STATE)
    generator = module and module.get_global_attribute(_GLOBAL_SEED)
    return None if generator is None else generator.state.value.detach()


def set_global_seed(value: Tensor | None) -> None:
    """Put that state back; None removes it, so that the next use makes one as the first does."""
    if value is not None:
        found = global_seed()
        if found is None:
            keras().src.random.seed_generator.global_seed_generator()
            found = cast(Tensor, global_seed())
        found.copy_(value)
    elif _GLOBAL_STATE in sys.modules:
        sys.modules[_GLOBAL_STATE].set_global_attribute(_GLOBAL_SEED, None)


def _unused(name: str, names: dict[str, Tensor]) -> str:
    number, free = 1, name
    while free in names:
        number += 1
        free = f"{name}#{number}"
    return free
