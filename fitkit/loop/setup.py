"""What a loop checks and resolves when it is made: model, device, loaders, run directory."""

import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from fitkit.data import check_loader
from fitkit.errors import ConfigError, DeviceError
from fitkit.interop import device_of, is_keras, require_torch_backend, trainable_parameters

__all__ = [
    "as_loaders",
    "as_sequence",
    "check_model",
    "check_trainable",
    "is_main_process",
    "new_run_dir",
    "resolve_device",
]


def check_model(model: object) -> None:
    """Check that `model` can be trained here.

    Raises:
        TypeError: If it is no module: a class, a function, None.
        ConfigError: If it is a Keras model of another backend, or not built.
    """
    require_torch_backend()
    if not isinstance(model, nn.Module):
        kind = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"model is {kind}, expected a keras.Model or a torch.nn.Module instance\n"
            "Pass the model itself, built, and not a class, a function or a state dict."
        )
    if is_keras(model, "Model") and not model.built and not cast(Any, model).variables:
        name = cast(Any, model).name
        raise ConfigError(
            f"the Keras model '{name}' is not built: its weights do not exist yet\n"
            f"Build it before: {name}.build(input_shape), with the batch axis, for example "
            "(None, 784); or start it with keras.Input(shape); or call it once on a batch."
        )


def check_trainable(model: nn.Module) -> None:
    """Check that there is anything to train.

    Raises:
        ConfigError: If the model has no parameter, or all are frozen.
    """
    if trainable_parameters(model):
        return
    frozen = [name for name, _ in model.named_parameters()]
    names = f": {', '.join(frozen[:3])}, ..." if frozen else ""
    raise ConfigError(
        f"nothing to train: {len(frozen)} parameters, 0 of them trainable{names}\n"
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
        if wanted.type != "meta":
            torch.empty(0, device=wanted)  # asks the driver; a name alone proves nothing
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count()
        raise DeviceError(
            f"device='{device}' is not available: {count} CUDA devices found\n"
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
    if isinstance(callbacks, list | tuple):
        return cast(Iterable[Any], callbacks)
    raise TypeError(
        f"callbacks={callbacks!r} is a {type(callbacks).__name__}, expected a list of callbacks\n"
        "Write callbacks=[...], callbacks=supervised(...), or leave it out."
    )


def is_main_process() -> bool:
    """Return whether this is the only process of the run, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def new_run_dir() -> Path:
    """Return a path below `runs/` that no other run has; nothing is created."""
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
