"""Helpers for tests of your own callbacks: tiny models and loaders, and what a run must keep to."""

from fitkit.testing.asserts import assert_event_order, assert_no_sync
from fitkit.testing.reads import Reads, counted_reads
from fitkit.testing.recording import RecordingCallback
from fitkit.testing.runs import assert_resume_exact, assert_same_as_loop
from fitkit.testing.tiny import tiny_batches, tiny_keras_model, tiny_loop, tiny_model

__all__ = [
    "Reads",
    "RecordingCallback",
    "assert_event_order",
    "assert_no_sync",
    "assert_resume_exact",
    "assert_same_as_loop",
    "counted_reads",
    "tiny_batches",
    "tiny_keras_model",
    "tiny_loop",
    "tiny_model",
]
