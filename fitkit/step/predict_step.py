"""FORWARD of a predict pass, by the model's own `predict_step`."""

from typing import final

from fitkit.loop.callback import Callback
from fitkit.loop.events import Event, Phase
from fitkit.loop.state import State
from fitkit.step.whole_step import batch_data, check_step

__all__ = ["PredictStep"]


@final
class PredictStep(Callback):
    """Fill FORWARD of a predict pass with the model's own `predict_step(data)`.

    Reads:  state.batch; what `unpack=` or a callback made of it, as (inputs, targets, weights).
    Writes: state.outputs, what `predict_step` returns.
    Logs:   nothing.
    Syncs:  never itself.
    Raises: ConfigError if the model has no `predict_step`.

    Example:
        ```python
        from fitkit import PredictStep

        step = PredictStep()
        ```
    """

    phases = frozenset({Phase.PREDICT})
    fills = frozenset({Event.FORWARD})

    def on_pass_begin(self, state: State) -> None:
        """Check that the model can do it."""
        check_step(self, state, "predict_step")

    def on_forward(self, state: State) -> None:
        """Run the step."""
        state.outputs = state.model.predict_step(batch_data(state))
