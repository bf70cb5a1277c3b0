"""Protections switched off: what a row is tried with to see that its trials would fail."""

import importlib
import json
import os
import pickle
import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from fitkit.checkpoint import __main__ as program
from fitkit.checkpoint import checkpoint, export, lock
from fitkit.interop import state_tensors
from fitkit.loop import monitor
from fitkit.store import Store, saved, store, tensor_file
from tests.faults.row import failing


@contextmanager
def replaced(*changes):
    """Let other things stand in for (owner, name), for a while."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def failing_without(make_trials, *changes):
    """How many trials fail while something else stands in for a protection."""
    with replaced(*changes):
        return failing(make_trials())


# -- readers that believe what they read ---------------------------------------------------------


def unpickled(real):
    """A reader that takes what it cannot read for a pickle."""

    def read(source):
        try:
            return real(source)
        except Exception:
            return pickle.loads(source if isinstance(source, bytes) else source.read_bytes())

    return read


UNPICKLING = (
    (saved, "read_tensors", unpickled(saved.read_tensors)),
    (saved, "parse", unpickled(saved.parse)),
)


def importing(value, tensors):
    """A decoder that calls what a file names."""
    if isinstance(value, dict) and "_instantiator" in value:
        module, name = value["_instantiator"].rsplit(".", 1)
        return getattr(importlib.import_module(module), name)(*value["args"])
    if isinstance(value, Mapping) and not any(key.startswith("$") for key in value):
        return {key: importing(item, tensors) for key, item in value.items()}
    return DECODE(value, tensors)


DECODE = saved.decode
IMPORTING = ((saved, "decode", importing),)


def opened(path):
    """A way to resume from whatever file it is."""
    return torch.load(path, weights_only=False)


def believed(path):
    """A reader of safetensors that does what the header says."""
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = torch.frombuffer(
            bytearray(body[begin:end]) or bytearray(8), dtype=torch.uint8
        )
    return found


BELIEVING = ((saved, "read_tensors", believed),)
UNBOUNDED = (
    (saved, "parse", json.loads),
    (tensor_file, "check_header", lambda descriptor, size: None),
)


def copied(model, tensors, path):
    """Weights copied as far as they fit, by broadcasting too."""
    with torch.no_grad():
        for name, tensor in state_tensors(model).items():
            tensor.copy_(tensors[name])


BROADCASTING = ((export, "copy_weights", copied),)


# -- disks ---------------------------------------------------------------------------------------


def everything_in(self):
    """Take every folder for a checkpoint, and its name for what it holds."""
    names = sorted(each.name for each in self.folder.iterdir() if each.is_dir())
    return {name: {"counters": {"num_updates": 0}} for name in names}


def by_time(self):
    """Take what was changed last for the newest."""
    folders = [path for path in self.folder.iterdir() if path.is_dir()]
    return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime)]


def deleted(self, names):
    """Delete at once, whatever comes."""
    for name in names:
        shutil.rmtree(self.folder / name)


def open_to_all(name, within):
    """A folder as the umask makes it."""
    os.mkdir(name, 0o777, dir_fd=within)


UNVERIFIED = ((Store, "metas", everything_in),)
BY_TIME = ((Store, "names", by_time),)
DELETING = ((Store, "delete", deleted),)
BARE = ((Store, "_write_error", lambda self, error, needed: error),)
OPEN_TO_ALL = ((store, "make_folder", open_to_all),)
FOLLOWING = ((lock, "_FLAGS", lock._FLAGS & ~os.O_NOFOLLOW),)
SHOWN_AS_IT_IS = ((program, "_shown", str),)
UNCHECKED = (
    (checkpoint, "positive_int", lambda name, value: value),
    (monitor, "mode_of", lambda owner, name, mode: "min"),
    (checkpoint, "_check_choice", lambda name, value, choices: None),
)


class NoLock:
    """Lets everybody in."""

    def __init__(self, folder):
        (folder / ".lock").write_text("x")

    def release(self):
        pass
