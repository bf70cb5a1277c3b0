"""APPLY, with a torch optimizer."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from torch import Tensor
from torch.optim import Optimizer

from fitkit.errors import ConfigError, brief
from fitkit.interop import trainable_parameters
from fitkit.loop.callback import TRAIN_ONLY, Callback, filled_by
from fitkit.loop.events import Event
from fitkit.loop.state import State
from fitkit.optimizer_state import load_optimizer, optimizer_state

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["TorchStep"]


@final
class TorchStep(Callback):
    """Fill APPLY: one step of a torch optimizer, over a torch module or a Keras model.

    Args:
        optimizer: A `torch.optim.Optimizer` made from the parameters of the loop's model.

    Reads:  the gradients, each shaped like its weight.
    Writes: the weights the optimizer holds.
    Logs:   lr, the learning rate of the first parameter group after the pass.
    Syncs:  never by itself. torch's default Adam family reads its step counter, a CPU tensor.
    Raises: TypeError if it is no torch optimizer; ConfigError if it holds parameters that are not
        the model's. Warns if it leaves out trainable ones.

    Example:
        ```python
        import torch
        from fitkit import TorchStep

        model = torch.nn.Linear(4, 1)
        step = TorchStep(torch.optim.SGD(model.parameters(), lr=0.1))
        ```
    """

    phases = TRAIN_ONLY

    def __init__(self, optimizer: Optimizer) -> None:
        given: Any = optimizer
        if not isinstance(given, Optimizer):
            kind = f"the class {given.__name__}" if isinstance(given, type) else brief(given)
            raise TypeError(
                f"TorchStep got {kind}, expected a torch.optim.Optimizer instance\n"
                "Pass an instance: torch.optim.Adam(model.parameters())."
            )
        self.optimizer = optimizer

    @property
    def parameters(self) -> list[Tensor]:
        """Every tensor the optimizer holds."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: the optimizers of other turns may hold what this one leaves out."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Check that the optimizer and the model hold the same tensors."""
        everything = {id(parameter) for parameter in state.model.parameters()}
        orphans = [p for p in self.parameters if id(p) not in everything]
        if orphans:
            raise ConfigError(
                f"the optimizer holds {len(orphans)} parameters that are not the model's\n"
                f"The first one, '{_name_in(self.optimizer, orphans[0])}', has the shape "
                f"{tuple(orphans[0].shape)}; the model's first is "
                f"'{next(iter(state.model.named_parameters()))[0]}'.\n"
                "Make the optimizer from model.parameters() after building or moving the model."
            )
        self._warn_of_missing(state)

    def _warn_of_missing(self, state: State) -> None:
        applying = [c for c in self._loop.callbacks if Event.APPLY in filled_by(c)]
        steps = [callback for callback in applying if isinstance(callback, TorchStep)]
        known = {id(parameter) for step in steps for parameter in step.parameters}
        missing = [n for n, p in trainable_parameters(state.model) if id(p) not in known]
        if missing and steps == applying:  # of any other callback it is not known what it updates
            warnings.warn(
                f"the optimizer leaves out {len(missing)} trainable parameters of the model\n"
                f"The first ones: {', '.join(missing[:3])}.\n"
                "Add them to it, or freeze them.",
                stacklevel=3,
            )

    def on_apply(self, state: State) -> None:
        """Update the weights."""
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer."""
        return {"optimizer": optimizer_state(self.optimizer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the optimizer, in place."""
        load_optimizer(self.optimizer, state["optimizer"])

    def on_pass_end(self, state: State) -> None:
        """Log the learning rate."""
        state.logs["lr"] = float(self.optimizer.param_groups[0]["lr"])  # sync: once per pass


def _name_in(optimizer: Optimizer, parameter: Tensor) -> str:
    """Return how the optimizer calls a parameter: its name if it was given one, else its place."""
    for number, group in enumerate(optimizer.param_groups):
        for index, held in enumerate(group["params"]):
            if held is parameter:
                names: list[str] = group.get("param_names", [])
                return names[index] if names else f"param_groups[{number}]['params'][{index}]"
    return "unknown"
