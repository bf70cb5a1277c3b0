"""torch's schedulers, stepped along with a run."""

import copy
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

from torch.optim import lr_scheduler

__all__ = ["is_torch_schedule", "rates_ahead"]


def is_torch_schedule(schedule: object) -> bool:
    """Return whether it is an instance of one of torch's schedulers."""
    return isinstance(schedule, lr_scheduler.LRScheduler)


def rates_ahead(scheduler: Any, num_steps: int) -> list[float]:
    """Return the rates of the first group in the next steps; the scheduler stays where it is."""
    rates: list[float] = []
    with _put_back(scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that the optimizer has not stepped
        for _ in range(num_steps):
            rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))  # sync: none, a number
            scheduler.step()
    return rates


@contextmanager
def _put_back(scheduler: Any) -> Generator[None]:
    groups = cast("list[dict[str, Any]]", scheduler.optimizer.param_groups)
    before = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    copied, state = copy.deepcopy(before), copy.deepcopy(scheduler.state_dict())
    try:
        yield
    finally:
        scheduler.load_state_dict(state)
        for group, own, value in zip(groups, before, copied, strict=True):
            group.update({key: _restored(own[key], value[key]) for key in own})


def _restored(own: Any, copied: Any) -> Any:
    """Return the user's own tensor with the value it had, anything else as it was copied."""
    if hasattr(own, "copy_"):
        own.copy_(copied)
        return own
    return copied
