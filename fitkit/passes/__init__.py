"""Run or frame a pass over a loader: reads batches and outputs, writes epoch metrics."""

from fitkit.passes.metrics import Metrics
from fitkit.passes.train_mode import TrainMode
from fitkit.passes.validate import Validate

__all__ = ["Metrics", "TrainMode", "Validate"]
