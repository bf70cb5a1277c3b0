"""Checkpoints: the callback that writes them, and ways to look into them and get out of them."""

from fitkit.checkpoint.checkpoint import Checkpoint
from fitkit.checkpoint.export import export_keras, load_weights_into

__all__ = ["Checkpoint", "export_keras", "load_weights_into"]
