"""Fence: the Python state a step depends on, or changes.

A trace holds what attributes were when it was made. So the attributes of everything the step
region can reach are part of a program's key (`layer.rate = 0.5` gives a new program), and a region
that changes one of them while it is traced is refused (a counter, a rebound tensor).
"""

from collections.abc import Callable, Container, Iterable, Iterator
from itertools import chain, count
from operator import call, is_
from typing import Any, cast, final

from torch import nn

from fitkit.loop.callback import Callback
from fitkit.record.containers import IteratorHolder
from fitkit.record.holder import Holder, Values, fingerprint
from fitkit.record.holders import AttributeHolder
from fitkit.record.reach import Reach
from fitkit.record.refused import Refused

__all__ = ["PythonState"]

Saved = list[dict[Any, Any]]


@final
class PythonState:
    """The attributes of objects and functions, watched by identity and compared by value.

    Args:
        model: All its modules are watched.
        roots: Callbacks of the step region; what they hold is watched as well.
        functions: Functions called in the region; their closures and globals are watched.
        before: What was watched until now; equal attributes keep their version.

    Attributes:
        parameters: All parameters in reach, whose `requires_grad` belongs into a key.
        keyed: The callbacks with a `step_key` of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        roots: Iterable[Callback],
        functions: Iterable[Callable[..., Any]],
        *,
        before: "PythonState | None" = None,
    ) -> None:
        roots = list(roots)
        self.keyed = [root for root in roots if type(root).step_key is not Callback.step_key]
        self._reach = Reach(model, roots, functions)
        self._holders: list[Holder] = self._reach.holders
        own = dict.fromkeys(model.parameters())
        self.parameters = list(own | dict.fromkeys(self._reach.parameters))
        # A fingerprint holds ids; the values it was made of are kept, so that no id comes back.
        # Attributes that go back to what they were find their program again.
        self._versions: dict[Values, tuple[int, Any]] = before._versions if before else {}
        self._numbers: Iterator[int] = before._numbers if before else count()
        self._look()

    def reaches_the_same(self, model: nn.Module) -> bool:
        """Return whether the same would be watched, if this were made anew."""
        return self._reach.is_same(model)

    def version(self) -> int:
        """Return a number that is the same whenever all watched attributes are."""
        try:
            same = self._sizes() == self._sizes_seen and all(map(is_, self._read(), self._seen))
        except KeyError:  # an attribute was deleted
            same = False
        if not same:
            self._look()
        return self._version

    def _look(self) -> None:
        """Read everything; the next `version` only sees whether anything is another object."""
        sources = [source for holder in self._holders for source in holder.sources()]
        self._functions = [function for function, _ in sources]
        self._arguments = [argument for _, argument in sources]
        sized = (holder.sized() for holder in self._holders)
        self._sized = [each for each in sized if each is not None]
        self._sizes_seen = self._sizes()
        self._seen = list(self._read())
        self._version = self._number([holder.read() for holder in self._holders])

    def _read(self) -> Iterable[object]:
        calls: Iterable[Iterable[object]] = map(cast(Any, call), self._functions, self._arguments)
        return chain.from_iterable(calls)

    def _sizes(self) -> list[int]:
        return list(map(len, self._sized))

    def _number(self, values: list[Values]) -> int:
        key = (*map(fingerprint, values), *map(id, self.parameters))
        if key not in self._versions:
            self._versions[key] = (next(self._numbers), (values, self.parameters))
        return self._versions[key][0]

    def forget(self, *, but: Container[int]) -> None:
        """Forget versions that no program needs: they hold what may be dead besides."""
        kept = {key: held for key, held in self._versions.items() if held[0] in but}
        self._versions.clear()
        self._versions.update(kept)

    def refuse_unseen(self) -> None:
        """Refuse a step that reads what nobody can watch.

        Raises:
            Refused: Naming it.
        """
        for holder in self._holders:
            if isinstance(holder, IteratorHolder):
                where = holder.owner or "a variable"
                raise Refused(f"the step reads {where}, a {holder.kind}: it yields without a trace")

    def snapshot(self) -> Saved:
        """Return everything in reach as it is now, also what belongs into no key."""
        self._reach.look_inside()
        return [holder.items() for holder in self._reach.all_holders]

    def change(self, snapshot: Saved) -> str | None:
        """Return what a step may not change but has changed since `snapshot`, if anything."""
        pairs = zip(self._reach.all_holders, snapshot, strict=True)
        changes = (holder.change(before) for holder, before in pairs)
        return next((change for change in changes if change is not None), None)

    def built(self, snapshot: Saved) -> str | None:
        """Return which attribute of the user's has changed since `snapshot`, if any."""
        pairs = zip(self._holders, snapshot, strict=False)  # others come after these
        changes = (
            holder.change(before)
            for holder, before in pairs
            if isinstance(holder, AttributeHolder) and holder.which
        )
        return next((change for change in changes if change is not None), None)

    def restore(self, snapshot: Saved) -> None:
        """Undo everything that changed since `snapshot`."""
        for holder, before in zip(self._reach.all_holders, snapshot, strict=True):
            holder.undo(before)
