"""A moving average of the weights."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from fitkit.errors import ConfigError, brief
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.snapshot import trained_tensors
from fitkit.loop.state import State
from fitkit.tune.optimizers import refuse_doubled
from fitkit.tune.tensor_lists import copy_, lerp_

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["EMA"]


@final
class EMA(Callback):
    """Keep an exponential moving average of the weights, and use it wherever nothing is trained.

    After each update average = decay * average + (1 - decay) * weight, for every weight that is
    trainable, from what it was before the first one. With `warmup` the decay is
    min(decay, (1 + n) / (10 + n)) at update n = 1, 2, ..., so that the first weights are soon
    forgotten. Weights of less than 32 bits are averaged in float32.

    Validation, `evaluate` and `predict` run with the averages in the place of the weights; when the
    pass ends, also by an error, the weights are back bit by bit. `with ema.averaged():` does the
    same for your own code, for example to save the averages.

    Args:
        decay: How much of the average stays, per update; in [0, 1).
        warmup: Whether to begin with smaller decays.

    Reads:  the trainable weights.
    Writes: the averages, in place; the weights, while a pass that does not train lasts.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if `decay` is out of range, if a Keras optimizer averages the weights itself
        (`use_ema`), or if averages are loaded that do not fit the model.

    Example:
        ```python
        import torch
        from fitkit import EMA, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ema = EMA(0.99)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), ema).fit(epochs=2)
        with ema.averaged():
            averages = {name: t.clone() for name, t in model.state_dict().items()}
        ```
    """

    only_watches = True

    follows_weights = True  # NaNGuard brings the averages back with the weights
    instead_of_two = "Attach one EMA; another decay needs another run."

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"EMA(decay={brief(decay)}) is out of range, expected a number in [0, 1)\n"
                "Use 0.99 for short runs, 0.999 or 0.9999 for long ones."
            )
        self.decay = decay
        self.warmup = warmup
        self.num_updates = 0
        self._averages: dict[int, Tensor] = {}  # by the place of the weight in the model
        self._weights: list[Tensor] = []  # those that are averaged
        self._held: list[Tensor] = []  # the averages, in the same order
        self._widens = False  # whether some weights have less than 32 bits
        self._model: Any = None
        self._is_in = False

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop and its model."""
        self._loop, self._model = loop, loop.model

    def on_fit_begin(self, state: State) -> None:
        """Check that no optimizer averages."""
        refuse_doubled(self._loop, self, ("use_ema",), does="average the weights")

    def on_pass_begin(self, state: State) -> None:
        """List the weights of a training pass; put the averages in for any other."""
        if state.phase is not Phase.TRAIN:
            state.exits.enter_context(self.averaged())
            return
        self._join()

    def accept_flags(self) -> None:
        """Average from now on what a callback has just unfrozen, in mid-epoch."""
        if self._weights:
            self._join()

    def _join(self) -> None:
        """Begin an average of each trainable weight that has none."""
        weights = trained_tensors(self._model)
        for place, weight in enumerate(weights):
            if weight.requires_grad and place not in self._averages:
                wide = torch.promote_types(weight.dtype, torch.float32)
                self._averages[place] = weight.detach().to(wide, copy=True)
        self._pair(weights)

    def _pair(self, weights: list[Tensor]) -> None:
        """Line up averages and weights."""
        for place, average in self._averages.items():
            if place >= len(weights) or weights[place].shape != average.shape:
                raise ConfigError(
                    f"EMA: the average {place}, shape {tuple(average.shape)}, fits no weight of "
                    f"{type(self._model).__name__}\n"
                    "Load the state of an EMA into the same model that it was saved with."
                )
            self._averages[place] = average.to(weights[place].device)
        self._weights = [weights[place].detach() for place in self._averages]
        self._held = list(self._averages.values())
        pairs = zip(self._weights, self._held, strict=True)
        self._widens = any(weight.dtype != average.dtype for weight, average in pairs)

    def on_batch_end(self, state: State) -> None:
        """Average, where an update was made."""
        if state.phase is Phase.TRAIN and state.closes_update:
            self._average()

    def on_pass_end(self, state: State) -> None:
        """Average after an update that the end of the pass completed."""
        if state.phase is Phase.TRAIN and hasattr(state, "batch_index") and not state.closes_update:
            self._average()

    def _average(self) -> None:
        self.num_updates += 1
        n = self.num_updates
        decay = min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay
        weights = self._weights
        if self._widens:
            weights = [w.to(a.dtype) for w, a in zip(weights, self._held, strict=True)]
        lerp_(self._held, weights, 1 - decay)

    @contextmanager
    def averaged(self) -> Generator[None]:
        """Put the averages into the model while the body runs, and the weights back afterwards.

        Within another one, or before the first training pass, nothing changes.
        """
        if self._is_in or not self._averages:
            yield
            return
        self._pair(trained_tensors(self._model))
        before = [weight.clone() for weight in self._weights]
        self._is_in = True
        try:
            copy_(self._weights, self._held)
            yield
        finally:
            copy_(self._weights, before)
            self._is_in = False

    def state_dict(self) -> dict[str, Any]:
        """Return the count of updates and copies of the averages, by the place of the weight."""
        averages = {str(place): tensor.clone() for place, tensor in self._averages.items()}
        return {"num_updates": self.num_updates, "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; checked against the model where it is used."""
        self.num_updates = state["num_updates"]
        self._averages = {int(place): t.clone() for place, t in state["averages"].items()}
        if self._weights:  # a pass has begun: what it holds is out of date
            self._pair(trained_tensors(self._model))
