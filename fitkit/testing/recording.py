"""A callback that writes down what it hears."""

from collections.abc import Callable
from typing import Any, final

from fitkit.loop.callback import Callback, Hook
from fitkit.loop.events import ACTIONS, Event, Phase, hook_name
from fitkit.loop.state import State

__all__ = ["RecordingCallback"]

_ACTIONS = frozenset(event for events in ACTIONS.values() for event in events)


class _HearsAll(Callback):
    """Has a hook for every moment; actions have one callback each, and it is another one."""

    def __init__(self, read: Callable[[State], Any] | None = None) -> None:
        self.heard: list[tuple[Event, Phase | None]] = []
        self.values: list[Any] = []
        self._read = read

    @property
    def events(self) -> list[Event]:
        """The events alone."""
        return [event for event, _ in self.heard]

    def hear(self, event: Event, state: State) -> None:
        """Write an event down."""
        self.heard.append((event, getattr(state, "phase", None)))
        if self._read is not None:
            self.values.append(self._read(state))


def _hook(event: Event) -> Hook:
    def hook(self: _HearsAll, state: State) -> None:
        self.hear(event, state)

    hook.__name__ = hook_name(event)
    return hook  # pyright: ignore[reportReturnType]  # bound, it takes a state


for _event in Event:
    if _event not in _ACTIONS:
        setattr(_HearsAll, hook_name(_event), _hook(_event))


@final
class RecordingCallback(_HearsAll):
    """Write down every moment that is heard, in all phases.

    Args:
        read: What else to keep: called with the state at every moment.

    Attributes:
        heard (list[tuple[Event, Phase | None]]): Each moment, and the phase of the pass it is in.
        values (list): What `read` returned.

    Example:
        ```python
        from fitkit import Event
        from fitkit.testing import RecordingCallback, tiny_loop

        recording = RecordingCallback(lambda state: state.num_updates)
        tiny_loop(recording).fit(max_steps=2)
        ends = [v for e, v in zip(recording.events, recording.values) if e is Event.BATCH_END]
        assert ends == [1, 2]
        ```
    """
