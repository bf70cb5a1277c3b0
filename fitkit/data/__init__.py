"""From loaders to batches on the device; no callbacks here."""

from fitkit.data.check import check_loader, check_rereadable
from fitkit.data.feed import Feed
from fitkit.data.gather import Gather
from fitkit.data.position import describe_loader, doubts, has_workers, own_state, start_workers
from fitkit.data.source import Loader, fetches_alone, length
from fitkit.data.streams import process_streams, restore_process, restore_streams, streams_of
from fitkit.data.structure import Structure
from fitkit.data.tensor_loader import TensorLoader
from fitkit.data.unpack import batch_size_of, default_unpack, describe, unpacked
from fitkit.data.weights import ClassWeights, SampleWeights

__all__ = [
    "ClassWeights",
    "Feed",
    "Gather",
    "Loader",
    "SampleWeights",
    "Structure",
    "TensorLoader",
    "batch_size_of",
    "check_loader",
    "check_rereadable",
    "default_unpack",
    "describe",
    "describe_loader",
    "doubts",
    "fetches_alone",
    "has_workers",
    "length",
    "own_state",
    "process_streams",
    "restore_process",
    "restore_streams",
    "start_workers",
    "streams_of",
    "unpacked",
]
