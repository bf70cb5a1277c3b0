"""The loop itself, one screen: it fires events, reads the stop flag, and counts. Nothing else."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch

from fitkit.data import Feed, length
from fitkit.loop.budget import stop_if_spent
from fitkit.loop.bus import EventBus
from fitkit.loop.callback import Turn
from fitkit.loop.events import REGION, Event, Phase
from fitkit.loop.lifetime import begin_batch, count_batch, count_turn, end_region, frame
from fitkit.loop.packed import PACKED, pack
from fitkit.loop.signals import ending_of
from fitkit.loop.state import UNSET, State

__all__ = ["Runner", "nothing_recorded"]


class Runner:
    """Fires the events of a run at the bus.

    Args:
        bus: Calls the hooks.
        state: What the hooks read and write.
        before_batch: Called before each training batch; carries out `attach` and `detach`.

    Attributes:
        run_step: Runs the step region of the current batch and turn; `Record` replaces it.
        report: Tells what was recorded; `Record` replaces it.
        feed: What the current pass reads.
        train_feed: What the current or the last training pass reads.
        resume: Puts back what was saved, at FIT_BEGIN and in the first training pass, after what
            the hooks have begun there; returns whether that was all.
    """

    def __init__(self, bus: EventBus, state: State, before_batch: Callable[[], None]) -> None:
        self.bus = bus
        self.state = state
        self.report: Callable[[], str] = nothing_recorded
        self._before_batch = before_batch
        # The turns whose accumulation window is open, with the loss of their last batch, its parts.
        self._open: dict[Turn | None, tuple[Any, Any]] = {}
        self.feed: Feed | None = None
        self.train_feed: Feed | None = None
        self.resume: Callable[[Feed | None], bool] | None = None

    def run_epochs(self, loader: Any) -> None:
        """Train until a limit is reached or somebody requests a stop."""
        state, bus = self.state, self.bus
        self._open.clear()
        bus.emit(Event.FIT_BEGIN)
        self._go_on()
        while not state.stop and (state.max_epochs is None or state.epoch < state.max_epochs):
            state.logs.clear()
            bus.emit(Event.EPOCH_BEGIN)
            if self.run_pass(Phase.TRAIN, loader):
                state.num_epochs += 1
                bus.emit(Event.VALIDATE)
                state.requests.clear()  # served by now, as SAVE will be
                bus.emit(Event.EPOCH_END)
                state.requests.discard(Event.SAVE)
                self._serve_requests()
                state.epoch, state.epoch_batches = state.epoch + 1, 0
            bus.emit(Event.SAVE)
        bus.emit(Event.FIT_END)

    def run_pass(self, phase: Phase, loader: Any, *, prefix: str = "") -> bool:
        """Run all batches of `loader`; return False if a stop cut the pass short.

        Only a training pass is ever cut short: metrics of half a validation pass would mislead.
        """
        state, training = self.state, phase is Phase.TRAIN
        name = f"{(prefix or phase).rstrip('_')} loader"
        ends = partial(_is_stopping, state, self._open)
        feed = Feed(loader, state.device, state.epoch, name=name, ends_on_error=ends)
        run_batch = self._train_batch if training else self._eval_batch
        fields = frame(state, phase, prefix, length(loader))
        with self.bus.entered(phase), fields, torch.set_grad_enabled(training):
            state.exits.callback(setattr, self, "feed", self.feed)
            self.feed = feed
            self.bus.emit(Event.PASS_BEGIN)
            if training:
                self.train_feed = feed
                self._go_on(feed)
            items = feed if not (training and state.stop) else ()
            for index, item in enumerate(items, feed.num_fetched):
                begin_batch(state, item, index, feed.wait_s)
                run_batch()
                if training and state.stop and not self._open:
                    break
            complete = not (training and state.stop) or state.is_last_batch
            self._close_window()
            self.bus.emit(Event.PASS_END)
            state.deliver_logs()
        return complete

    def _go_on(self, feed: Feed | None = None) -> None:
        if self.resume is not None and self.resume(feed):
            self.resume = None

    @property
    def window_is_open(self) -> bool:
        """Whether gradients of earlier batches wait for the end of an accumulation window."""
        return bool(self._open)

    def _train_batch(self) -> None:
        self._before_batch()
        self._begin_batch()
        grad_scale, num_batches = self.state.grad_scale, self.state.num_batches
        turns = [turn for turn in self.bus.turns if turn is None or turn.fires(num_batches)]
        for turn in turns:
            self._enter(turn)
            self.state.grad_scale = grad_scale  # each turn scales its own loss
            if turn is not None:  # it may not have run where the window opened
                self.state.opens_update = turn not in self._open
            self.run_step()
            end_region(self.state)
            self._note_window(turn)
        late = self._complete_turns() if self._open and self.state.closes_update else 0
        self.bus.use(None)
        count_batch(self.state, updated=bool(turns) or late > 0)
        stop_if_spent(self.state)
        self.bus.emit(Event.BATCH_END)
        self._serve_requests()

    def _begin_batch(self) -> None:
        self.bus.emit(Event.BATCH_BEGIN)
        self.state.take_over()

    def _enter(self, turn: Turn | None) -> None:
        self.bus.use(turn)
        self.state.turn = turn.name if turn else None

    def _eval_batch(self) -> None:
        self._begin_batch()
        self.run_step()
        end_region(self.state)
        self.bus.emit(Event.BATCH_END)

    def run_region(self) -> None:
        """Fire the events of the step region for the current batch and turn, eagerly."""
        self.run_update()
        self.run_metrics()

    run_step = run_region

    def run_metrics(self) -> None:
        """Fire the last event of the step region, in the phases that have it."""
        if Event.UPDATE_METRICS in REGION[self.state.phase]:
            with torch.no_grad():
                self.bus.emit(Event.UPDATE_METRICS)
                if PACKED in self.state.needs:
                    pack(self.state)

    def run_update(self) -> None:
        """Fire the events of the step region up to the update of the weights."""
        emit, state = self.bus.emit, self.state
        if state.phase is not Phase.TRAIN:
            for event in REGION[state.phase]:
                if event is not Event.UPDATE_METRICS:
                    emit(event)
            return
        if state.opens_update:
            emit(Event.ZERO_GRAD)
        emit(Event.FORWARD)
        emit(Event.LOSS)
        emit(Event.LOSS_READY)
        emit(Event.BACKWARD)
        if state.closes_update:
            with torch.no_grad():
                emit(Event.GRADS_READY)
                emit(Event.APPLY)

    def _note_window(self, turn: Turn | None) -> None:
        """Remember whether the window of a turn is open, and the loss of its latest batch."""
        if self.state.closes_update:
            self._open.pop(turn, None)
        else:
            self._open[turn] = self.state.peek("loss"), self.state.losses

    def _complete_turns(self) -> int:
        """Make the updates of all open windows; return how many.

        Their turns have not run in the last batch of the window, or the loader has ended before.
        """
        state, turns = self.state, [turn for turn in self.bus.turns if turn in self._open]
        for turn in turns:
            self._enter(turn)
            state.opens_update = False
            loss, state.losses = self._open.pop(turn)  # by now those of another turn may be there
            state.unset(["loss"]) if loss is UNSET else setattr(state, "loss", loss)
            with torch.no_grad():
                self.bus.emit(Event.GRADS_READY)
                self.bus.emit(Event.APPLY)
            count_turn(state)
        return len(turns)

    def _close_window(self) -> None:
        """Complete an accumulation window that the end of the loader left open."""
        if self.state.phase is Phase.TRAIN and self._open:
            self._complete_turns()
            self.bus.use(None)
            self.state.num_updates += 1
            stop_if_spent(self.state)
        self.state.packed = None  # what is logged from here on is of the pass alone

    def _serve_requests(self) -> None:
        state = self.state
        if state.requests and not state.stop:  # a stop saves at the pass's end, validates no more
            packed, state.packed = state.packed, None  # as at PASS_END
            for event in sorted(state.requests):
                self.bus.emit(event)
            state.packed = packed
        state.requests.clear()


def nothing_recorded() -> str:
    """Return what there is to report without a `Record`."""
    return "nothing is recorded: attach Record() to the loop"


def _is_stopping(state: State, open_turns: Collection[Turn | None]) -> bool:
    """Whether an error of a loader is the end of the run: a signal ends its workers, too."""
    if state.stop_signal is None:
        return False
    if state.phase is Phase.TRAIN and not open_turns:
        return True
    raise ending_of(state.stop_signal)  # half a window, half a validation: nothing to save
