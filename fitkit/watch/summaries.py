"""What TensorBoard's plug-ins read: the fields of a `Summary.Value` for each kind of content."""

from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["histogram_values", "image_value", "pr_curve_value", "text_value"]

_Fields = dict[str, Any]


def image_value(png: bytes, size: tuple[int, int, int], description: str = "") -> _Fields:
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


def histogram_values(ranges: NDArray[np.float32], counts: NDArray[np.float32]) -> list[_Fields]:
    """Return histograms of bars of one width, many at once.

    Args:
        ranges: Where the first bar of each begins, and the last one ends; shape (histograms, 2).
        counts: Shape (histograms, bars).
    """
    if not len(ranges):
        return []
    low, high = ranges.T.astype(np.float64)
    edges: Any = cast(Any, np).linspace(low, high, counts.shape[1] + 1, axis=1)
    tables: Any = np.stack([edges[:, :-1], edges[:, 1:], counts], axis=2)
    first = _tensor(tables[0])  # but for the numbers, all are like it
    options = {"dtype": first.dtype, "tensor_shape": first.tensor_shape}
    metadata = _of("plugins.histogram.metadata").create_summary_metadata("", "")
    tensors = [type(first)(tensor_content=each.tobytes(), **options) for each in tables]
    return [{"tensor": tensor, "metadata": metadata} for tensor in tensors]


def pr_curve_value(
    true_positives: NDArray[np.float64],
    false_positives: NDArray[np.float64],
    num_positives: float,
    num_negatives: float,
) -> _Fields:
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


def text_value(markdown: str) -> _Fields:
    """Return text, Markdown."""
    metadata = _of("plugins.text.metadata").create_summary_metadata("", "")
    return {"tensor": _tensor(markdown.encode()), "metadata": metadata}


def _of(name: str) -> Any:
    return import_module(f"tensorboard.{name}")


def _tensor(value: Any) -> Any:
    return _of("util.tensor_util").make_tensor_proto(value)
