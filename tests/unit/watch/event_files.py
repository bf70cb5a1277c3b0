"""Reads event files back with TensorBoard's own reader."""

from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def opened(folder):
    return EventAccumulator(
        str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0}
    ).Reload()


def scalars(folder):
    """{tag: [(x, value)]} of all event files in a folder."""
    events = opened(folder)
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def tensors(folder):
    """{tag: [(x, array)]}, as the server of TensorBoard reads them."""
    events = plugin_event_accumulator.EventAccumulator(
        str(folder), size_guidance={"tensors": 0}
    ).Reload()
    others = {"scalars", "images", "hparams"}
    return {
        tag: [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name not in others
    }


def texts(folder):
    """{tag: text} of the latest of each."""
    return {
        tag: points[-1][1].item().decode()
        for tag, points in tensors(folder).items()
        if tag.startswith("run/")
    }


def images(folder):
    """{tag: [(x, PNG)]}"""
    events = opened(folder)
    return {
        tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)]
        for tag in events.Tags()["images"]
    }


def event_files(folder):
    return sorted(p.name for p in folder.glob("events.out.tfevents.*"))
