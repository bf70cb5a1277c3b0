"""What TensorBoard's plug-ins read: the fields of a `Summary.Value` for each kind of content."""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["histogram_value", "image_value", "pr_curve_value", "text_value"]


def image_value(png: bytes, size: tuple[int, int, int], description: str = "") -> dict[str, Any]:
    """Return a picture.

    Args:
        png: The file.
        size: Height, width, number of color channels.
        description: What TensorBoard shows beside its name, Markdown.
    """
    height, width, channels = size
    image = _of("compat.proto.summary_pb2").Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=png
    )
    metadata = _of("plugins.image.metadata").create_summary_metadata("", description)
    return {"image": image, "metadata": metadata}


def histogram_value(low: float, high: float, counts: NDArray[np.float32]) -> dict[str, Any]:
    """Return a histogram of bars of one width.

    Args:
        low: Where the first one begins.
        high: Where the last one ends.
        counts: Shape (bars,).
    """
    edges = np.linspace(low, high, len(counts) + 1)
    metadata = _of("plugins.histogram.metadata").create_summary_metadata("", "")
    table = np.empty((len(counts), 3))
    table[:, 0], table[:, 1], table[:, 2] = edges[:-1], edges[1:], counts
    return {"tensor": _tensor(table), "metadata": metadata}


def pr_curve_value(
    true_positives: NDArray[np.float64],
    false_positives: NDArray[np.float64],
    num_positives: float,
    num_negatives: float,
) -> dict[str, Any]:
    """Return a precision-recall curve.

    Args:
        true_positives: How many positives lie at or above each threshold, from 0 to 1; (n,).
        false_positives: The same for negatives.
        num_positives: How many there are.
        num_negatives: The same for negatives.
    """
    metadata = _of("plugins.pr_curve.metadata")
    predicted = np.maximum(true_positives + false_positives, 1e-7)
    table = np.stack(
        [
            true_positives,
            false_positives,
            num_negatives - false_positives,
            num_positives - true_positives,
            true_positives / predicted,
            true_positives / max(num_positives, 1e-7),
        ]
    )
    made = metadata.create_summary_metadata("", "", len(true_positives))
    return {"tensor": _tensor(table.astype(np.float32)), "metadata": made}


def text_value(markdown: str) -> dict[str, Any]:
    """Return text, Markdown."""
    metadata = _of("plugins.text.metadata").create_summary_metadata("", "")
    return {"tensor": _tensor(markdown.encode()), "metadata": metadata}


def _of(name: str) -> Any:
    return import_module(f"tensorboard.{name}")


def _tensor(value: Any) -> Any:
    return _of("util.tensor_util").make_tensor_proto(value)
