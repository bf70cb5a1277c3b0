"""Which way a logged value is better, where its name tells."""

import difflib
import re
from typing import Any, Literal

from fitkit.errors import ConfigError, brief

__all__ = ["Mode", "mode_of"]

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
    words = re.split(r"[^a-z0-9]+", name.lower())
    is_lower, is_higher = not _LOWER.isdisjoint(words), not _HIGHER.isdisjoint(words)
    if mode is None and is_lower != is_higher:
        return "min" if is_lower else "max"
    what = f"monitors '{name}' with mode={brief(mode)}, expected 'min' or 'max'"
    meant = ""
    if mode is None:
        what = f"monitors '{name}'; its name does not say which is better, 'min' or 'max'"
        meant = _meant(name.lower(), words)
    raise ConfigError(
        f'{owner} {what}\n{meant}Say mode="min" if lower is better, mode="max" if higher is.'
    )


def _meant(name: str, words: list[str]) -> str:
    """Return a question about a word that looks misspelled."""
    for word in words:
        if close := difflib.get_close_matches(word, sorted(_LOWER | _HIGHER), n=1, cutoff=0.75):
            return f"Did you mean '{name.replace(word, close[0])}'? If not:\n"
    return ""
