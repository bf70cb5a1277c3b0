"""Watch a run: read state and logs, show or keep them, change nothing."""

from fitkit.watch.activation_stats import ActivationStats
from fitkit.watch.benchmark import Benchmark, BenchmarkResult
from fitkit.watch.csv_logger import CSVLogger
from fitkit.watch.curves import Curves
from fitkit.watch.device_stats import DeviceStats
from fitkit.watch.event_trace import EventTrace, TraceRow
from fitkit.watch.flops import LayerRow
from fitkit.watch.graph import Graph
from fitkit.watch.histograms import Histograms
from fitkit.watch.hparams import HParams
from fitkit.watch.image_grid import ImageGrid
from fitkit.watch.images import Images
from fitkit.watch.jsonl_logger import JSONLLogger
from fitkit.watch.model_summary import ModelSummary
from fitkit.watch.predictions import Collected, Predictions
from fitkit.watch.print_log import PrintLog
from fitkit.watch.profile import Profile
from fitkit.watch.progress_bar import ProgressBar
from fitkit.watch.run_text import RunText
from fitkit.watch.step_times import StepRow, StepTable
from fitkit.watch.tensorboard import TensorBoard
from fitkit.watch.throughput import Throughput

__all__ = [
    "ActivationStats",
    "Benchmark",
    "BenchmarkResult",
    "CSVLogger",
    "Collected",
    "Curves",
    "DeviceStats",
    "EventTrace",
    "Graph",
    "HParams",
    "Histograms",
    "ImageGrid",
    "Images",
    "JSONLLogger",
    "LayerRow",
    "ModelSummary",
    "Predictions",
    "PrintLog",
    "Profile",
    "ProgressBar",
    "StepRow",
    "StepTable",
    "RunText",
    "TensorBoard",
    "Throughput",
    "TraceRow",
]
