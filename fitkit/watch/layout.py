"""Which curves share a chart in the tab "custom scalars"."""

import re
from collections.abc import Callable, Collection, Iterable
from importlib import import_module
from typing import Any

from fitkit.watch.run_files import Charts

__all__ = ["layout_value", "pairs_of"]


def pairs_of(
    names: Iterable[str], val_prefixes: Collection[str], tag: Callable[[str], str]
) -> Charts:
    """Return a chart per metric for training and validation together, and one per kind of speed.

    Args:
        names: Keys of `state.logs`.
        val_prefixes: What the names of validation results begin with.
        tag: What TensorBoard calls a curve.
    """
    of_val = {
        name.removeprefix(prefix)
        for name in names
        for prefix in val_prefixes
        if name.startswith(prefix)
    }
    charts: Charts = {}
    for name in names:
        if name in of_val and "/" not in name:
            title = "Training and validation"
            charts.setdefault(title, {})[name] = [f"^{re.escape(tag(f'epoch/{name}'))}$"]
    update = {"loss, every update": [r"^step/.*loss$"], "learning rate": [r"^step/lr.*$"]}
    return charts | {"Every update": update}


def layout_value(charts: Charts) -> dict[str, Any]:
    """Return tag and fields of a `Summary.Value` that lays out the charts."""
    layout: Any = import_module("tensorboard.plugins.custom_scalar.layout_pb2")
    metadata: Any = import_module("tensorboard.plugins.custom_scalar.metadata")
    tensors: Any = import_module("tensorboard.util.tensor_util")
    categories = [
        layout.Category(
            title=category,
            chart=[
                layout.Chart(title=title, multiline=layout.MultilineChartContent(tag=tags))
                for title, tags in titled.items()
            ],
        )
        for category, titled in charts.items()
    ]
    content = layout.Layout(category=categories).SerializeToString()
    return {
        "tag": metadata.CONFIG_SUMMARY_TAG,
        "metadata": metadata.create_summary_metadata(),
        "tensor": tensors.make_tensor_proto(content),
    }
