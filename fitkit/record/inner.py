"""What libraries' objects keep for themselves: no program depends on it, a trace puts it back."""

from collections import deque
from collections.abc import Container as Ids
from collections.abc import Iterable
from typing import Any, cast

from torch.optim import Optimizer

from fitkit.record.containers import Container, ContainerHolder
from fitkit.record.holder import Holder
from fitkit.record.holders import AttributeHolder
from fitkit.record.ownership import package_of

__all__ = ["inner_holders"]


def inner_holders(things: Iterable[Any], *, but: Ids[int]) -> list[Holder]:
    """Return holders of the attributes of libraries' objects and of the containers in them.

    Args:
        things: The objects.
        but: Ids of containers that have a holder already.
    """
    found: list[Holder] = []
    for thing in things:
        owner = type(thing).__name__
        found.append(AttributeHolder(thing, names=()))
        # What is appended to a list of torchmetrics is its state.
        counts = isinstance(thing, Optimizer) or package_of(type(thing)) == "torchmetrics"
        attributes: dict[str, Any] = vars(thing)
        for value in list(attributes.values()):
            if isinstance(value, dict | list | deque | set) and id(cast(Any, value)) not in but:
                found += _of_container(cast(Container, value), owner, counts=counts)
    return found


def _of_container(value: Container, owner: str, *, counts: bool) -> list[Holder]:
    found: list[Holder] = [ContainerHolder(value, owner, counts=counts)]
    if counts and isinstance(value, dict):  # the slots of the optimizer, per parameter
        for slots in value.values():
            if isinstance(slots, dict):
                found.append(ContainerHolder(cast(Container, slots), owner))
    return found
