"""Save the state of a run, so that it can be resumed as if nothing had happened."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from fitkit.checkpoint.lock import FolderLock
from fitkit.checkpoint.policy import ranked, to_delete
from fitkit.checkpoint.writer import BackgroundWriter, Copier
from fitkit.errors import CheckpointWriteError, ConfigError, brief
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import Event, Phase
from fitkit.loop.interval import Interval, positive_int
from fitkit.loop.monitor import Monitor
from fitkit.loop.snapshot import snapshot, unsaved_optimizers
from fitkit.loop.state import State
from fitkit.store import Content, Store

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Checkpoint"]


@final
class Checkpoint(Callback):
    """Write checkpoints that survive a crash at any instant, and from which `fit(resume=)` goes on.

    A checkpoint is a folder: tensors as safetensors, the rest as JSON, with the SHA-256 of all of
    it. It is written under a temporary name and renamed when the disk has it. One is also written
    where the run ends. Saving waits for the end of an accumulation window.

    Args:
        dir: The folder; default is `checkpoints` in the run_dir of the loop.
        every: "1 epoch", "500 updates" or 500, "10 minutes".
        keep_last: So many of the newest stay; None keeps all. The one a run was resumed from stays.
        keep_best: So many of the best stay as well; default is 1 with a monitor, else 0.
        monitor: A key of `state.logs`, such as "val_loss". NaN is never best, nor is a checkpoint
            that was not validated: of weights some updates later the value is another one.
        mode: "min" or "max"; found from the name of the monitor if it is left out.
        async_: Copy the state and write it in a thread, while training goes on. The copy takes as
            much memory as the state, for the rest of the run.
        on_error: "raise" ends the run if a checkpoint cannot be written, "warn" goes on without.

    Reads:  all of the run's state, at SAVE: after every other callback.
    Writes: files.
    Logs:   nothing.
    Syncs:  once per checkpoint and tensor, on a GPU.
    Raises: ConfigError for an argument out of range, a folder that cannot be used or is in use, a
        monitor nobody logs, or a folder with checkpoints of a run that is not resumed;
        CheckpointWriteError if the disk does not take a checkpoint.

    Attributes:
        best: The folder of the checkpoint with the best monitored value, None if there is none.

    Example:
        ```python
        import tempfile
        import torch
        from fitkit import Checkpoint, FitLoop, TensorLoader, supervised

        def make_loop(run_dir):
            model = torch.nn.Linear(4, 1)
            batches = TensorLoader(torch.ones(64, 4), torch.ones(64, 1))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            stack = supervised(loss=torch.nn.MSELoss(), optimizer=optimizer)
            return FitLoop(model, batches, callbacks=[*stack, Checkpoint()], run_dir=run_dir)

        run_dir = tempfile.mkdtemp()
        make_loop(run_dir).fit(epochs=2)
        history = make_loop(run_dir).fit(epochs=5, resume="auto")  # three more
        assert len(history) == 5
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True
    after = ("NaNGuard",)  # it looks before anything is saved

    def __init__(
        self,
        dir: str | Path | None = None,  # what it is
        *,
        every: int | str = "1 epoch",
        keep_last: int | None = 3,
        keep_best: int | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] | None = None,
        async_: bool = False,
        on_error: Literal["raise", "warn"] = "raise",
    ) -> None:
        self._interval = Interval.parse(every)
        self._keep_last = None if keep_last is None else positive_int("keep_last", keep_last)
        self._keep_best = 1 if keep_best is None and monitor else (keep_best or 0)
        if keep_best:
            positive_int("keep_best", keep_best)
        _check_choice("on_error", on_error, ("raise", "warn"))
        if monitor is None and (self._keep_best or mode is not None):
            raise ConfigError(
                f"Checkpoint(keep_best={keep_best}, mode={mode!r}) lacks what to compare\n"
                'Name the value: monitor="val_loss".'
            )
        self._monitor = None if monitor is None else Monitor("Checkpoint", monitor, mode=mode)
        if self._monitor is not None:
            self.phases = frozenset({Phase.TRAIN, Phase.VAL})
        self._warns = on_error == "warn"
        self._writer = BackgroundWriter() if async_ else None
        self._copier = Copier()
        self._dir = None if dir is None else Path(dir)
        self._asked = False
        self._lock: FolderLock | None = None
        self._saved_at: tuple[Any, ...] | None = None
        self._told: set[str] = set()
        self._has_value = False  # whether any checkpoint has got a monitored value

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: all of it is saved."""
        self._loop = loop
        self.store = Store(self._dir or loop.run_dir / "checkpoints")

    @property
    def best(self) -> Path | None:
        """The folder of the best checkpoint there is; None without a monitor or a save."""
        if self._monitor is None or not hasattr(self, "store"):  # or not attached yet
            return None
        names = ranked(self.store.metas(), self._monitor.mode)
        return self.store.folder / names[0] if names else None

    def on_open(self, state: State) -> None:
        """Take the folder, before others at FIT_BEGIN set aside what an earlier run has written."""
        if self._loop.running != "fit":
            return
        if state.is_main and self._lock is None:
            self._take_folder()
        if self._saved_at is None and self._loop.resumed_from is None:
            try:
                self._check_unused()
            except ConfigError:
                self._give_folder_back()  # what was not opened is not closed
                raise

    def on_fit_begin(self, state: State) -> None:
        """Start the interval."""
        if self._monitor is not None:
            self._monitor.check(self._loop)
        self._interval.start(state)
        self._asked = False
        for callback, optimizer in unsaved_optimizers(self._loop.callbacks):
            warnings.warn(
                f"{type(callback).__name__} holds {type(optimizer).__name__}, which nobody saves\n"
                "A resumed run would begin it anew: write state_dict and load_state_dict for "
                f"{type(callback).__name__}.",
                stacklevel=2,
            )

    def on_epoch_begin(self, state: State) -> None:
        """Forget the validations of the last epoch."""
        if self._monitor is not None:
            self._monitor.begin_epoch()

    def on_pass_end(self, state: State) -> None:
        """Remember that there was a validation."""
        if self._monitor is not None:
            self._monitor.at_pass_end(state)

    def on_batch_end(self, state: State) -> None:
        """Ask for a SAVE if one is due, and the updates so far are complete."""
        if state.phase is not Phase.TRAIN:
            return
        if self._writer is not None:
            self._guarded(self._writer.check)
        if (self._asked or self._interval.due(state)) and self._is_whole(state):
            state.request(Event.SAVE)

    def on_save(self, state: State) -> None:
        """Save if it was requested, if it is due, or if the run ends here."""
        if hasattr(state, "phase"):  # in mid-pass, where somebody has requested it
            self._asked = not self._is_whole(state)
            if self._asked:
                return
        else:
            if self._monitor is not None and not state.stop:
                self._monitor.of_epoch(state)  # raises, also where nothing is saved yet
            if not (self._asked or self._interval.due(state) or _ends(state)):
                return
        self._asked = False
        self._interval.mark(state)
        if state.is_main and not any(getattr(c, "is_trial", False) for c in self._loop.callbacks):
            self._save(state)

    def on_close(self, state: State) -> None:
        """Wait for what is being written; give the folder back."""
        try:
            if self._writer is not None:
                self._guarded(self._writer.wait)
        finally:
            self._give_folder_back()

    def _is_whole(self, state: State) -> bool:
        """Return whether no window is open, and the end of the epoch does not save anyway."""
        return not self._loop.runner.window_is_open and not state.is_last_batch

    def _save(self, state: State) -> None:
        position = (state.num_updates, state.num_batches, state.epoch)
        if position == self._saved_at:
            return
        self._saved_at = position
        content = snapshot(self._loop)
        content.meta["monitored"] = self._monitored(state)
        if self._writer is None:
            self._guarded(lambda: self._write(content))
        else:
            writer = self._writer
            self._guarded(writer.wait)  # it reads the memory of the last copy
            copied = self._copier.copy(content)
            writer.start(lambda: self._write(copied))

    def _write(self, content: Content) -> None:
        self.store.write(content)
        resumed = self._loop.resumed_from
        kept = resumed.name if resumed and resumed.parent == self.store.folder else None
        metas = self.store.metas()
        mode = "min" if self._monitor is None else self._monitor.mode
        delete = to_delete(metas, self._keep_last, self._keep_best, mode, kept)
        self.store.delete(delete)

    def _guarded(self, action: Any) -> None:
        try:
            action()
        except CheckpointWriteError as error:
            if not self._warns:
                raise
            warnings.warn(str(error), stacklevel=2)

    def _monitored(self, state: State) -> float | None:
        if self._monitor is None:
            return None
        value = self._monitor.of_weights(state)
        self._has_value |= value is not None
        doubt = self._monitor.doubt(value, state)
        is_end = not hasattr(state, "phase") and not state.stop  # of an epoch
        counts = value is not None or (is_end and not self._has_value)
        if doubt and counts and doubt not in self._told:
            self._told.add(doubt)
            warnings.warn(f"Checkpoint after {state.num_updates} updates: {doubt}", stacklevel=2)
        return value

    def state_dict(self) -> dict[str, Any]:
        """Return when the monitored value was logged."""
        return {} if self._monitor is None else {"monitor": self._monitor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it, where it was saved."""
        if self._monitor is not None and "monitor" in state:
            self._monitor.load_state_dict(state["monitor"])

    def _take_folder(self) -> None:
        folder = self.store.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(folder)
        except OSError as error:
            raise ConfigError(
                f"checkpoints cannot be written to {folder}: {error.strerror or error}\n"
                "Give a folder that can be written to: Checkpoint(dir), or FitLoop(..., run_dir=)."
            ) from error
        self.store.sweep()

    def _give_folder_back(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _check_unused(self) -> None:
        names = self.store.names()
        if names:
            raise ConfigError(
                f"{self.store.folder} holds checkpoints of a run, the newest is {names[-1]}\n"
                'Go on with fit(..., resume="auto"), or begin anew in another run_dir.'
            )


def _ends(state: State) -> bool:
    """Return whether this is the last SAVE of the run."""
    return state.stop or (state.max_epochs is not None and state.epoch >= state.max_epochs)


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{argument}={brief(value)} is unknown\nUse one of: {', '.join(map(repr, choices))}."
        )
