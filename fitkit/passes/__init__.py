"""Run or frame a pass over a loader: reads batches and outputs, writes epoch metrics."""

from fitkit.passes.compiled_metrics import CompiledMetrics
from fitkit.passes.compiled_run import CompiledRun
from fitkit.passes.metrics import Metrics
from fitkit.passes.train_mode import TrainMode
from fitkit.passes.validate import Validate

__all__ = ["CompiledMetrics", "CompiledRun", "Metrics", "TrainMode", "Validate"]
