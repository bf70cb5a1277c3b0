"""Ways out of a checkpoint: weights into a model, a model into a `.keras` file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fitkit.errors import CheckpointWriteError, ConfigError
from fitkit.interop import is_keras
from fitkit.loop.resume import copy_weights
from fitkit.loop.snapshot import trained_tensors
from fitkit.store import find

__all__ = ["export_keras", "load_weights_into"]


def load_weights_into(model: nn.Module, checkpoint: str | Path, *, averaged: bool = True) -> None:
    """Copy the weights of a checkpoint into a model: parameters, statistics, seeds, buffers.

    Args:
        model: Built as in the saved run; a Keras model or a torch module.
        checkpoint: The folder of a checkpoint, of several, or of a run; the newest intact one.
        averaged: Whether to take the averages of a run with `EMA`, with which it was validated;
            False takes the weights that trained. Without `EMA` there are only these.

    Raises:
        CheckpointError: If there is none, or it is damaged.
        CheckpointMismatchError: If it is of another model; the weights are as they were then.

    Example:
        ```python
        import tempfile
        import torch
        from fitkit import Checkpoint, FitLoop, TensorLoader, supervised
        from fitkit.checkpoint import load_weights_into

        model = torch.nn.Linear(4, 1)
        stack = supervised(
            loss=torch.nn.MSELoss(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
        )
        run_dir = tempfile.mkdtemp()
        batches = TensorLoader(torch.ones(8, 4), torch.ones(8, 1))
        FitLoop(model, batches, callbacks=[*stack, Checkpoint()], run_dir=run_dir).fit(1)

        other = torch.nn.Linear(4, 1)
        load_weights_into(other, run_dir)
        assert torch.equal(other.weight, model.weight)
        ```
    """
    saved = find(Path(checkpoint))
    copy_weights(model, saved.model, saved.path)
    if averaged:
        _copy_averages(model, saved.state.get("callbacks", {}).get("EMA", {}))


def export_keras(path: str | Path, model: Any, checkpoint: str | Path | None = None) -> None:
    """Write a Keras model to a `.keras` file, which is complete when it gets its name.

    Args:
        path: Ends in `.keras`.
        model: A Keras model.
        checkpoint: Whose weights it gets before, see `load_weights_into`; default are its own.

    Raises:
        ConfigError: If it is no Keras model, or the path ends otherwise.
        CheckpointError: See `load_weights_into`.
        CheckpointWriteError: If the disk does not take the file.
    """
    target = Path(path)
    if not is_keras(model, "Model") or target.suffix != ".keras":
        raise ConfigError(
            f"export_keras({str(path)!r}) got a {type(model).__name__}, expected a keras.Model and "
            "a path that ends in .keras\n"
            "Save a torch module with torch.save(model.state_dict(), path)."
        )
    if checkpoint is not None:
        load_weights_into(model, checkpoint)
    temporary = target.with_name(f".{target.stem}.part.keras")
    try:
        model.save(temporary)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointWriteError(
            f"{target} could not be written: {error.strerror or error}\n"
            "Free space, or give a path that can be written to."
        ) from error


@torch.no_grad()
def _copy_averages(model: nn.Module, ema: Mapping[str, Any]) -> None:
    tensors = trained_tensors(model)
    averages: Mapping[str, Tensor] = ema.get("averages", {})
    for place, average in averages.items():
        tensors[int(place)].copy_(average)
