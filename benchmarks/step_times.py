"""What a callback adds to a step, told apart to a few us on a machine that others use, too.

Loops train in turn, a block of 40 steps each, and hand over a hundred times and more; the order
turns around. The time of every step is taken, and a block counts with its median step: what
interrupts a step, or begins a block, is in none of the medians. Where steps are of several kinds
(those that open a window of `Accumulate`) it is the mean of the kinds' medians. The difference of
two loops is taken within each round, and its median over the rounds.

Where tensors lie in memory makes one of two loops that do the same a few us slower, in every round.
So loops are built anew several times, and what holds in all instances is told from what does not.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

import fitkit
from benchmarks.harness import synchronize
from fitkit import Callback, Event, FitLoop
from fitkit.data import Gather, Structure
from fitkit.data.source import LoaderWrapper
from fitkit.loop.callback import Hook
from fitkit.loop.origin import owner_of

ONCE_PER_FIT = {Event.FIT_BEGIN, Event.FIT_END, Event.CLOSE}
Kind = Callable[[int], object]


class Stamped(LoaderWrapper):
    """A loader that notes when each batch is asked for, and when the pass is over, in ns.

    It passes for one of fitkit's own: before each step, Record would look at all that the code of
    somebody else could have changed.
    """

    __module__ = "fitkit.data.stamped"

    stamps: Sequence[int] = ()

    def read(self) -> Iterator[Gather | Structure]:
        """Yield the batches."""
        self.stamps = stamps = []
        for item in super().read():
            stamps.append(time.perf_counter_ns())
            yield item
        stamps.append(time.perf_counter_ns())


class Contestant:
    """A loop, and callbacks that are attached to it while they are timed."""

    def __init__(self, loop: FitLoop, callbacks: Sequence[Callback], device: str = "cpu") -> None:
        self.loop, self._callbacks, self._device = loop, callbacks, device
        self._own = list(loop.callbacks)
        if not isinstance(loop.train_loader, Stamped):
            loop.train_loader = Stamped(loop.train_loader)

    def enter(self) -> None:
        """Attach them, and detach those of others."""
        there = self.loop.callbacks
        for callback in there:
            if callback not in self._own and callback not in self._callbacks:
                self.loop.detach(callback)
        self.loop.attach(*[each for each in self._callbacks if each not in there])

    def block(self) -> NDArray[np.float64]:
        """Train an epoch; return the us of each step, on CUDA of the mean step."""
        self.enter()
        synchronize(self._device)
        begin = time.perf_counter_ns()
        self.loop.fit(epochs=1)
        synchronize(self._device)
        steps = np.diff(self.loop.train_loader.stamps) / 1e3
        if self._device != "cpu":
            steps[:] = (time.perf_counter_ns() - begin) / 1e3 / len(steps)
        return steps

    def time_in_hooks(self) -> float:
        """Train an epoch; return the us per step in hooks of the callbacks but for those of a fit.

        What they do at the ends of pass and epoch is among it.
        """
        self.enter()
        own, spent_ns = set(self._callbacks), 0

        def trace(event: Event, hook: Hook, state: fitkit.State) -> None:
            nonlocal spent_ns
            begin = time.perf_counter_ns()
            hook(state)
            took_ns = time.perf_counter_ns() - begin
            if owner_of(hook) in own and event not in ONCE_PER_FIT:
                spent_ns += took_ns

        self.loop.bus.add_tracer(trace)
        self.loop.fit(epochs=1)
        self.loop.bus.remove_tracer(trace)
        return spent_ns / 1e3 / len(self.loop.train_loader)


def in_turns(
    contestants: Mapping[str, Contestant], rounds: int, kind: Kind
) -> dict[str, list[float]]:
    """Return the us of a typical step, by contestant and round."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    gc.collect()
    gc.freeze()  # what was built is not looked at again and again
    for index in range(rounds):
        # The order turns around every round, so that neither side always runs on the warmer cache.
        for name in contestants if index % 2 == 0 else reversed(list(contestants)):
            times[name].append(typical(contestants[name].block(), kind))
    gc.unfreeze()
    return times


def typical(steps: NDArray[np.float64], kind: Kind) -> float:
    """Return the median of the steps of each kind, weighted by how many there are."""
    kinds: dict[object, list[float]] = {}
    for index, us in enumerate(steps.tolist()):
        kinds.setdefault(kind(index), []).append(us)
    return sum(len(each) * statistics.median(each) for each in kinds.values()) / len(steps)


def differences(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return what is added, round by round."""
    return [a - b for a, b in zip(times, base, strict=True)]
