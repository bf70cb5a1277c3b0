"""The loss of the current batch, for those who show it."""

from typing import Any, cast

import torch

from fitkit.loop.state import State

__all__ = ["read_losses"]


def read_losses(state: State) -> dict[str, float]:
    """Return the loss of the current batch by name: "loss", or one per turn. Syncs: once."""
    values = state.step_values
    if "loss" in values:
        values = {"loss": values["loss"]}
    else:
        values = {name: value for name, value in values.items() if name.endswith("_loss")}
    if not values and hasattr(state, "loss"):
        values = {"loss": state.loss}
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    numbers: list[float] = cast(Any, stacked).tolist()  # sync: each time somebody shows the loss
    return dict(zip(values, numbers, strict=True))
