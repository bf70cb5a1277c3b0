"""fitkit: a training loop for Keras 3 on PyTorch and for plain torch modules, made of callbacks."""

from fitkit.data import TensorLoader
from fitkit.errors import CallbackOrderError, ConfigError, DataError, DeviceError
from fitkit.loop import Callback, Event, FitLoop, History, Phase, Stack, State, Turn
from fitkit.passes import Metrics, TrainMode, Validate
from fitkit.stacks import supervised
from fitkit.step import (
    AddedLosses,
    Backward,
    Forward,
    KerasApply,
    KerasLoss,
    TorchLoss,
    TorchStep,
    ZeroGrad,
)

__all__ = [
    "AddedLosses",
    "Backward",
    "Callback",
    "CallbackOrderError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Event",
    "FitLoop",
    "Forward",
    "History",
    "KerasApply",
    "KerasLoss",
    "Metrics",
    "Phase",
    "Stack",
    "State",
    "TensorLoader",
    "TorchLoss",
    "TorchStep",
    "TrainMode",
    "Turn",
    "Validate",
    "ZeroGrad",
    "supervised",
]
