"""How the state of a run lies on a disk: the format, its digests, a folder of checkpoints."""

from fitkit.store.find import find
from fitkit.store.saved import Content, Saved, load
from fitkit.store.store import Store

__all__ = ["Content", "Saved", "Store", "find", "load"]
