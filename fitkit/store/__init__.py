"""How the state of a run lies on a disk: the format, its digests, a folder of checkpoints."""

from fitkit.store.store import Content, Saved, Store, find, load

__all__ = ["Content", "Saved", "Store", "find", "load"]
