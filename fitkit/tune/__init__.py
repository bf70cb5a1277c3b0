"""Callbacks that change how training acts: weights, gradients, or the course of a run."""

from fitkit.tune.keras_callbacks import KerasCallbacks

__all__ = ["KerasCallbacks"]
