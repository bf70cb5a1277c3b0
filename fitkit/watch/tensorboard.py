"""Curves for TensorBoard."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from fitkit.loop.callback import Stack
from fitkit.loop.events import Phase
from fitkit.loop.host_number import host_number
from fitkit.loop.interval import positive_int
from fitkit.loop.packed import PACKED, packed_of
from fitkit.loop.state import State
from fitkit.watch.axis import Axis, Kind
from fitkit.watch.board import Board
from fitkit.watch.layout import layout_value, pairs_of
from fitkit.watch.rates import Rate, kept, rates_of
from fitkit.watch.run_files import WHOLE_RUN, RunFiles
from fitkit.watch.step_points import Batch, num_complete, points_of

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["TensorBoard"]

_LEAST, _MOST = 100, 1000  # batches that are written together


@dataclass(slots=True)  # side by side: a step leaves little of the host's data in the cache
class _Buffer:
    """What is needed after each step.

    Attributes:
        batches: What was logged and is not written yet.
        flush_at: The number of batches at which it is.
        place: Tells where an update stands on the horizontal axis.
        clock: Seconds since 1970.
        rates: What reads the learning rates that are not packed.
    """

    batches: list[Batch]
    flush_at: int
    place: Callable[[State], int]
    clock: Callable[[], float]
    rates: dict[str, Rate]


@final
class TensorBoard(Board):
    """Write what is logged to event files: every update under `step/`, every pass under `epoch/`.

    Training goes to the folder `train`, validation to `val` (`val_<name>` with several loaders),
    under the same tags without "val_": TensorBoard draws epoch/loss of both into one chart, and so
    does the tab "custom scalars" for all metrics at once. `TensorBoard.everything()` is the list of
    all callbacks that write for TensorBoard; see docs/tensorboard.md.

    Args:
        log_dir: Where the folders are made; default is the loop's run_dir.
        x: The horizontal axis: completed updates, 0-based epochs, training samples, or seconds of
            training, counted in thousandths. With "epoch", what is written per update goes to the
            folder `updates`, over updates, and validations within an epoch to `updates_val`.
        flush_every: How many batches are collected on the device before they are written. By
            default as many as come in a second, but no less than 100 and no more than 1000.
        clock: Seconds since 1970, for tests.

    Reads:  state.step_values, shape () each: the loss and all that is logged with `state.log`, also
        at BATCH_END behind this callback; of an update of several batches their mean over samples;
        state.logs; the learning rate of each optimizer.
    Writes: files, from the main process only.
    Logs:   nothing.
    Syncs:  once per `flush_every` batches and once per pass.
    Raises: ConfigError for an unknown axis or a `flush_every` below 1; TypeError for something in
        state.logs that is no number. A disk that fails is a warning, the first time only; nothing
        more is written then.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, TensorBoard, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        data = TensorLoader(torch.randn(64, 4), torch.randn(64, 1))
        loop = FitLoop(model, data, data, run_dir=tempfile.mkdtemp())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), TensorBoard())
        loop.fit(epochs=2)
        print(f"tensorboard --logdir {loop.run_dir}")
        ```
    """

    phases = frozenset({Phase.TRAIN, Phase.VAL})
    only_watches = True
    after = ("Metrics",)
    needs = frozenset({PACKED})

    def __init__(
        self,
        log_dir: str | Path | None = None,
        *,
        x: Kind = "step",
        flush_every: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(log_dir, axis=Axis(x, clock))
        self._clock = clock
        self._follows_pace = flush_every is None
        self._num_due = positive_int("flush_every", _LEAST if flush_every is None else flush_every)
        self._buffer: _Buffer | None = None  # while fit is running, in the main process
        self._val_prefixes: set[str] = set()
        self._written: set[str] = set()
        self._has_layout = False

    @staticmethod
    def everything(log_dir: str | Path | None = None, **options: Any) -> Stack:
        """Return all callbacks that write for TensorBoard, at their defaults, in run order.

        Args:
            log_dir: As in `TensorBoard`.
            options: `x`, `hparams`, `classes`, `image_shape`; see `fitkit.watch.everything`.
        """
        from fitkit.watch.everything import everything

        return everything(log_dir, **options)

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop, and the names of its validation loaders."""
        super().attach(loop)
        self._val_prefixes = {f"val_{name}_" if name else "val_" for name in loop.val_loaders}

    def on_fit_begin(self, state: State) -> None:
        """Make the first file; evaluate and predict write nothing."""
        super().on_fit_begin(state)
        if self.files is not None and self._loop is not None:
            self.files.open("train")
            rates = rates_of(self._loop)
            of_host = {name: kept(rate) for name, rate in rates.of_host.items()}
            place = self.files.axis.of_update
            self._buffer = _Buffer([], self._num_due, place, self._clock, of_host)
            state.rates = rates.of_step
            self._has_layout = False

    def on_epoch_begin(self, state: State) -> None:
        """Forget which logs of the last epoch were written."""
        self._written.clear()
        if self.files is not None:
            self.files.axis.begin_epoch(state)

    def on_batch_end(self, state: State) -> None:
        """Write the batches before, if they are many; keep what this one logs."""
        buffer = self._buffer
        if buffer is None or state.phase is not Phase.TRAIN:
            return
        batches = buffer.batches
        if len(batches) >= buffer.flush_at:
            self._flush()
        packed = state.packed
        if packed is None:
            packed = state.packed = packed_of(state)
        # After a step even the code of a call must be fetched from memory: none that is not needed.
        rates = [rate() for rate in buffer.rates.values()] if buffer.rates else ()
        x, wall_s = buffer.place(state), buffer.clock()
        batches.append((packed, state.batch_size, state.closes_update, x, wall_s, rates))

    def on_pass_end(self, state: State) -> None:
        """Write the steps of a training pass, or the results of a validation."""
        buffer = self._buffer
        if self.files is None or buffer is None:
            return
        if state.phase is Phase.TRAIN:
            if num_complete(buffer.batches) < len(buffer.batches):  # cut short by the loader's end
                packed, samples, _, _, wall_s, rates = buffer.batches[-1]
                buffer.batches[-1] = packed, samples, True, buffer.place(state), wall_s, rates
            self._flush()
            self.files.axis.is_within_epoch = False
        elif state.prefix.startswith("val_"):
            self._val_prefixes.add(state.prefix)
            self._write(self.files, state, only=state.prefix)

    def on_epoch_end(self, state: State) -> None:
        """Write the logs of the epoch."""
        if self.files is not None:
            self._write(self.files, state)

    def on_save(self, state: State) -> None:
        """Write what was logged since."""
        if self.files is None:
            return
        self._flush()  # a resumed run begins behind these steps
        if not hasattr(state, "batch_index"):  # not in mid-pass
            self._write(self.files, state)
            if not self.awaits_validation:
                self._lay_out(self.files, state)

    def on_fit_end(self, state: State) -> None:
        """Write the logs of an epoch that a stop has cut short; lay out the charts, if not yet."""
        if self.files is not None:
            self._write(self.files, state)
            self._lay_out(self.files, state)

    def on_close(self, state: State) -> None:
        """Write what is left, also after an error."""
        try:
            self._flush()
        finally:
            self._buffer = None
            super().on_close(state)

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds trained so far: the x-axis goes on there."""
        assert self.axis is not None  # noqa: S101  # made by the constructor
        return {"seconds": self.axis.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the seconds."""
        assert self.axis is not None  # noqa: S101  # made by the constructor
        (self.axis.stop if self.files is None else self.axis.start)(state["seconds"])

    def _lay_out(self, files: RunFiles, state: State) -> None:
        if not self._has_layout:  # TensorBoard takes the first one it finds
            self._has_layout = True
            charts = pairs_of(state.logs, self._val_prefixes, files.tag) | files.charts
            files.add_value(WHOLE_RUN, 0, self._clock(), **layout_value(charts))
            files.flush()

    def _flush(self) -> None:
        files, buffer, loop = self.files, self._buffer, self._loop
        if files is None or buffer is None or loop is None:
            return
        num = num_complete(buffer.batches)
        batches = buffer.batches[:num]
        del buffer.batches[:num]
        for points in points_of(batches, [*buffer.rates], loop.device):
            files.add_points(files.axis.of_updates_run, points, prefix="step/")
            seconds = points.walls_s[-1] - points.walls_s[0]
            if self._follows_pace and seconds > 0:
                self._num_due = min(max(_LEAST, int(len(points.xs) / seconds)), _MOST)
        buffer.flush_at = len(buffer.batches) + self._num_due
        files.flush()

    def _write(self, files: RunFiles, state: State, only: str | None = None) -> None:
        """Write the logs of one validation, or those of the epoch that were not written yet.

        The epoch has logged what stands in the history, which is first to see it at each event:
        what is logged at SAVE would be there or not by the order of the callbacks.
        """
        runs: dict[str, dict[str, float]] = {}
        rows = self._loop.history.rows if self._loop else []
        row = rows[-1] if rows else {}
        for name, value in state.logs.items():
            prefix = max((p for p in self._val_prefixes if name.startswith(p)), key=len, default="")
            if prefix == only or (only is None and name in row and name not in self._written):
                tag = name.removeprefix(prefix)
                tag = tag if "/" in tag else f"epoch/{tag}"
                runs.setdefault(prefix.rstrip("_") or "train", {})[tag] = host_number(name, value)
                self._written.add(name)
        for run, values in runs.items():
            run, x = files.axis.of_pass(state, run)
            files.add(run, x, self._clock(), values)
        files.flush()
