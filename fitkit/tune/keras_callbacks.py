"""Callbacks of Keras in a `FitLoop`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, cast, final
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from fitkit.data import length
from fitkit.errors import ConfigError, brief
from fitkit.interop import is_keras
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.tune.keras_hooks import listens, watches
from fitkit.tune.lazy_logs import LazyLogs

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["KerasCallbacks"]

_GIVEN = ("params", "_model", "validation_data")  # by set_params and set_model, in every run
_KIND = {Phase.TRAIN: "train", Phase.VAL: "test", Phase.PREDICT: "predict"}


class _Pass(NamedTuple):
    """What is the same for all batches of a pass."""

    at_begin: Sequence[Any] = ()  # hooks of those that have one
    at_end: Sequence[Any] = ()
    read: Callable[[], dict[str, Any]] = dict  # the logs so far
    read_one: Callable[[str], float | None] | None = None  # one of them, where that is faster


@final
class KerasCallbacks(Callback):
    """Run callbacks of Keras as they are: EarlyStopping, ModelCheckpoint, CSVLogger, your own.

    They are called in their order, at the moments and with the logs they know from `model.fit`:
    running means after a batch, `val_` values at the end of an epoch. List this after the stack, so
    that it sees what the stack has logged. `model.stop_training = True` ends the run. A model that
    was not compiled has the Keras optimizer of the loop as `model.optimizer` while it runs.

    Unlike in Keras, an epoch that a callback cuts short is not validated before its end.

    Args:
        callbacks: `keras.callbacks.Callback` instances.

    Reads:  state.logs; after a batch the metrics so far.
    Writes: model.stop_training, model.optimizer, and what the callbacks write; state.epoch, where
        BackupAndRestore goes on.
    Logs:   what they add to the logs of an epoch, such as learning_rate by LearningRateScheduler.
    Syncs:  once per batch if one of them reads the logs of a batch, and each time it reads the loss
        alone; otherwise never itself.
    Raises: TypeError if one is no Keras callback, or the model is no Keras model.

    Example:
        ```python
        import keras
        from fitkit import FitLoop, KerasCallbacks, TensorLoader, supervised

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        data = TensorLoader(keras.random.normal((64, 4)), keras.random.normal((64, 1)))
        loop = FitLoop(model, data, data)
        loop.attach(supervised(loss="mse", optimizer="sgd"))
        stop = keras.callbacks.EarlyStopping(patience=2)
        loop.attach(KerasCallbacks([stop]))
        loop.fit(epochs=5)
        ```
    """

    after = ("Metrics", "CompiledRun", "TrainMode")
    runs_other_code = True

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = _checked(callbacks)
        self._pass = _Pass()
        self._epoch_is_open = False
        self._lends_optimizer = False

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its callbacks know the metrics so far."""
        if not is_keras(loop.model, "Model"):
            raise TypeError(
                f"KerasCallbacks got the model {type(loop.model).__name__}, expected a "
                "keras.Model\nUse callbacks of fitkit for a torch module."
            )
        self._loop = loop

    def on_open(self, state: State) -> None:
        """Hand out the model and the parameters of the run."""
        model: Any = state.model
        self._lend_optimizer(model)
        loader = self._loop.train_loader
        steps = None if loader is None else length(loader)
        for callback in self.callbacks:
            callback.set_params({"verbose": 1, "epochs": state.max_epochs or 0, "steps": steps})
            callback.set_model(model)
            if is_keras(callback, "callbacks.History"):
                model.history = callback

    def on_fit_begin(self, state: State) -> None:
        """Call on_train_begin; go on where BackupAndRestore says."""
        model: Any = state.model
        model.stop_training = False
        model._initial_epoch = None
        self._call("on_train_begin", {})
        if model._initial_epoch is not None:
            state.epoch = max(state.epoch, model._initial_epoch)
        self._read_stop(state)

    def on_epoch_begin(self, state: State) -> None:
        """Call on_epoch_begin."""
        self._epoch_is_open = True
        self._call("on_epoch_begin", state.epoch, {})

    def on_pass_begin(self, state: State) -> None:
        """Call on_test_begin or on_predict_begin; find out who listens to batches."""
        self.only_watches = all(map(watches, self.callbacks))
        kind = _KIND[state.phase]
        at_begin, at_end = (
            [getattr(each, name) for each in self.callbacks if listens(each, name)]
            for name in (f"on_{kind}_batch_begin", f"on_{kind}_batch_end")
        )
        known = (each for each in self._loop.callbacks if hasattr(each, "running"))
        metrics = next(known, None)
        means = getattr(metrics, "running_means", None)
        state.exits.callback(setattr, self, "_pass", self._pass)
        read = partial(_running, state, metrics)
        self._pass = _Pass(at_begin, at_end, read, means(state) if means else None)
        if state.phase is not Phase.TRAIN:
            self._call(f"on_{kind}_begin", {})

    def on_batch_begin(self, state: State) -> None:
        """Call the batch hooks of those that have one."""
        for hook in self._pass.at_begin:
            hook(state.batch_index, {})

    def on_batch_end(self, state: State) -> None:
        """Call the batch hooks of those that have one, with logs that are read when looked at."""
        _, hooks, read, read_one = self._pass
        if hooks:
            logs = LazyLogs(read, read_one)
            for hook in hooks:
                hook(state.batch_index, logs)
            kept = ref(logs)
            del logs
            if (logs := kept()) is not None:  # somebody keeps them
                logs.settle()
        if getattr(state.model, "stop_training", False):  # by a hook of BATCH_BEGIN, too
            self._read_stop(state)

    def on_pass_end(self, state: State) -> None:
        """Call on_test_end or on_predict_end."""
        if state.phase is Phase.VAL:
            own = {k: v for k, v in state.logs.items() if k.startswith(state.prefix)}
            self._call("on_test_end", {k.removeprefix(state.prefix): v for k, v in own.items()})
        elif state.phase is Phase.PREDICT:
            self._call("on_predict_end", {})
        self._read_stop(state)

    def on_epoch_end(self, state: State) -> None:
        """Call on_epoch_end with everything Keras would log."""
        self._epoch_is_open = False
        logs = _as_keras(state.logs)
        self._call("on_epoch_end", state.epoch, logs)
        state.logs.update({name: value for name, value in logs.items() if isinstance(value, Real)})
        self._read_stop(state)

    def on_fit_end(self, state: State) -> None:
        """Call on_train_end; before it on_epoch_end, if one of them has cut the epoch short."""
        model: Any = state.model
        if self._epoch_is_open and model.stop_training:
            self.on_epoch_end(state)
        self._call("on_train_end", _as_keras(state.logs))

    def on_close(self, state: State) -> None:
        """Take the optimizer back."""
        self._epoch_is_open = False
        if self._lends_optimizer:
            self._lends_optimizer = False
            del state.model.optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes of the callbacks that can be saved: numbers, weights, lists."""
        return {key: _attributes(each) for key, each in self._keyed().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        for key, callback in self._keyed().items():
            cast("dict[str, Any]", vars(callback)).update(state.get(key, {}))

    def _keyed(self) -> dict[str, Any]:
        return {f"{n}:{type(each).__name__}": each for n, each in enumerate(self.callbacks)}

    def _call(self, name: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(*args)

    def _read_stop(self, state: State) -> None:
        if getattr(state.model, "stop_training", False) and not state.stop:
            names = ", ".join(type(callback).__name__ for callback in self.callbacks)
            state.request_stop(f"model.stop_training was set by one of: {names}")

    def _lend_optimizer(self, model: Any) -> None:
        held = [getattr(callback, "optimizer", None) for callback in self._loop.callbacks]
        found = [each for each in held if is_keras(each, "optimizers.Optimizer")]
        if len(found) == 1 and getattr(model, "optimizer", None) is None:
            model.optimizer = found[0]
            self._lends_optimizer = True


def _checked(callbacks: Any) -> list[Any]:
    if not isinstance(callbacks, list | tuple):
        raise TypeError(
            f"KerasCallbacks got {brief(callbacks)}, expected a list of keras callbacks\n"
            "Write KerasCallbacks([keras.callbacks.EarlyStopping(patience=3)])."
        )
    given = list(cast("Iterable[Any]", callbacks))
    for index, callback in enumerate(given):
        if isinstance(callback, Callback):
            raise ConfigError(
                f"callbacks[{index}] is {type(callback).__name__}, a callback of fitkit\n"
                "Attach it to the loop itself: loop.attach(...)."
            )
        if not is_keras(callback, "callbacks.Callback"):
            raise TypeError(
                f"callbacks[{index}] is {brief(callback)}, expected a keras.callbacks.Callback\n"
                "Pass instances, for example keras.callbacks.EarlyStopping(patience=3)."
            )
    return given


def _attributes(callback: Any) -> dict[str, Any]:
    own = cast("dict[str, Any]", vars(callback))
    if "monitor_op" in own:
        # Keras finds it at the next epoch's end, and turns the sign of the other one then.
        own = own | {"monitor_op": None, "min_delta": abs(callback.min_delta)}
    return {n: v for n, v in own.items() if n not in _GIVEN and _is_plain(v)}


def _is_plain(value: Any) -> bool:
    """Return whether a checkpoint can hold it: no models, files, functions."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, cast("list[Any]", value)))
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        return all(isinstance(key, str | int) and _is_plain(item) for key, item in pairs)
    return value is None or isinstance(
        value, bool | int | float | str | Tensor | np.ndarray | np.generic
    )


def _as_keras(logs: Mapping[str, float]) -> dict[str, float]:
    """Return the logs Keras would have: no speeds, no rates, in alphabetical order."""
    own = ("lr", "lr_")
    names = sorted(name for name in logs if "/" not in name and not name.startswith(own[1]))
    return {name: logs[name] for name in names if name != own[0]}


def _running(state: State, metrics: Any) -> dict[str, Any]:
    """Return the logs of the pass so far, as floats where they are scalars."""
    if state.phase is Phase.PREDICT:
        return {"outputs": state.outputs}
    if metrics is not None:
        return _floats(metrics.running(state))
    return _floats(getattr(state, "step_logs", state.step_values))


def _floats(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat logs in alphabetical order, as floats what is a scalar on the device."""
    flat = _flat(logs)
    scalars = {k: v for k, v in flat.items() if isinstance(v, Tensor) and v.dim() == 0}
    if scalars:
        together = torch.stack([value.detach().double() for value in scalars.values()])
        numbers: list[float] = cast(Any, together).tolist()  # sync: once per batch, if it is read
        flat.update(zip(scalars, numbers, strict=True))
    return {name: flat[name] for name in sorted(flat)}


def _flat(logs: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in logs.items():
        result |= _flat(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else {}
        if not isinstance(value, Mapping):
            result[name] = value
    return result
