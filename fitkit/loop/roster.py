"""Who is attached: types checked, stacks expanded, changes in mid-run put off to a safe point."""

import sys
import weakref
from collections.abc import Callable, Collection, Iterable
from inspect import isfunction
from typing import TYPE_CHECKING

from fitkit.errors import ConfigError, brief
from fitkit.interop import is_keras
from fitkit.loop.bus import Entry, flatten
from fitkit.loop.callback import Callback, Hook, Stack, Turn, listens_to
from fitkit.loop.events import Event, Phase, hook_name
from fitkit.loop.origin import Origin, emitter, running

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Attachable", "Roster"]

Attachable = Callback | Turn | Stack
Change = Callable[[], None]

_OPENING = (Event.FIT_BEGIN, Event.EPOCH_BEGIN, Event.PASS_BEGIN)


class Roster:
    """The entries attached to a loop, in run order."""

    def __init__(self, loop: "FitLoop") -> None:
        # Callbacks get a weak proxy: in a cycle, a model of gigabytes would outlive its loop.
        self._loop: FitLoop = weakref.proxy(loop)
        self.entries: list[Entry] = []
        self._num_own = 0
        self._changes: list[tuple[Change, Origin | None]] = []
        self._joining: list[Entry] = []

    @property
    def callbacks(self) -> list[Callback]:
        """All callbacks in list order, those of turns too."""
        return flatten(self.entries)

    @property
    def given(self) -> list[Entry]:
        """The entries a user attached; messages count by their index."""
        return self.entries[self._num_own :]

    def attach_own(self, *callbacks: Callback) -> None:
        """Add what every loop has, before anything else."""
        self._add(list(callbacks))
        self._num_own = len(self.entries)

    def attach(self, given: Iterable[object], *, running: bool) -> None:
        """Add entries at the end; in a run they join at the next batch.

        Raises:
            TypeError: If one of them is nothing that can be attached.
            ConfigError: If a callback is attached twice, or two turns have one name.
        """
        new = list(self._expanded(given))
        everyone = [*self.given, *self._joining, *new]
        _check_unique(everyone)
        _check_turns(everyone)
        if running:
            self._joining += new
            self._put_off(lambda: self._join(new))
        else:
            self._add(new)

    def detach(self, entry: Entry, *, running: bool) -> None:
        """Remove an entry; in a run it leaves at the next batch and is closed then.

        Raises:
            ConfigError: If it is not attached.
        """
        if entry not in self.given:
            raise ConfigError(
                f"{type(entry).__name__} is not attached to this loop\n"
                "Pass the very instance that was attached; loop.callbacks lists them."
            )
        if running:
            self._put_off(lambda: self._leave(entry))
        else:
            self._remove(entry)

    def apply_changes(self) -> None:
        """Carry out what was put off. The opening events that newcomers missed are delivered."""
        while self._changes:
            change, origin = self._changes.pop(0)
            change() if origin is None else _in_the_name_of(*origin, change)

    def settle(self) -> None:
        """Carry out what the end of a run left over, without opening anybody."""
        changes, self._changes = self._changes, []
        for change, _ in changes:
            change()

    def _put_off(self, change: Change) -> None:
        origin = running(sys._getframe())  # pyright: ignore[reportPrivateUsage]  # documented
        self._changes.append((change, origin))

    def _join(self, new: list[Entry]) -> None:
        for entry in new:
            self._joining.remove(entry)
        self._add(new)
        if not self._loop.running:
            return
        try:
            self._loop.check(Phase.TRAIN)
        except ConfigError:
            for entry in new:  # else no later run could begin
                self._remove(entry)
            raise
        for callback in flatten(new):
            self._loop.session.open(callback)
            for event in _OPENING:
                in_phase = event is not Event.PASS_BEGIN or Phase.TRAIN in callback.phases
                if listens_to(callback, event) and in_phase:
                    self._loop.bus.call(event, getattr(callback, hook_name(event)))

    def _leave(self, entry: Entry) -> None:
        if entry in self.entries:
            self._remove(entry)
        if self._loop.running:
            self._loop.check(Phase.TRAIN)
            for callback in reversed(flatten([entry])):
                self._loop.session.close(callback)

    def _add(self, new: list[Entry]) -> None:
        self.entries += new
        self._rebuild()
        for callback in flatten(new):
            callback.attach(self._loop)

    def _remove(self, entry: Entry) -> None:
        self.entries.remove(entry)
        self._rebuild()
        for callback in flatten([entry]):
            callback.detach(self._loop)

    def _rebuild(self) -> None:
        self._loop.bus.build(self.entries)
        needs = (callback.needs for callback in self.callbacks)
        self._loop.state.needs = frozenset[str]().union(*needs)

    def _expanded(self, given: Iterable[object]) -> Iterable[Entry]:
        for item in given:
            if isinstance(item, Stack):
                yield from item.expand(self._loop)
            elif isinstance(item, Turn):
                _check_members(item)
                yield item
            elif isinstance(item, Callback):
                _check_phases(item)
                yield item
            else:
                raise _not_attachable(item)


@emitter
def _in_the_name_of(hook: Hook, event: Event, change: Change) -> None:
    """Make a change that a hook has asked for: an error comes from there."""
    change()


def _check_unique(entries: list[Entry]) -> None:
    callbacks = flatten(entries)
    turns = {id(c): entry for entry in entries if isinstance(entry, Turn) for c in entry.callbacks}
    for index, callback in enumerate(callbacks):
        name, turn = type(callback).__name__, turns.get(id(callback))
        for earlier in range(index):
            others = turn and turns.get(id(callbacks[earlier])) not in (None, turn)
            is_alone = not callback.instead_of_two or (callback.one_per_turn and others)
            if not is_alone and type(callbacks[earlier]) is type(callback):
                raise ConfigError(
                    f"callbacks[{earlier}] and callbacks[{index}] are both {name}; a loop has one\n"
                    f"{callback.instead_of_two}"
                )
            if callbacks[earlier] is callback:
                raise ConfigError(
                    f"callbacks[{earlier}] and callbacks[{index}] are the same {name} instance\n"
                    f"Their state would be kept under one key, '{name}'.\n"
                    f"Attach a second instance instead: {name}(...)."
                )


def _check_turns(entries: list[Entry]) -> None:
    names = [entry.name for entry in entries if isinstance(entry, Turn)]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ConfigError(
                f"two turns are named {brief(name)}, turns {names.index(name)} and {index}\n"
                'Give each a name of its own: Turn("critic", [...]), Turn("generator", [...]).'
            )


def _check_members(turn: Turn) -> None:
    for item in turn.callbacks:
        if not isinstance(item, Callback):
            raise _not_attachable(item)
        _check_phases(item)


def _check_phases(callback: Callback) -> None:
    given: object = callback.phases
    known = isinstance(given, Collection) and not isinstance(given, str) and set(Phase) >= {*given}
    if not known:
        name = type(callback).__name__
        raise ConfigError(
            f"{name}.phases is {brief(given)}, expected a set of members of fitkit.Phase\n"
            "Name the passes it takes part in: phases = frozenset({Phase.TRAIN})."
        )


def _not_attachable(item: object) -> TypeError:
    name = type(item).__name__
    if isinstance(item, type):
        hint = f"Add (): {item.__name__}() is an instance of it."
        return TypeError(f"got the class {item.__name__}, expected an instance of it\n{hint}")
    module = type(item).__module__
    if is_keras(item, "callbacks.Callback"):
        hint = f"Wrap it: attach(KerasCallbacks([{name}(...)])) calls it as model.fit does."
        return TypeError(f"got {module}.{name}, a Keras callback and no fitkit.Callback\n{hint}")
    if isinstance(item, list | tuple):
        hint = "Spread it with *, or attach a stack such as supervised(...) as it is."
        return TypeError(f"got a nested {name}, expected callbacks one after the other\n{hint}")
    if isfunction(item):
        hint = "Attach a function with @loop.on(Event.BATCH_END), or subclass fitkit.Callback."
        if item.__module__.startswith("fitkit."):
            hint = f"Call it: {item.__name__}(...) makes the callbacks."
        where = f"{item.__module__}.{item.__name__}"
        return TypeError(f"got the function {where}, expected a fitkit.Callback\n{hint}")
    hint = "Subclass fitkit.Callback, the base class of everything that can be attached."
    if name == "LRFinder":
        hint = "It is no part of a run: found = LRFinder().find(loop), before fit."
    elif {*module.split(".")} & {"lr_scheduler", "schedules", "plateau"}:  # torch, Keras, fitkit
        hint = f"Wrap it: LRSchedule({name}(...)) sets the rate."
    elif module.startswith(("torch.optim.", "torch.nn.", "torchmetrics.", "keras.")):
        hint = "Give it to the stack: supervised(loss=, optimizer=, metrics=)."
    return TypeError(f"got {module}.{name}, expected a fitkit.Callback\n{hint}")
