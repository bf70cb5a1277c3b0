"""All actions of a validation step at once, by the model's own `test_step`."""

from typing import final

from fitkit.loop.callback import Callback
from fitkit.loop.events import REGION, Phase
from fitkit.loop.state import State
from fitkit.step.whole_step import batch_data, check_step, publish_logs

__all__ = ["TestStep"]


@final
class TestStep(Callback):
    """Fill all actions of a validation step with the model's own `test_step(data)`.

    Reads:  state.batch; what `unpack=` or a callback made of it, as (inputs, targets, weights).
    Writes: state.step_logs, the dict that `test_step` returns; state.step_values, shape () each.
    Logs:   nothing itself.
    Syncs:  never itself.
    Raises: ConfigError if the model has no `test_step`, or a callback needs the outputs of a step;
        DataError if it returns no dict.

    Example:
        ```python
        from fitkit import TestStep

        step = TestStep()
        ```
    """

    phases = frozenset({Phase.VAL})
    fills = frozenset(REGION[Phase.VAL])

    def on_pass_begin(self, state: State) -> None:
        """Check that the model can do it."""
        check_step(self, state, "test_step")

    def on_forward(self, state: State) -> None:
        """Run the whole step."""
        publish_logs(state, state.model.test_step(batch_data(state)), "test_step")
