"""Curves for TensorBoard."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, get_args

from fitkit.errors import ConfigError
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.event_file import load_tensorboard
from fitkit.watch.run_files import RunFiles
from fitkit.watch.step_buffer import StepBuffer

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["TensorBoard"]

Axis = Literal["step", "epoch", "samples", "seconds"]


@final
class TensorBoard(Callback):
    """Write what is logged to event files: every update under `step/`, every pass under `epoch/`.

    Training goes to the folder `train`, validation to `val` (`val_<name>` with several loaders),
    under the same tags without "val_": TensorBoard draws epoch/loss of both into one chart.

    Args:
        log_dir: Where the folders are made; default is the loop's run_dir.
        x: The horizontal axis: completed updates, 0-based epochs, training samples, or seconds of
            training. With "epoch", step/ is drawn over updates all the same.
        flush_every: How many updates are collected on the device before they are written.
        clock: Seconds since 1970, for tests.

    Reads:  state.step_values, shape () each: the loss and all that is logged with `state.log`;
        state.logs.
    Writes: files, from the main process only.
    Logs:   nothing.
    Syncs:  once per `flush_every` updates and once per pass.
    Raises: ConfigError for an unknown axis or a `flush_every` below 1. A disk that fails is a
        warning, the first time only; nothing more is written then.

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
    after = ("Metrics",)

    def __init__(
        self,
        log_dir: str | Path | None = None,
        *,
        x: Axis = "step",
        flush_every: int = 100,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if x not in get_args(Axis):
            axes = ", ".join(f'"{axis}"' for axis in get_args(Axis))
            raise ConfigError(f"TensorBoard(x={x!r}) is no axis\nUse one of: {axes}.")
        self._log_dir = None if log_dir is None else Path(log_dir)
        self._axis: Axis = x
        self._flush_every = positive_int("flush_every", flush_every)
        self._clock = clock
        self._buffer = StepBuffer()
        self._files: RunFiles | None = None  # while fit is running, in the main process
        self._val_prefixes: set[str] = set()
        self._written: set[str] = set()
        self._began_s = self._seconds = 0.0
        self._epoch = 0

    def attach(self, loop: "FitLoop") -> None:
        """Import TensorBoard now, so that it is no surprise later."""
        self._val_prefixes = {f"val_{name}_" if name else "val_" for name in loop.val_loaders}
        if loop.is_main:
            load_tensorboard()

    def on_fit_begin(self, state: State) -> None:
        """Make the first file; evaluate and predict write nothing."""
        if not state.is_main:
            return
        self._began_s = self._clock() - self._seconds
        # Nothing is hidden on the epoch axis: step/ has another one in the same file.
        resumed = state.num_updates > 0 and self._axis != "epoch"
        self._files = RunFiles(
            state.run_dir if self._log_dir is None else self._log_dir,
            hide_from=self._x(state) + 1 if resumed else None,
        )
        self._files.open("train")

    def on_epoch_begin(self, state: State) -> None:
        """Forget which logs of the last epoch were written."""
        self._written.clear()
        self._epoch = state.epoch

    def on_batch_end(self, state: State) -> None:
        """Collect the scalars of a completed update."""
        if self._files is None or state.phase is not Phase.TRAIN or not state.closes_update:
            return
        if state.step_values:
            x = state.num_updates if self._axis == "epoch" else self._x(state)
            self._buffer.add(x, self._clock(), state.step_values, state.device)
        if len(self._buffer) >= self._flush_every:
            self._flush(self._files)

    def on_pass_end(self, state: State) -> None:
        """Write the steps of a training pass, or the results of a validation."""
        if self._files is None:
            return
        if state.phase is Phase.TRAIN:
            self._flush(self._files)
        elif state.prefix.startswith("val_"):
            self._val_prefixes.add(state.prefix)
            self._write(self._files, state, only=state.prefix)

    def on_epoch_end(self, state: State) -> None:
        """Write the logs of the epoch."""
        if self._files is not None:
            self._write(self._files, state)

    def on_save(self, state: State) -> None:
        """Write what was logged since, or the logs of an epoch that a stop has cut short."""
        if not hasattr(state, "batch_index"):  # not in mid-pass
            self.on_epoch_end(state)

    def on_close(self, state: State) -> None:
        """Write what is left, also after an error."""
        if self._files is not None:
            files, self._files = self._files, None
            self._seconds = self._clock() - self._began_s
            self._flush(files)
            files.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds trained so far: the x-axis goes on there."""
        running = self._clock() - self._began_s
        return {"seconds": self._seconds if self._files is None else running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the seconds."""
        self._seconds = state["seconds"]

    def _x(self, state: State) -> int:
        match self._axis:
            case "step":
                return state.num_updates
            case "epoch":
                return self._epoch
            case "samples":
                return state.num_samples
            case "seconds":
                return int(self._clock() - self._began_s)

    def _flush(self, files: RunFiles) -> None:
        for row in self._buffer.take():
            files.add("train", row.x, row.wall_s, {f"step/{k}": v for k, v in row.values.items()})
        files.flush()

    def _write(self, files: RunFiles, state: State, only: str | None = None) -> None:
        """Write the logs of one validation, or those of the epoch that were not written yet."""
        runs: dict[str, dict[str, float]] = {}
        for name, value in state.logs.items():
            prefix = max((p for p in self._val_prefixes if name.startswith(p)), key=len, default="")
            if prefix == only or (only is None and name not in self._written):
                tag = name.removeprefix(prefix)
                tag = tag if "/" in tag else f"epoch/{tag}"
                runs.setdefault(prefix.rstrip("_") or "train", {})[tag] = value
                self._written.add(name)
        for run, values in runs.items():
            files.add(run, self._x(state), self._clock(), values)
        files.flush()
