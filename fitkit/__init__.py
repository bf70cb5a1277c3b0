"""fitkit: a training loop for Keras 3 on PyTorch and for plain torch modules, made of callbacks."""

from fitkit.compiled import compiled
from fitkit.data import ClassWeights, SampleWeights, TensorLoader
from fitkit.errors import CallbackOrderError, ConfigError, DataError, DeviceError
from fitkit.loop import Callback, Event, FitLoop, History, Phase, Stack, State, Turn
from fitkit.passes import CompiledMetrics, CompiledRun, Metrics, TrainMode, Validate
from fitkit.record.record import Record
from fitkit.stacks import gan, supervised
from fitkit.step import (
    AddedLosses,
    Backward,
    CompiledLoss,
    Forward,
    KerasApply,
    KerasLoss,
    PredictStep,
    TestStep,
    TorchLoss,
    TorchStep,
    TrainStep,
    ZeroGrad,
)
from fitkit.tune import KerasCallbacks
from fitkit.watch import (
    Benchmark,
    BenchmarkResult,
    EventTrace,
    ImageGrid,
    PrintLog,
    ProgressBar,
    TensorBoard,
    Throughput,
    TraceRow,
)

__all__ = [
    "AddedLosses",
    "Backward",
    "Benchmark",
    "BenchmarkResult",
    "Callback",
    "CallbackOrderError",
    "ClassWeights",
    "CompiledLoss",
    "CompiledMetrics",
    "CompiledRun",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Event",
    "EventTrace",
    "FitLoop",
    "Forward",
    "History",
    "ImageGrid",
    "KerasApply",
    "KerasCallbacks",
    "KerasLoss",
    "Metrics",
    "Phase",
    "PredictStep",
    "PrintLog",
    "ProgressBar",
    "Record",
    "SampleWeights",
    "Stack",
    "State",
    "TensorBoard",
    "TensorLoader",
    "TestStep",
    "Throughput",
    "TorchLoss",
    "TorchStep",
    "TraceRow",
    "TrainMode",
    "TrainStep",
    "Turn",
    "Validate",
    "ZeroGrad",
    "compiled",
    "gan",
    "supervised",
]
