"""Watch a run: read state and logs, show or keep them, change nothing."""

from fitkit.watch.activation_stats import ActivationStats
from fitkit.watch.benchmark import Benchmark, BenchmarkResult
from fitkit.watch.csv_logger import CSVLogger
from fitkit.watch.device_stats import DeviceStats
from fitkit.watch.event_trace import EventTrace, TraceRow
from fitkit.watch.flops import LayerRow
from fitkit.watch.image_grid import ImageGrid
from fitkit.watch.jsonl_logger import JSONLLogger
from fitkit.watch.model_summary import ModelSummary
from fitkit.watch.predictions import Collected, Predictions
from fitkit.watch.print_log import PrintLog
from fitkit.watch.progress_bar import ProgressBar
from fitkit.watch.tensorboard import TensorBoard
from fitkit.watch.throughput import Throughput

__all__ = [
    "ActivationStats",
    "Benchmark",
    "BenchmarkResult",
    "CSVLogger",
    "Collected",
    "DeviceStats",
    "EventTrace",
    "ImageGrid",
    "JSONLLogger",
    "LayerRow",
    "ModelSummary",
    "Predictions",
    "PrintLog",
    "ProgressBar",
    "TensorBoard",
    "Throughput",
    "TraceRow",
]
