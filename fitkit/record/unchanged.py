"""Steps between which nobody's code runs that could change what a program depends on.

Looking at all a step can reach is work of the host before every step. Where only fitkit's own
loaders and callbacks that watch run between two steps, there is nothing to see. What another thread
changes, or a handler of a signal, is seen up to 16 steps late.
"""

from collections.abc import Hashable
from typing import final

from fitkit.data import fetches_alone
from fitkit.loop.bus import owner_of
from fitkit.loop.callback import LOOKS_EVERY
from fitkit.loop.events import Event
from fitkit.loop.runner import Runner
from fitkit.loop.state import State
from fitkit.record.recording import Recording

__all__ = ["Unchanged"]


@final
class Unchanged:
    """The recordings that stand for their kinds of step until the next look."""

    def __init__(self) -> None:
        self._recordings: dict[Hashable, Recording] = {}
        self._num_left = 0

    def recording_of(self, kind: Hashable, state: State) -> Recording | None:
        """Return what replays the next step, None if somebody has to look."""
        self._num_left -= 1
        if self._num_left < 0 or state.eager_requested:
            self.forget()
        recording = self._recordings.get(kind)
        refused = recording is not None and recording.program is None  # by an audit
        return None if refused else recording

    def keep(self, kind: Hashable, recording: Recording, runner: Runner) -> None:
        """Keep what was found by looking, if nobody runs until the next step."""
        if self._num_left <= 0:
            self._num_left = LOOKS_EVERY if _is_quiet(runner) else 0
        if self._num_left > 0 and not recording.eager_metrics:
            self._recordings[kind] = recording

    def forget(self) -> None:
        """Take note that anything may have changed."""
        self._recordings.clear()
        self._num_left = 0


def _is_quiet(runner: Runner) -> bool:
    """Return whether between two steps nothing runs that a step could depend on."""
    state, feed = runner.state, runner.feed
    if state.pending is None or feed is None:
        return False
    between = (Event.BATCH_END, Event.BATCH_BEGIN)
    hooks = [hook for event in between for hook in runner.bus.hooks(state.phase, event)]
    return all(owner_of(hook).only_watches for hook in hooks) and fetches_alone(feed.loader)
