"""The optimizer of a loop, and its hyper-parameters by name."""

from typing import TYPE_CHECKING, Any, Protocol, cast, final

from torch import Tensor
from torch.optim import Optimizer

from fitkit.errors import ConfigError
from fitkit.interop import innermost, is_keras
from fitkit.loop.applied import applied_optimizers

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Setting", "build_optimizers", "held_optimizer", "setting_of"]


def held_optimizer(loop: "FitLoop", given: Any, owner: str) -> tuple[Any, str | None]:
    """Return the optimizer a callback acts on, with the name of its turn.

    Args:
        loop: The loop whose callbacks apply it.
        given: What the user named; None is the only one there is.
        owner: The class that asks, for messages.

    Raises:
        ConfigError: If there is none, more than one, or `given` is not among them.
    """
    found = {id(each): (each, turn) for turn, each in applied_optimizers(loop).items()}
    if given is not None and id(given) in found:
        return found[id(given)]
    if given is None and len(found) == 1:
        return next(iter(found.values()))
    names = ", ".join(type(optimizer).__name__ for optimizer, _ in found.values())
    if given is not None:
        raise ConfigError(
            f"{owner}(optimizer=...) got {type(given).__name__}, which no callback applies\n"
            f"The loop applies: {names or 'none'}.\n"
            "Pass the very instance that was given to the stack."
        )
    raise ConfigError(
        f"{owner} found {len(found)} optimizers in the loop, expected one: {names or 'none'}\n"
        f"Say which one: {owner}(..., optimizer=optimizer)."
    )


def build_optimizers(loop: "FitLoop") -> None:
    """Let Keras optimizers make their slots now, for everything that is trainable now.

    Called at PASS_BEGIN, after the callbacks that apply them: these list the weights there.
    """
    for callback in loop.callbacks:
        build: Any = getattr(callback, "build_optimizer", None)
        if build is not None:
            build()
    for optimizer in applied_optimizers(loop).values():
        if is_keras(optimizer, "optimizers.Optimizer") and not optimizer.built:
            optimizer.build(loop.model.trainable_variables)


class Setting(Protocol):
    """A hyper-parameter of an optimizer: one number per parameter group."""

    def read(self) -> list[float]:
        """Return the numbers as they are."""
        ...

    def write(self, values: list[float]) -> None:
        """Set the numbers."""
        ...


def setting_of(optimizer: Any, name: str, owner: str) -> Setting:
    """Return the hyper-parameter `name` ("lr", "weight_decay", "momentum", ...) of an optimizer.

    "momentum" is the first beta where an optimizer has betas.

    Raises:
        ConfigError: If the optimizer does not have it.
    """
    if isinstance(optimizer, Optimizer):
        return _OfTorch(optimizer, name, owner)
    optimizer = innermost(optimizer)
    if is_keras(optimizer, "optimizers.MultiOptimizer"):
        raise ConfigError(
            f"{owner} cannot act on a MultiOptimizer, which has several of each\n"
            "Give its parts to several Turns, or schedules to its parts."
        )
    return _KerasRate(optimizer, owner) if name == "lr" else _OfKeras(optimizer, name, owner)


@final
class _OfTorch:
    """A number in the parameter groups of a torch optimizer."""

    def __init__(self, optimizer: Optimizer, name: str, owner: str) -> None:
        self._optimizer: Any = optimizer
        self._key = name
        groups = self._groups
        if name == "momentum" and all("betas" in group for group in groups):
            self._key = "betas"
        if not all(isinstance(self._get(group), float | int | Tensor) for group in groups):
            raise _unknown(owner, optimizer, name, sorted(set(groups[0]) - {"params"}))

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups  # its own `load_state_dict` binds others

    def _get(self, group: dict[str, Any]) -> Any:
        value = group.get(self._key)
        return cast("tuple[Any, ...]", value)[0] if isinstance(value, tuple) else value

    def read(self) -> list[float]:
        """Return the numbers as they are."""
        return [float(self._get(g)) for g in self._groups]  # sync: only for tensors of the user

    def write(self, values: list[float]) -> None:
        """Set the numbers; a tensor is written in place."""
        for group, value in zip(self._groups, values, strict=True):
            if self._key == "betas":
                group["betas"] = (value, *group["betas"][1:])
            elif isinstance(group[self._key], Tensor):
                group[self._key].fill_(value)
            else:
                group[self._key] = value


@final
class _KerasRate:
    """The learning rate of a Keras optimizer: a variable, written in place."""

    def __init__(self, optimizer: Any, owner: str) -> None:
        self._variable: Any = optimizer._learning_rate
        if not is_keras(self._variable, "Variable"):
            raise ConfigError(
                f"{owner} cannot set the rate of {type(optimizer).__name__}: "
                f"{type(self._variable).__name__} does\n"
                "Make the optimizer with a number, for example learning_rate=1e-3."
            )
        self._tensor: Tensor = self._variable.value  # asking Keras for it takes longer than filling

    def read(self) -> list[float]:
        """Return the rate."""
        return [float(self._variable)]  # sync: once per fit, or per judged value

    def write(self, values: list[float]) -> None:
        """Set the rate; `assign` would copy it from the host, and wait on a GPU."""
        self._tensor.fill_(values[0])


@final
class _OfKeras:
    """A number among the attributes of a Keras optimizer."""

    def __init__(self, optimizer: Any, name: str, owner: str) -> None:
        self._optimizer = optimizer
        renamed = name == "momentum" and not hasattr(optimizer, name)
        self._name = "beta_1" if renamed else name
        value = getattr(optimizer, self._name, None)
        if isinstance(value, bool) or not isinstance(value, float | int):
            known = cast("dict[str, Any]", vars(optimizer))
            numbers = [n for n, v in known.items() if n[0] != "_" and isinstance(v, float)]
            raise _unknown(owner, optimizer, name, ["lr", *sorted(numbers)])

    def read(self) -> list[float]:
        """Return the number."""
        return [float(getattr(self._optimizer, self._name))]  # sync: none, it is a number

    def write(self, values: list[float]) -> None:
        """Set the number."""
        setattr(self._optimizer, self._name, values[0])


def _unknown(owner: str, optimizer: Any, name: str, known: list[str]) -> ConfigError:
    return ConfigError(
        f"{owner} got of='{name}', but {type(optimizer).__name__} has no number of that name\n"
        f"It has: {', '.join(known)}.\n"
        "Name one of these; for weight decay, make the optimizer with one."
    )
