"""The settings of a run with the results it came to, for TensorBoard's tab "hparams"."""

import time
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast, final

import numpy as np
from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.loop.applied import applied_optimizers
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.rates import rates_of
from fitkit.watch.run_files import WHOLE_RUN, RunFiles

__all__ = ["HParams", "settings_of"]


@final
class HParams(Board):
    """Tell TensorBoard the settings of a run, so that runs can be compared by their results.

    The results are loss and metrics of training and validation, written after each epoch: the tab
    shows the latest, while the run is going on and when it is over. Which they are is told once,
    with the first validation. A run that ended well says so; one that did not may yet be resumed.
    Start TensorBoard one folder above the runs to see them side by side.

    Args:
        hparams: Settings by name: numbers, text, true or false. Optimizer, learning rate and batch
            size are there without being asked for; a setting of that name replaces them.
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  the optimizers of the loop, state.logs.
    Writes: files, from the main process only: the table, and its numbers as `results/<name>`.
    Logs:   nothing.
    Syncs:  once per fit, to read the learning rate.
    Raises: ConfigError if a setting is something else.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, HParams, TensorBoard, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        data = TensorLoader(torch.randn(64, 4), torch.randn(64, 1))
        loop = FitLoop(model, data, data)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(TensorBoard(tempfile.mkdtemp()), HParams({"units": 4, "dropout": 0.0}))
        loop.fit(epochs=2)
        ```
    """

    def __init__(
        self,
        hparams: Mapping[str, float | str | bool] | None = None,
        *,
        log_dir: str | Path | None = None,
    ) -> None:
        super().__init__(log_dir)
        self._given = _checked(hparams)
        self._settings: dict[str, float | str | bool] = {}
        self._has_results = False

    def on_fit_begin(self, state: State) -> None:
        """Write the settings."""
        super().on_fit_begin(state)
        if self.files is None or self._loop is None:
            return
        self._has_results = False
        self._settings = settings_of(self._loop) | self._given
        content = _plugin("plugin_data_pb2")
        start = content.SessionStartInfo(start_time_secs=time.time())
        for name, value in self._settings.items():
            kind = "bool" if isinstance(value, bool) else "string"
            kind = "number" if kind == "string" and not isinstance(value, str) else kind
            setattr(start.hparams[name], f"{kind}_value", value)
        self._write(self.files, "SESSION_START_INFO_TAG", session_start_info=start)
        self.files.flush()

    def on_save(self, state: State) -> None:
        """Write the results of the epoch; say which they are, once there are some."""
        if self.files is None or hasattr(state, "batch_index"):
            return
        if not self.awaits_validation:
            self._write_columns(self.files, state)
        values = {f"results/{name}": value for name, value in _results(state).items()}
        self.files.add(WHOLE_RUN, self.files.axis.of_epoch(state), time.time(), values)
        self.files.flush()

    def on_fit_end(self, state: State) -> None:
        """Note that the run came to its end; one that was cut short may yet be resumed."""
        if self.files is not None:
            self._write_columns(self.files, state)
            status = _plugin("api_pb2").Status.Value("STATUS_SUCCESS")
            end = _plugin("plugin_data_pb2").SessionEndInfo(
                status=status, end_time_secs=time.time()
            )
            self._write(self.files, "SESSION_END_INFO_TAG", session_end_info=end)
            self.files.flush()

    def _write_columns(self, files: RunFiles, state: State) -> None:
        if not self._has_results:  # TensorBoard takes the first ones it finds
            self._has_results = True
            experiment = self._experiment(files, _results(state))
            self._write(files, "EXPERIMENT_TAG", experiment=experiment)

    def _experiment(self, files: RunFiles, results: Iterable[str]) -> Any:
        """Return the columns of the table."""
        api = _plugin("api_pb2")
        kinds: dict[Any, str] = {str: "STRING", bool: "BOOL"}
        settings = [
            api.HParamInfo(name=name, type=f"DATA_TYPE_{kinds.get(type(value), 'FLOAT64')}")
            for name, value in self._settings.items()
        ]
        metrics = [
            api.MetricInfo(name=api.MetricName(tag=files.tag(f"results/{name}")), display_name=name)
            for name in results
        ]
        return api.Experiment(
            hparam_infos=settings, metric_infos=metrics, time_created_secs=time.time()
        )

    def _write(self, files: RunFiles, tag: str, **content: Any) -> None:
        metadata = _plugin("metadata")
        data = _plugin("plugin_data_pb2").HParamsPluginData(**content)
        fields = {
            "metadata": metadata.create_summary_metadata(data),
            "tensor": metadata.NULL_TENSOR,
        }
        files.add_value(WHOLE_RUN, 0, time.time(), getattr(metadata, tag), **fields)


def settings_of(loop: Any) -> dict[str, float | str | bool]:
    """Return what the loop itself knows: its optimizers, their rates, the batch size. Syncs: once.

    With turns the names of their settings begin with that of the turn.
    """
    found: dict[str, float | str | bool] = {}
    for turn, optimizer in applied_optimizers(loop).items():
        found[f"{turn} optimizer" if turn else "optimizer"] = type(optimizer).__name__
    rates = rates_of(loop)
    for name, rate in {**rates.of_step, **rates.of_host}.items():
        value = rate()
        found[name] = value.item() if isinstance(value, Tensor) else value  # sync: once per fit
        found[name] = float(f"{found[name]:.6g}")  # sync: none, a float32 has no more digits
    size = getattr(loop.train_loader, "batch_size", None)
    if isinstance(size, int):
        found["batch_size"] = size
    return found


def _results(state: State) -> dict[str, float]:
    """Return the logs that tell how good a run is, validation first."""
    found = {n: v for n, v in state.logs.items() if "/" not in n and not n.startswith("lr")}
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith("val_")))


def _plugin(name: str) -> Any:
    return import_module(f"tensorboard.plugins.hparams.{name}")


def _checked(hparams: Any) -> dict[str, float | str | bool]:
    if hparams is None:
        return {}
    if not isinstance(hparams, Mapping):
        raise ConfigError(
            f"HParams({brief(hparams)}) got a {type(hparams).__name__}, expected a dict\n"
            'Write HParams({"units": 64}).'
        )
    pairs = cast("Mapping[Any, Any]", hparams).items()
    given: dict[Any, Any] = {}
    for name, value in pairs:
        given[name] = value.item() if isinstance(value, np.generic) else value  # sync: none, numpy
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, int | float | str):
            raise ConfigError(
                f"HParams got {brief(name)}: {brief(value)}, expected a number, text, or a bool\n"
                "Give its settings one by one, or str(value)."
            )
    return given
