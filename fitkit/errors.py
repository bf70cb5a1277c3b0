"""The errors fitkit raises.

The first line of a message says what was given and what was expected, the last what to do.
"""

import reprlib


def brief(value: object) -> str:
    """Return `value` as a message shows it: its repr on one line of at most 60 characters."""
    text = " ".join(reprlib.repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


class ConfigError(ValueError):
    """An argument or a combination of callbacks that cannot work."""


class CallbackOrderError(ConfigError):
    """A callback that is missing, given twice, or in the wrong place of the list."""


class DataError(RuntimeError):
    """A loader or a batch that cannot be used."""


class DeviceError(RuntimeError):
    """A device that does not exist, or tensors that lie on different devices."""


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that is infinite or no number."""


class UnsetError(AttributeError):
    """A state field that was read before the event that writes it."""


class UnknownLogError(KeyError):
    """A name under which nothing was logged."""

    def __str__(self) -> str:
        """Return the message; KeyError would show it quoted, on one line."""
        return str(self.args[0])


class CheckpointError(RuntimeError):
    """A checkpoint that is not there or cannot be used."""


class CheckpointCorruptError(CheckpointError):
    """A checkpoint whose files are not what was written."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint of another program: another model, optimizer, data, callback or version."""


class CheckpointUnsafeError(CheckpointError):
    """A checkpoint that holds what none of fitkit's does: links, pickles, archives."""


class CheckpointWriteError(CheckpointError):
    """A checkpoint that could not be written."""
