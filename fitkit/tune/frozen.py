"""A part of a model that can be frozen and thawed."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast, final

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from fitkit.errors import ConfigError, brief
from fitkit.interop import is_keras

__all__ = ["Frozen", "found_in"]


@final
class Frozen:
    """Parameters of a torch module, or layers of a Keras model.

    Args:
        layers: Keras layers, outer ones before those inside them.
        parameters: Parameters of torch modules, by name.
        norms: Normalization modules that go into eval mode.

    Attributes:
        names: What is held: names by the ids of the parameters.
        is_on: Whether it is frozen now.
    """

    def __init__(
        self,
        *,
        layers: Iterable[Any] = (),
        parameters: Mapping[str, nn.Parameter] | None = None,
        norms: Iterable[nn.Module] = (),
    ) -> None:
        self._layers, self._norms = list(layers), list(norms)
        self._parameters = dict(parameters or {})
        variables = [v for layer in self._layers for v in layer.weights]
        self.names = {id(v.value): v.path for v in variables}
        self.names |= {id(p): name for name, p in self._parameters.items()}
        self.is_on = False
        self._flags: list[tuple[Any, str, bool]] = []  # as they were
        self._modes: list[tuple[nn.Module, bool]] = []

    def freeze(self) -> None:
        """Freeze what is trainable; done again, it only puts normalization into eval mode."""
        if not self.is_on:
            self.is_on = True
            self._flags = [(p, "requires_grad", p.requires_grad) for p in self._parameters.values()]
            for layer in self._layers:
                self._flags += [(each, "trainable", each.trainable) for each in _inside(layer)]
            for thing, name, _ in self._flags:
                setattr(thing, name, False)
            for tensor in self._tensors():
                tensor.grad = None
        self._modes = self._modes or [(norm, norm.training) for norm in self._norms]
        for norm in self._norms:
            norm.training = False

    def restore_modes(self) -> None:
        """Put the modes of normalization back; they belong to a pass."""
        for norm, was in self._modes:
            norm.training = was
        self._modes = []

    def thaw(self) -> None:
        """Put the flags back."""
        self.restore_modes()
        if not self.is_on:
            return
        self.is_on = False
        for thing, name, was in self._flags:  # outer layers first: they set those inside them
            setattr(thing, name, was)

    def _tensors(self) -> list[Tensor]:
        variables = [v.value for layer in self._layers for v in layer.weights]
        return [*self._parameters.values(), *variables]


def found_in(model: nn.Module, what: Any) -> Frozen:
    """Return what a user has named.

    Raises:
        ConfigError: If nothing has such a name, or is a part of the model.
    """
    wanted = list(cast("Iterable[Any]", what)) if isinstance(what, list | tuple | set) else [what]
    if is_keras(model, "Layer"):
        return Frozen(layers=_layers_in(model, wanted))
    return _parameters_in(model, wanted)


def _layers_in(model: Any, wanted: list[Any]) -> list[Any]:
    inner = [layer for layer in model._flatten_layers() if layer is not model]
    found: dict[int, Any] = {}
    for each in wanted:
        matching = [layer for layer in inner if layer is each or _has_name(layer.name, each)]
        if not matching:
            raise _nothing(each, [layer.name for layer in inner])
        found.update((id(layer), layer) for layer in matching)
    within = {id(part) for layer in found.values() for part in _inside(layer)[1:]}
    return [layer for key, layer in found.items() if key not in within]


def _parameters_in(model: nn.Module, wanted: list[Any]) -> Frozen:
    named = dict(model.named_parameters())
    modules = dict(cast("Iterable[tuple[str, nn.Module]]", model.named_modules()))
    found: dict[str, nn.Parameter] = {}
    norms: list[nn.Module] = []
    for each in wanted:
        heads = [n for n, m in modules.items() if n and (m is each or _has_name(n, each))]
        inside = [m for head in heads for n, m in modules.items() if f"{n}.".startswith(f"{head}.")]
        names = [n for n in named if any(n.startswith(f"{head}.") for head in heads)]
        names += [name for name in named if _has_name(name, each)]
        if not names:
            raise _nothing(each, [*(name for name in modules if name), *named])
        found.update((name, named[name]) for name in names)
        norms += inside
    held = set(map(id, found.values()))
    norms += [m for m in modules.values() if isinstance(m, _NormBase) and m.affine]
    chosen = {
        id(m): m
        for m in norms
        if isinstance(m, _NormBase) and all(id(p) in held for p in m.parameters())
    }
    return Frozen(parameters=found, norms=chosen.values())


def _has_name(name: str, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return fnmatchcase(name, wanted)
    if isinstance(wanted, nn.Module) or not callable(wanted):
        return False
    return bool(cast("Callable[[str], Any]", wanted)(name))


def _inside(layer: Any) -> list[Any]:
    """Return a layer and all layers in it, and the variables, outer ones first."""
    layers: list[Any] = list(layer._flatten_layers())
    return [*layers, *layer.weights]


def _nothing(wanted: Any, known: list[str]) -> ConfigError:
    names = ", ".join(dict.fromkeys(known))
    return ConfigError(
        f"Freeze({brief(wanted)}) names nothing in the model that has weights\n"
        f"Names are: {names if len(names) < 300 else names[:300] + ' ...'}.\n"
        "Give one of these, a pattern with *, or the layer or module itself."
    )
