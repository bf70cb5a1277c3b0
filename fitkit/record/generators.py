"""Generators of random numbers on the host: a step must not draw from them."""

import random
from collections.abc import Callable, Iterable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import (
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)

from fitkit.record.holder import Holder, Values

__all__ = ["GeneratorHolder", "Generators"]


@final
class Generators:
    """The states of torch's, Python's and numpy's global generators as they are now.

    Args:
        tensors: The generators of the devices they are on are kept as well.

    Syncs: never on the CPU; torch copies the state of a CUDA generator to the host.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
        self._cpu = torch.get_rng_state()
        self._cuda = {device: torch.cuda.get_rng_state(device) for device in devices}
        self._python = random.getstate()
        self._numpy: Any = np.random.get_state()

    def drawn(self) -> str | None:
        """Return which generator of the host was drawn from since, if any."""
        with _disable_current_modes():  # a trace may be going on
            if not torch.equal(self._cpu, torch.get_rng_state()):
                return "torch"
        if random.getstate() != self._python:
            return "random"
        now: Any = np.random.get_state()
        same = now[2] == self._numpy[2] and bool((now[1] == self._numpy[1]).all())
        return None if same else "numpy"

    def restore(self) -> None:
        """Put them all back."""
        torch.set_rng_state(self._cpu)
        for device, state in self._cuda.items():
            torch.cuda.set_rng_state(state, device)
        random.setstate(self._python)
        np.random.set_state(self._numpy)


@final
class GeneratorHolder(Holder):
    """A generator of random numbers on the host, which a step must not draw from."""

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], object], owner: str) -> None:
        self.owner = owner
        self._get = get
        self._put = put

    def read(self) -> Values:
        """Return the values a program depends on: none."""
        return ()

    def items(self) -> dict[Any, Any]:
        """Return a copy of the state of the generator."""
        return {"state": self._get()}

    def change(self, before: dict[Any, Any]) -> str | None:
        """Return the name of the generator if it was drawn from."""
        return self.owner if repr(before["state"]) != repr(self._get()) else None

    def put(self, items: dict[Any, Any]) -> None:
        """Put the state back."""
        self._put(items["state"])

    @classmethod
    def of(cls, thing: Any) -> "GeneratorHolder | None":
        """Return a holder if `thing` is a generator."""
        if isinstance(thing, random.Random):
            return cls(thing.getstate, thing.setstate, "random.Random")
        if isinstance(thing, np.random.Generator):
            bits: Any = thing.bit_generator
            return cls(lambda: bits.state, lambda v: setattr(bits, "state", v), "numpy Generator")
        return None  # draws from a torch.Generator are refused where they happen
