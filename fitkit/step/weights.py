"""The weights an update changes, listed once and again only when what is trainable changes."""

from typing import Any

from torch import Tensor, nn

from fitkit.interop import KerasOptimizer, KerasVariable, is_keras, keras, optimizer_variables

__all__ = ["Weights"]


class Weights:
    """The trainable weights of a model as Keras variables, with their tensors.

    A parameter of a torch module becomes a `keras.Variable` that shares its storage, so a Keras
    optimizer can drive any module. Listing the variables of a Keras model walks all its layers, so
    it is done once per pass, and where the `requires_grad` flags differ from those of the step
    before: `layer.trainable = False` takes effect at the next one.

    Args:
        optimizer: What it has wrapped itself, in another loop, is not wrapped again.
    """

    def __init__(self, optimizer: KerasOptimizer) -> None:
        self._optimizer = optimizer
        self._model: Any = None
        self._parameters: list[nn.Parameter] = []
        self._wrapped: dict[Tensor, KerasVariable] = {}
        self._flags: list[bool] = []
        self.variables: list[KerasVariable] = []
        self.tensors: list[Tensor] = []

    def track(self, model: nn.Module) -> None:
        """List the weights of `model`; called once per pass, it walks all layers."""
        self._model = model
        for variable in optimizer_variables(self._optimizer):
            self._wrapped.setdefault(variable.value, variable)
        self._parameters = list(model.parameters())
        self._flags = []
        self.refresh()

    def refresh(self) -> None:
        """List again if a weight was frozen or unfrozen since the last call. Syncs: never."""
        flags = [parameter.requires_grad for parameter in self._parameters]
        if flags != self._flags:
            self._flags = flags
            self.variables = self._list()
            self.tensors = [variable.value for variable in self.variables]

    def _list(self) -> list[KerasVariable]:
        if is_keras(self._model, "Layer"):
            return list(self._model.trainable_variables)
        named = self._model.named_parameters()
        return [self._wrap(name, p) for name, p in named if p.requires_grad]

    def _wrap(self, name: str, parameter: nn.Parameter) -> KerasVariable:
        if parameter not in self._wrapped:  # a tensor hashes by identity
            self._wrapped[parameter] = keras().Variable(parameter, name=name.replace("/", "_"))
        return self._wrapped[parameter]
