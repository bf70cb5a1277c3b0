"""The actions of a step, one per file: read the batch, write outputs, loss, gradients, weights."""

from fitkit.step.added_losses import AddedLosses
from fitkit.step.backward import Backward
from fitkit.step.compiled_loss import CompiledLoss
from fitkit.step.forward import Forward
from fitkit.step.keras_apply import KerasApply
from fitkit.step.keras_loss import KerasLoss
from fitkit.step.predict_step import PredictStep
from fitkit.step.test_step import TestStep
from fitkit.step.torch_loss import TorchLoss
from fitkit.step.torch_step import TorchStep
from fitkit.step.train_step import TrainStep
from fitkit.step.zero_grad import ZeroGrad

__all__ = [
    "AddedLosses",
    "Backward",
    "CompiledLoss",
    "Forward",
    "KerasApply",
    "KerasLoss",
    "PredictStep",
    "TestStep",
    "TorchLoss",
    "TorchStep",
    "TrainStep",
    "ZeroGrad",
]
