"""What callbacks of Keras do in their batch hooks."""

from typing import Any

from fitkit.interop import keras

__all__ = ["listens", "watches"]

_MOMENTS = ("batch_begin", "batch_end")
_KINDS = ("train_", "test_", "predict_", "")  # without one: of training, by its older name
_BATCH_HOOKS = [f"on_{kind}{moment}" for kind in _KINDS for moment in _MOMENTS]
# Their batch hooks print, save, or set `stop_training`: no step reads that.
_WATCHING = ("TerminateOnNaN", "ModelCheckpoint", "BackupAndRestore", "ProgbarLogger")


def listens(callback: Any, name: str) -> bool:
    """Return whether a callback does anything in a batch hook: by its class or by assignment."""
    base = keras().callbacks.Callback
    names = [name] if "train" not in name else [name, name.replace("train_", "")]
    return any(
        getattr(getattr(callback, each), "__func__", None) is not getattr(base, each)
        for each in names
    )


def watches(callback: Any) -> bool:
    """Return whether nothing that a step reads changes in the batch hooks of a callback."""
    known = [getattr(keras().callbacks, name, None) for name in _WATCHING]
    if type(callback) in known and not any(name in vars(callback) for name in _BATCH_HOOKS):
        return True
    return not any(listens(callback, name) for name in _BATCH_HOOKS)
