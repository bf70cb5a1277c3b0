"""The base class of everything that happens in a run."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from fitkit.errors import ConfigError, brief
from fitkit.loop.events import ACTIONS, Event, Phase, hook_name
from fitkit.loop.hooks import check_hooks
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["LOOKS_EVERY", "TRAIN_ONLY", "Around", "Callback", "Hook", "Stack", "Turn"]

Hook = Callable[[State], None]
Around = Callable[[], AbstractContextManager[Any]]

TRAIN_ONLY = frozenset({Phase.TRAIN})
LOOKS_EVERY = 16  # steps, where all callbacks only watch
_BETWEEN_STEPS = {hook_name(Event.BATCH_BEGIN), hook_name(Event.BATCH_END)}
_ALL_ACTIONS = frozenset(event for events in ACTIONS.values() for event in events)


class Callback:
    """Behaviour that listens to the events of a `FitLoop`; every hook is a no-op by default.

    A hook that fills an action (see `Event`) makes the callback responsible for it. A method
    named `on_...` that is no hook is refused when the class is defined.

    Attributes:
        phases: The phases in which hooks from PASS_BEGIN to PASS_END are called.
        fills: Events this callback fills without a hook of their own; others may not listen to
            them then. For whole-step callbacks.
        after: Class names that must be listed before this callback if they are attached.
        needs: What of the step must outlive the step region: "outputs", "gradients", or "packed", a
            copy of `state.step_values`.
        instead_of_two: What to do instead of attaching a second one of this class; where it is not
            empty, a second one is refused.
        one_per_turn: Whether two are fine in two turns, all the same.
        only_watches: Whether the hooks that run between two steps change nothing that a step
            reads. If that holds for all of them, `Record` looks for changes, and asks again, at
            every 16th step only. A subclass with such hooks of its own has to say it again.
        runs_other_code: Whether it calls what users have written, which may log what it likes.
        around: Context managers, by action, in which the action is run. A factory takes nothing.

    Example:
        ```python
        from fitkit import Callback, State

        class StopOnLowLoss(Callback):
            def on_epoch_end(self, state: State) -> None:
                if state.logs["loss"] < 0.1:
                    state.request_stop("loss below 0.1")
        ```
    """

    phases: frozenset[Phase] = frozenset(Phase)
    fills: frozenset[Event] = frozenset()
    after: ClassVar[tuple[str, ...]] = ()
    needs: frozenset[str] = frozenset()
    around: Mapping[Event, Around] = {}
    instead_of_two: ClassVar[str] = ""
    one_per_turn: ClassVar[bool] = False
    only_watches: bool = False
    runs_other_code: ClassVar[bool] = False

    @property
    def step_key(self) -> Hashable:
        """What the step region of this callback depends on besides tensors, for recording."""
        return ()

    def __init_subclass__(cls) -> None:
        """Refuse misspelled hooks and wrong signatures while the class is being defined.

        Raises:
            ConfigError: If a method named `on_...` is no hook.
            TypeError: If a hook does not take exactly (self, state), or calling it would not run
                it, as with `async def`.
        """
        super().__init_subclass__()
        check_hooks(cls)
        if "only_watches" not in vars(cls) and _BETWEEN_STEPS & vars(cls).keys():
            cls.only_watches = False

    def attach(self, loop: "FitLoop") -> None:
        """Called once when the callback joins a loop; only those that drive the loop keep it."""

    def detach(self, loop: "FitLoop") -> None:
        """Called once when the callback leaves a loop."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run must restore: numbers, strings, tensors, nested."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; also called in mid-pass, between two batches."""

    def on_open(self, state: State) -> None:
        """Take files, threads, handlers; `on_close` is called if this returned."""

    def on_fit_begin(self, state: State) -> None:
        """Called once per `fit`."""

    def on_epoch_begin(self, state: State) -> None:
        """Called before the training pass of an epoch."""

    def on_pass_begin(self, state: State) -> None:
        """Called before the first batch of a pass."""

    def on_batch_begin(self, state: State) -> None:
        """Called when the batch is on the device; may write what was unpacked, and extra."""

    def on_zero_grad(self, state: State) -> None:
        """Clear the gradients [action]."""

    def on_forward(self, state: State) -> None:
        """Write `state.outputs` [action]."""

    def on_loss(self, state: State) -> None:
        """Write `state.loss` [action]."""

    def on_loss_ready(self, state: State) -> None:
        """Change the loss before the backward pass."""

    def on_backward(self, state: State) -> None:
        """Fill the gradients from `state.loss` [action]."""

    def on_grads_ready(self, state: State) -> None:
        """Change or look at complete gradients."""

    def on_apply(self, state: State) -> None:
        """Change the weights [action]."""

    def on_update_metrics(self, state: State) -> None:
        """Add this batch to metrics, on the device."""

    def on_batch_end(self, state: State) -> None:
        """Called on the host after each batch; counters include it."""

    def on_pass_end(self, state: State) -> None:
        """Called after the last batch of a pass."""

    def on_validate(self, state: State) -> None:
        """Called at the end of an epoch and where validation was requested."""

    def on_epoch_end(self, state: State) -> None:
        """Called when training pass and validation of an epoch are done."""

    def on_save(self, state: State) -> None:
        """Called after all other listeners of an epoch end, or where a save was requested."""

    def on_fit_end(self, state: State) -> None:
        """Called once per `fit`, if nothing raised."""

    def on_exception(self, state: State) -> None:
        """Called if something raised; the error goes on afterwards."""

    def on_close(self, state: State) -> None:
        """Give back what `on_open` took; called once, in reverse order, whatever happened."""


def listens_to(callback: Callback, event: Event) -> bool:
    """Return whether the class of `callback` defines its own hook for `event`."""
    name = hook_name(event)
    return getattr(type(callback), name) is not getattr(Callback, name)


def filled_by(callback: Callback) -> frozenset[Event]:
    """Return the events `callback` is responsible for: its action hooks and `fills`."""
    return callback.fills | {event for event in _ALL_ACTIONS if listens_to(callback, event)}


class Stack(tuple["Callback | Turn", ...]):
    """Callbacks and turns in run order that are attached together.

    A subclass may choose them by the model. A stack can be spread (`[*supervised(...)]`) or given
    whole.
    """

    __slots__ = ()

    def expand(self, loop: "FitLoop") -> "Iterable[Callback | Turn]":
        """Return the callbacks to attach to `loop`."""
        return self


class Turn:
    """One of several updates within a batch, with its own actions and its own update counter.

    Turns run one after the other in list order: the critic and the generator of a GAN, the two
    passes of a two-pass optimizer.

    Args:
        name: The key of the counter in `state.turn_updates`.
        callbacks: The callbacks whose step-region hooks run in this turn only.
        every: Run in every n-th training batch: batches n - 1, 2n - 1, ... of the run.

    Raises:
        ConfigError: If `name` is empty or `every` is no positive int.
    """

    def __init__(self, name: str, callbacks: Iterable[Callback], *, every: int = 1) -> None:
        if not name or not isinstance(name, str):
            raise ConfigError(
                f"Turn(name={brief(name)}) is no name, expected a non-empty string\n"
                'Name the turn, for example Turn("critic", [...]).'
            )
        self.name = name
        self.callbacks = tuple(callbacks)
        self.every = positive_int("every", every)

    def fires(self, num_batches: int) -> bool:
        """Return whether the turn runs in the batch before which `num_batches` were counted."""
        return (num_batches + 1) % self.every == 0
