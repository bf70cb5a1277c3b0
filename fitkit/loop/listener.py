"""Functions as callbacks: what `loop.on` makes of them."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from fitkit.errors import brief
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import REGION, Event, Phase, hook_name
from fitkit.loop.interval import Interval, positive_int
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Listener", "check_event", "listener"]

_IN_REGION = frozenset(event for events in REGION.values() for event in events)


class Listener(Callback):
    """A function that listens to one event; returned by `loop.on`, still callable.

    Whether a filtered function runs in the step region is decided on the host at BATCH_BEGIN, so
    that a recorded step never holds a decision that was true only once.
    """

    runs_other_code = True

    def __init__(
        self,
        function: Callable[[State], object],
        event: Event,
        *,
        phases: Iterable[Phase],
        every: int | str,
        once: bool,
        when: Callable[[State], bool] | None,
    ) -> None:
        self.function = function
        self.event = event
        self.phases = frozenset(phases)
        self._every = positive_int("every", every) if isinstance(every, int) else 1
        self._interval = None if isinstance(every, int) else Interval.parse(every)
        self._once = once
        self._when = when
        self._num_firings = 0
        self._armed = self._is_done = False
        self._loop: FitLoop | None = None

    def __call__(self, state: State) -> object:
        """Call the function itself."""
        return self.function(state)

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop, for `remove`."""
        self._loop = loop

    def state_dict(self) -> dict[str, Any]:
        """Return how often the event has fired, and whether that was all."""
        if not self._num_firings or (self._every == 1 and not self._once):
            return {}  # nothing depends on it, and a resumed run may do without the function
        return {"num_firings": self._num_firings, "is_done": self._is_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore both."""
        self._num_firings = state.get("num_firings", 0)
        self._is_done = state.get("is_done", False)

    def remove(self) -> None:
        """Detach the function from its loop."""
        if self._loop is not None:
            self._loop.detach(self)
            self._loop = None

    @property
    def step_key(self) -> Hashable:
        """Whether the function runs in this step."""
        return self._armed

    def on_fit_begin(self, state: State) -> None:
        """Start the interval."""
        if self._interval is not None:
            self._interval.start(state)

    def on_batch_begin(self, state: State) -> None:
        """Decide whether the function runs in the step region of this batch."""
        if self.event in _IN_REGION:
            self._armed = self._decide(state)

    def fire(self, state: State) -> None:
        """Run the function if its filters let it."""
        if self._armed if self.event in _IN_REGION else self._decide(state):
            if self._once:  # it stays attached: a resumed run must know
                self._is_done, self._armed = True, False
            self.function(state)

    def _decide(self, state: State) -> bool:
        if self._is_done:
            return False
        self._num_firings += 1
        if self._num_firings % self._every or (self._when is not None and not self._when(state)):
            return False
        if self._interval is None:
            return True
        due = self._interval.due(state)
        if due:
            self._interval.mark(state)
        return due


def check_event(event: object) -> None:
    """Refuse what `loop.on` cannot listen to: `@loop.on` alone would decorate with the function.

    Raises:
        TypeError: If it is no event.
    """
    if not isinstance(event, Event):
        raise TypeError(
            f"loop.on({brief(event)}) is no event, expected a member of fitkit.Event\n"
            "Name the moment: @loop.on(Event.BATCH_END)."
        )


def listener(
    function: Callable[[State], object],
    event: Event,
    *,
    phases: Iterable[Phase] = TRAIN_ONLY,
    every: int | str = 1,
    once: bool = False,
    when: Callable[[State], bool] | None = None,
) -> Listener:
    """Make a callback of `function`: a subclass of `Listener` with the one hook of `event`."""

    def hook(self: Listener, state: State) -> None:
        self.fire(state)

    hook.__name__ = hook_name(event)
    name = getattr(function, "__name__", type(function).__name__)
    made = cast(type[Listener], type(name, (Listener,), {hook.__name__: hook}))
    return made(function, event, phases=phases, every=every, once=once, when=when)
