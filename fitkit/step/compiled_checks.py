"""What is checked about the batches of a compiled model: names of outputs, shapes of weights."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import Tensor

from fitkit.data import describe
from fitkit.data.structure import leaves
from fitkit.errors import DataError
from fitkit.loop.state import State

__all__ = ["check_target_names", "check_weights"]


def check_target_names(state: State, compiled_loss: Any) -> None:
    """Check that targets and weights given by name have the names of the model's outputs.

    Keras pairs what it can, by position where the names are wrong.

    Raises:
        DataError: If a name is unknown, or missing for an output that has a loss.
    """
    names = _output_names(state)
    if not names:
        return
    weighted = _by_name(state.sample_weight)
    if weighted is not None:
        _refuse("sample weights", [n for n in weighted if n not in names], [], weighted, names)
    targets = _by_name(state.targets)
    if targets is not None:
        needed = _with_loss(compiled_loss._user_loss, names)
        unknown = [name for name in targets if name not in names]
        missing = [name for name in needed if name not in targets]
        _refuse("targets", unknown, missing, targets, names)


def _output_names(state: State) -> list[str]:
    outputs = _by_name(state.outputs)
    return (
        list(outputs)
        if outputs is not None
        else list(getattr(state.model, "output_names", None) or ())
    )


def _by_name(structure: Any) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", structure) if isinstance(structure, Mapping) else None


def _with_loss(loss: Any, names: list[str]) -> list[str]:
    by_name = _by_name(loss)
    if by_name is not None:
        return [name for name in by_name if by_name[name] is not None and name in names]
    if isinstance(loss, list | tuple):
        parts = cast("list[Any]", loss)
        return [name for name, each in zip(names, parts, strict=False) if each is not None]
    return names


def _refuse(
    kind: str, unknown: list[str], missing: list[str], given: Iterable[str], names: list[str]
) -> None:
    if unknown or missing:
        problem = f"'{unknown[0]}' is no output" if unknown else f"'{missing[0]}' is missing"
        raise DataError(
            f"the {kind} have the keys {sorted(given)}, but {problem} of the model\n"
            f"Use the names of its outputs: {', '.join(map(repr, names))}."
        )


def check_weights(state: State) -> None:
    """Check that sample weights have one value per sample, or per sample and place.

    Raises:
        DataError: If the shape is another one.
    """
    outputs = [leaf for _, leaf in leaves(state.outputs) if isinstance(leaf, Tensor)]
    for path, weight in leaves(state.sample_weight, "sample_weight"):
        if isinstance(weight, Tensor) and not any(_fits(weight, output) for output in outputs):
            raise DataError(
                f"{path} is {describe(weight)}, but the outputs are {describe(state.outputs)}\n"
                f"Give one weight per sample, shape ({state.batch_size},), as third item of the "
                "batch."
            )


def _fits(weight: Tensor, output: Tensor) -> bool:
    shape = list(weight.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return bool(shape) and shape == list(output.shape[: len(shape)])
