"""The loop, the bus and the blackboard: reads batches, fires events. Knows no callback's work."""

from fitkit.loop.bus import EventBus
from fitkit.loop.callback import Callback, Stack, Turn
from fitkit.loop.events import Event, Phase
from fitkit.loop.fit_loop import FitLoop
from fitkit.loop.history import History
from fitkit.loop.interval import Interval
from fitkit.loop.state import State

__all__ = [
    "Callback",
    "Event",
    "EventBus",
    "FitLoop",
    "History",
    "Interval",
    "Phase",
    "Stack",
    "State",
    "Turn",
]
