"""What a loop checks and resolves when it is made: model, device, loaders, run directory."""

import os
import secrets
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fitkit.data import check_loader
from fitkit.errors import ConfigError, DeviceError, brief
from fitkit.interop import device_of, is_keras, keras, trainable_parameters
from fitkit.loop.callback import Stack

__all__ = [
    "as_loaders",
    "as_sequence",
    "check_flags",
    "check_model",
    "check_trainable",
    "check_unpack",
    "is_main_process",
    "new_run_dir",
    "resolve_device",
]


def check_model(model: object) -> None:
    """Check that `model` can be trained here.

    Raises:
        TypeError: If it is no module: a class, a function, None.
        ConfigError: If it is a Keras model of another backend, or something is not built.
    """
    of_keras = is_keras(model, "Layer")  # raises if Keras has another backend
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"model is {kind}, expected a keras.Model or a torch.nn.Module instance\n"
            "Pass the model itself, built, and not a class, a function or a state dict."
        )
    if of_keras and (unbuilt := _unbuilt_layers(model)):
        raise ConfigError(
            f"the Keras model '{cast(Any, model).name}' is not built: weights are still missing\n"
            f"Layers without weights: {', '.join(map(brief, unbuilt[:3]))}.\n"
            "Call it once on a batch; or model.build(input_shape), with the batch axis, for "
            "example (None, 784); or start it with keras.Input(shape)."
        )
    inner = [m for m in model.modules() if not of_keras and is_keras(m, "Layer")]
    if unbuilt := [name for layer in inner for name in _unbuilt_layers(layer)]:
        raise ConfigError(
            f"{len(unbuilt)} Keras layers of {type(model).__name__} are not built: their weights "
            "are missing\n"
            f"The first ones: {', '.join(map(brief, unbuilt[:3]))}.\n"
            "Call the model once on a batch before the optimizer and the loop are made."
        )
    lazy = [name for name, parameter in model.named_parameters() if is_lazy(parameter)]
    if lazy:
        raise ConfigError(
            f"the model has {len(lazy)} lazy parameters that do not exist yet\n"
            f"The first is '{lazy[0]}'.\n"
            "Call the model once on a batch before the optimizer and the loop are made."
        )


def _unbuilt_layers(model: Any) -> list[str]:
    """Return the names of the layers in an unbuilt Keras layer that have yet to make weights."""
    if model.built:
        return []
    makes_nothing = (keras().layers.Layer.build, keras().Model.build)
    layers: list[Any] = [layer for layer in model._flatten_layers() if not layer.built]
    return [layer.name for layer in layers if layer.__class__.build not in makes_nothing]


def check_unpack(unpack: object) -> None:
    """Check that `unpack` is None or can be called.

    Raises:
        TypeError: If it is something else.
    """
    if unpack is not None and not callable(unpack):
        raise TypeError(
            f"unpack={brief(unpack)} is a {type(unpack).__name__}, expected a function of a batch\n"
            "Give one that returns three parts: unpack=lambda batch: (inputs, targets, None)."
        )


def check_flags() -> None:
    """Warn of a mode of torch that somebody may have left on by mistake."""
    if torch.is_anomaly_enabled():
        warnings.warn(
            "anomaly mode is on: every step is checked for NaN, which takes long\n"
            "Switch it off with torch.autograd.set_detect_anomaly(False) once the error is found.",
            stacklevel=4,  # who calls fit
        )


def check_trainable(model: nn.Module) -> None:
    """Check that there is anything to train.

    Raises:
        ConfigError: If the model has no parameter, or all are frozen.
    """
    if trainable_parameters(model):
        return
    frozen = [name for name, _ in model.named_parameters()]
    raise ConfigError(
        f"nothing to train: the model has {len(frozen)} parameters, 0 of them trainable\n"
        f"The first ones: {', '.join(frozen[:3]) or 'none'}.\n"
        "Unfreeze some (layer.trainable = True, parameter.requires_grad_(True)), or use evaluate."
    )


def resolve_device(model: nn.Module, device: str | torch.device) -> torch.device:
    """Return the device of the loop, and move a torch module there if one was asked for.

    Raises:
        DeviceError: If the device does not exist here.
        ConfigError: If a Keras model was built on another device.
    """
    home = device_of(model)
    if device == "auto":
        return home
    wanted = _available(device)
    if wanted == home or wanted == torch.device(home.type):
        return home
    if is_keras(model, "Model"):
        raise ConfigError(
            f"device='{wanted}', but the Keras model was built on '{home}' and cannot be moved\n"
            f'Set os.environ["KERAS_TORCH_DEVICE"] = "{wanted}" before importing keras.'
        )
    model.to(wanted)
    return device_of(model)


def _available(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)  # asks the driver; a name alone proves nothing
        if wanted.type == "meta":
            raise RuntimeError("a meta device holds no data")
    except (RuntimeError, AssertionError, TypeError) as error:
        count = torch.cuda.device_count()
        raise DeviceError(
            f"device={brief(device)} is not available: {count} CUDA devices found\n"
            'Use "auto" (where the model is), "cpu", or a device of this machine.'
        ) from error
    return wanted


def as_loaders(train_loader: Any, val_loader: Any) -> dict[str, Any]:
    """Check the loaders; return those for validation by name, "" for a single one."""
    if train_loader is not None:
        check_loader(train_loader, "train_loader")
    if val_loader is None:
        return {}
    if not isinstance(val_loader, Mapping):
        check_loader(val_loader, "val_loader")
        return {"": val_loader}
    loaders = dict(cast(Mapping[str, Any], val_loader))
    for name, loader in loaders.items():
        check_loader(loader, f"val_loader['{name}']")
    return loaders


def as_sequence(callbacks: object) -> Iterable[Any]:
    """Return `callbacks` if it is a list, a tuple or a stack.

    Raises:
        TypeError: If it is something else: None, a single callback, a generator, a string.
    """
    if isinstance(callbacks, Stack):
        return [callbacks]
    if isinstance(callbacks, list | tuple):
        return cast(Iterable[Any], callbacks)
    raise TypeError(
        f"callbacks={brief(callbacks)} is a {type(callbacks).__name__}, expected a list of them\n"
        "Write callbacks=[...], callbacks=supervised(...), or leave it out."
    )


def is_main_process() -> bool:
    """Return whether this is the only process of the run, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def new_run_dir() -> Path:
    """Return a path below `runs/` that no other run has; nothing is created."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
