"""Which way a logged value is better, where its name tells; and whether it can come at all."""

import re
from typing import TYPE_CHECKING, Any, Literal

from fitkit.errors import ConfigError, brief
from fitkit.loop.callback import Callback, listens_to
from fitkit.loop.events import Event

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Mode", "check_can_come", "mode_of"]

Mode = Literal["min", "max"]

# Whole words, and only those that mean one thing: of scores, Brier's is better lower.
_LOWER = {
    *("loss", "error", "crossentropy", "divergence", "mae", "mse", "rmse", "mape", "msle"),
    "perplexity",
}
_HIGHER = {"accuracy", "acc", "auc", "auroc", "f1", "precision", "recall", "iou", "dice", "r2"}


def mode_of(owner: str, name: Any, mode: Any) -> Mode:
    """Return which way a value is better: as said, or as its name tells.

    Args:
        owner: The class that compares, for messages.
        name: The key in `state.logs`.
        mode: "min", "max", or None for what the name tells.

    Raises:
        ConfigError: If the mode is neither, the name does not tell, or there is none.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(
            f"{owner} got {brief(name)} to monitor, expected the name of a logged value\n"
            'Name it, for example "val_loss".'
        )
    if mode == "min" or mode == "max":
        return mode
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    is_lower, is_higher = bool(words & _LOWER), bool(words & _HIGHER)
    if mode is None and is_lower != is_higher:
        return "min" if is_lower else "max"
    what = f"monitors '{name}' with mode={brief(mode)}, expected 'min' or 'max'"
    if mode is None:
        what = f"monitors '{name}'; its name does not say which is better, 'min' or 'max'"
    raise ConfigError(
        f'{owner} {what}\nSay mode="min" if lower is better, mode="max" if higher is.'
    )


def check_can_come(owner: str, name: str, loop: "FitLoop") -> bool:
    """Check before the first batch that a value can be logged.

    Returns:
        Whether it comes by validation, and so perhaps not in every epoch.

    Raises:
        ConfigError: If it is one of validation, the loop does not validate, and all its callbacks
            are fitkit's; others may log what they like.
    """
    if not name.startswith("val_"):
        return False
    validates = any(listens_to(callback, Event.VALIDATE) for callback in loop.callbacks)
    if loop.val_loaders and validates:
        return True
    if any(map(_runs_code_of_others, loop.callbacks)):
        return False
    if not loop.val_loaders:
        raise ConfigError(
            f"{owner} waits for '{name}', but the loop has no val_loader\n"
            "Pass one: FitLoop(model, train_loader, val_loader), or monitor "
            f"'{name.removeprefix('val_')}'."
        )
    raise ConfigError(
        f"{owner} waits for '{name}', but no callback validates\n"
        "Attach Validate(); supervised() and compiled() have it."
    )


def _runs_code_of_others(callback: Callback) -> bool:
    return callback.runs_other_code or not type(callback).__module__.startswith("fitkit.")
