"""Checkpoints: the callback that writes them, and ways to look into them and get out of them."""

from fitkit.checkpoint.checkpoint import Checkpoint

__all__ = ["Checkpoint"]
