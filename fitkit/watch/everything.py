"""All that fitkit can show in TensorBoard, ready-made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from fitkit.loop.callback import Stack
from fitkit.watch.axis import Kind
from fitkit.watch.curves import Curves
from fitkit.watch.device_stats import DeviceStats
from fitkit.watch.graph import Graph
from fitkit.watch.histograms import Histograms
from fitkit.watch.hparams import HParams
from fitkit.watch.images import Images
from fitkit.watch.run_text import RunText
from fitkit.watch.tensorboard import TensorBoard
from fitkit.watch.throughput import Throughput

__all__ = ["everything"]


def everything(
    log_dir: str | Path | None = None,
    *,
    x: Kind = "step",
    hparams: Mapping[str, float | str | bool] | None = None,
    classes: Sequence[str] | None = None,
    image_shape: tuple[int, ...] | Literal["series"] | None = None,
) -> Stack:
    """Return all callbacks that write for TensorBoard, at their defaults, in run order.

    Args:
        log_dir: Where to; default is the loop's run_dir.
        x: The horizontal axis, as in `TensorBoard`.
        hparams: Settings of the run, as in `HParams`.
        classes: Names of the classes, as in `Curves` and `Images`.
        image_shape: How a flat row of inputs is an image, or "series", as `shape` of `Images`.
    """
    images = Images(shape=image_shape, classes=classes)
    images.warns = image_shape is not None  # else inputs may as well be no images
    return Stack(
        (
            Throughput(),
            DeviceStats(),
            TensorBoard(log_dir, x=x),
            Histograms(),
            images,
            Curves(classes),
            HParams(hparams),
            Graph(),
            RunText(hparams),
        )
    )
