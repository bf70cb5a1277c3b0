"""The event bus: a table of bound hooks per phase and turn, built once, walked by a bare `for`."""

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import wraps

from fitkit.loop.callback import Around, Callback, Hook, Turn, listens_to
from fitkit.loop.events import ACTIONS, REGION, Event, Phase, hook_name
from fitkit.loop.origin import emitter, owner_of
from fitkit.loop.state import State

__all__ = ["Entry", "EventBus", "Table", "Tracer", "flatten", "owner_of"]

Entry = Callback | Turn
Table = tuple[tuple[Hook, ...], ...]
Tracer = Callable[[Event, Hook, State], None]

_REGION = REGION[Phase.TRAIN]
_IN_PASS = range(Event.PASS_BEGIN, Event.PASS_END + 1)


class EventBus:
    """Calls the hooks of an event in list order.

    `build` turns the attached callbacks into one table per phase and turn: a tuple of bound
    methods for each event. `emit` walks the tuple of the current table; an event nobody listens
    to costs an empty loop. Tracers swap the emitter instead of slowing it down.

    Attributes:
        emit: Call every hook of an event, in list order.
        version: Counts the builds; what was derived from an older table is stale.
        turns: The turns of a training batch; one unnamed turn where none was declared.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._tables: dict[tuple[Phase, str | None], Table] = {}
        self._tracers: list[Tracer] = []
        self._tracer: Tracer = _untraced  # the latest one
        self._callbacks: list[Callback] = []
        self._hooks: Table = ()
        self._phase = Phase.TRAIN
        self._turn: Turn | None = None
        self.version = 0
        self.turns: tuple[Turn | None, ...] = (None,)
        self.build([])

    @emitter
    def _emit(self, event: Event) -> None:
        for hook in self._hooks[event]:
            hook(self._state)

    emit = _emit  # an attribute of the instance while it is traced

    @emitter
    def _emit_traced(self, event: Event) -> None:
        for hook in self._hooks[event]:
            self._tracer(event, hook, self._state)

    @emitter
    def call(self, event: Event, hook: Hook) -> None:
        """Call one hook, through a tracer if there is one."""
        self._tracer(event, hook, self._state)

    def build(self, entries: Iterable[Entry]) -> None:
        """Build the tables anew."""
        entries = tuple(entries)
        turns = tuple(entry for entry in entries if isinstance(entry, Turn))
        self.turns = turns or (None,)
        self._tables = {(phase, None): _table(entries, phase, None) for phase in Phase}
        for turn in turns:
            self._tables[Phase.TRAIN, turn.name] = _table(entries, Phase.TRAIN, turn)
        self._callbacks = flatten(entries)
        self.version += 1
        self.use(None)

    def use(self, turn: Turn | None) -> None:
        """Switch to the table of a turn."""
        self._turn = turn
        self._hooks = self._tables[self._phase, turn.name if turn else None]

    @contextmanager
    def entered(self, phase: Phase) -> Generator[None]:
        """Switch to the tables of a phase, and back."""
        outer_phase, outer_turn, self._phase = self._phase, self._turn, phase
        self.use(None)
        try:
            yield
        finally:
            self._phase = outer_phase
            self.use(outer_turn)

    def hooks(self, phase: Phase, event: Event, turn: Turn | None = None) -> tuple[Hook, ...]:
        """Return the hooks that `event` calls, in order."""
        return self._tables[phase, turn.name if turn else None][event]

    @property
    def step_callbacks(self) -> list[Callback]:
        """The callbacks with a hook in the step region, or around one, in list order."""
        return [
            c for c in self._callbacks if any(listens_to(c, e) or e in c.around for e in _REGION)
        ]

    def add_tracer(self, tracer: Tracer) -> None:
        """Let `tracer(event, hook, state)` call every hook from now on; the latest one wins."""
        self._tracers.append(tracer)
        self._tracer = tracer
        vars(self)["emit"] = self._emit_traced

    def remove_tracer(self, tracer: Tracer) -> None:
        """Undo `add_tracer`."""
        self._tracers.remove(tracer)
        self._tracer = self._tracers[-1] if self._tracers else _untraced
        if not self._tracers:
            del vars(self)["emit"]


def _untraced(event: Event, hook: Hook, state: State) -> None:
    hook(state)


def flatten(entries: Iterable[Entry]) -> list[Callback]:
    """Return all callbacks in list order, those inside turns too."""
    return [
        callback
        for entry in entries
        for callback in (entry.callbacks if isinstance(entry, Turn) else (entry,))
    ]


def _table(entries: Iterable[Entry], phase: Phase, turn: Turn | None) -> Table:
    entries = tuple(entries)
    in_step = [
        callback
        for entry in entries
        if not isinstance(entry, Turn) or entry is turn
        for callback in (entry.callbacks if isinstance(entry, Turn) else (entry,))
    ]
    return tuple(_hooks(event, flatten(entries), in_step, phase, turn) for event in Event)


def _hooks(
    event: Event, everyone: list[Callback], in_step: list[Callback], phase: Phase, turn: Turn | None
) -> tuple[Hook, ...]:
    # Turns are parts of a training batch: in other passes their callbacks have nothing to do.
    of_turns = event in REGION[Phase.TRAIN] or (event in _IN_PASS and phase is not Phase.TRAIN)
    listeners = in_step if of_turns else everyone
    if event in _IN_PASS:
        listeners = [callback for callback in listeners if phase in callback.phases]
    if event in REGION[Phase.TRAIN] and event not in REGION[phase]:
        return ()
    hooks = [callback for callback in listeners if listens_to(callback, event)]
    if turn and event in ACTIONS[phase] and any(c in turn.callbacks for c in hooks):
        # What a turn fills itself replaces what is shared by all turns.
        hooks = [callback for callback in hooks if callback in turn.callbacks]
    wrapping = [c for c in in_step if event in c.around and phase in c.phases]
    around = [callback.around[event] for callback in wrapping]
    return tuple(_bound(callback, event, around) for callback in hooks)


def _bound(callback: Callback, event: Event, around: list[Around]) -> Hook:
    hook: Hook = getattr(callback, hook_name(event))
    for factory in reversed(around):  # the first listed is the outermost
        hook = _within(factory, hook)
    return hook


def _within(factory: Around, hook: Hook) -> Hook:
    @wraps(hook)
    def wrapped(state: State) -> None:
        with factory():
            hook(state)

    wrapped.__dict__["__self__"] = owner_of(hook)
    return wrapped
