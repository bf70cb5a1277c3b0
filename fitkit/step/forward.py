"""FORWARD."""

import warnings
from collections.abc import Mapping
from inspect import signature
from typing import Any, cast, final

from fitkit.data import describe
from fitkit.data.structure import leaves
from fitkit.errors import DataError
from fitkit.interop import ignores_training, is_keras, keras_layers_of
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.state import State

__all__ = ["Forward"]


@final
class Forward(Callback):
    """Fill FORWARD: call the model on the inputs of the batch.

    A Keras model is called with `training=`, because `model.train()` changes nothing for Keras
    layers, and gets nested inputs as they are. Where no layer can tell the difference, the argument
    is left out: Keras passes it on through every layer. A torch module gets a dict of inputs as
    keyword arguments and a tuple or list of them as positional ones.

    Args:
        like_fit: Leave `training=` out, too, where the `call` of a Keras model does not take it, as
            `model.fit` does: a Dropout inside of such a model then never drops anything.

    Reads:  state.inputs, nested tensors of shape (batch, ...) on the loop's device; state.phase.
    Writes: state.outputs, whatever the model gives.
    Logs:   nothing.
    Syncs:  never by itself; some Keras layers do (seeded Dropout, masked RNNs).
    Raises: DataError if the model fails on inputs of another dtype than its weights. Warns of Keras
        layers inside a torch module whose forward() must tell them of training.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Forward, TensorLoader

        loop = FitLoop(torch.nn.Linear(4, 2), callbacks=[Forward()])
        assert loop.predict(TensorLoader(torch.randn(10, 4))).shape == (10, 2)
        ```
    """

    def __init__(self, *, like_fit: bool = False) -> None:
        self._like_fit = like_fit
        self._is_keras = False
        self._tells_training = False

    def on_pass_begin(self, state: State) -> None:
        """Ask once per pass how the model is called."""
        self._is_keras = is_keras(state.model, "Layer")
        self._tells_training = self._is_keras and not ignores_training(state.model)
        if not self._is_keras and state.phase is Phase.TRAIN:
            _warn_of_untold(state.model)
        if self._tells_training and self._like_fit:
            self._tells_training = state.model._call_has_training_arg

    def on_forward(self, state: State) -> None:
        """Call the model."""
        try:
            state.outputs = self._call(state.model, state.inputs, state.phase is Phase.TRAIN)
        except Exception as error:
            _explain(state.model, state.inputs, error)
            error.add_note(f"the model was given {describe(state.inputs)}")
            raise

    def _call(self, model: Any, inputs: Any, training: bool) -> Any:
        if self._tells_training:
            return model(inputs, training=training)
        if self._is_keras:
            return model(inputs)
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, list | tuple):
            return model(*inputs)
        return model(inputs)


def _warn_of_untold(model: Any) -> None:
    """Warn of Keras layers in a torch module that train as if they predicted."""
    untold = [layer for layer in keras_layers_of(model) if not ignores_training(layer)]
    if untold:
        warnings.warn(
            f"{type(model).__name__} holds Keras layers that must be told of training, first "
            f"'{untold[0].name}'\n"
            "model.train() changes nothing for them: call them with training=self.training in "
            "forward(), as Dropout and BatchNormalization of Keras need it.",
            stacklevel=2,
        )


def _explain(model: Any, inputs: Any, error: Exception) -> None:
    """Raise a DataError if it shows why the model failed on these inputs."""
    weights = next(model.parameters(), None)
    if isinstance(error, TypeError) and not is_keras(model, "Layer"):
        _check_arguments(model, inputs, error)
    if not isinstance(error, RuntimeError):
        return
    for path, leaf in leaves(inputs, "inputs"):
        if leaf.is_inference() and "nference" in str(error):
            raise DataError(
                f"{path} was made under torch.inference_mode(), training cannot use it\n"
                "Make the data outside of that mode, or clone it in the dataset or unpack=."
            ) from error
        if weights is not None and leaf.dtype != weights.dtype and "type" in str(error):
            raise DataError(
                f"{path} is {leaf.dtype}, the weights of the model are {weights.dtype}\n"
                f"Convert the data, for example x.to({weights.dtype}), in the dataset or unpack=."
            ) from error


def _check_arguments(model: Any, inputs: Any, error: TypeError) -> None:
    """Raise a DataError if the inputs are not what `forward` takes."""
    named = dict(cast("Mapping[str, Any]", inputs)) if isinstance(inputs, Mapping) else {}
    listed: list[Any] = cast("list[Any]", inputs) if isinstance(inputs, list | tuple) else [inputs]
    expected = signature(model.forward)
    try:
        expected.bind(**named) if named else expected.bind(*listed)
    except TypeError as reason:
        raise DataError(
            f"the inputs do not fit {type(model).__name__}.forward: {reason}\n"
            f"  given: {describe(inputs)}\n  expected: forward{expected}\n"
            "Say which part is what: FitLoop(..., unpack=lambda batch: (inputs, targets, None))."
        ) from error
