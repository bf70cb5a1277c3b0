"""One update from several batches."""

from collections.abc import Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from torch import nn

from fitkit.errors import ConfigError
from fitkit.loop.applied import applied_optimizers, turn_of
from fitkit.loop.callback import TRAIN_ONLY, Callback, filled_by
from fitkit.loop.events import Event
from fitkit.loop.interval import positive_int
from fitkit.loop.snapshot import trained_tensors
from fitkit.loop.state import State
from fitkit.tune.batch_weight import BatchWeight, batch_weight_of
from fitkit.tune.optimizers import refuse_doubled
from fitkit.tune.window import Window

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["Accumulate"]


@final
class Accumulate(Callback):
    """Make one update from the gradients of several batches, equal to that of one large batch.

    A batch counts with what its loss was divided by: the number of its samples; with
    `ignore_index`, masks or class weights what is left of them; a loss that is a sum is only added.
    So a smaller batch counts for less, and the last window of a pass, which may have fewer batches,
    is divided by what it really has, also if the loader has no length. What differs from the large
    batch is what a layer computes over a batch (batch normalization), and random numbers (dropout).

    The gradients are added up in tensors of its own, by `Turn`; the `.grad` of the weights is set
    where a window closes. List it before what changes gradients. With turns all updates of a window
    come at its end, so that the batches before see the weights of other turns as they were.

    Args:
        num_batches: Batches per update.

    Reads:  the loss, its targets and sample weights; the gradients.
    Writes: state.opens_update, state.closes_update; the gradients, each shaped like its weight; for
        losses that are no means over samples state.loss, the part of the batch in the window's.
    Logs:   nothing; the `loss` of a pass is that of the large batches.
    Syncs:  never.
    Raises: ConfigError if `num_batches` is no positive int, if the loader has fewer batches, if a
        Keras optimizer accumulates itself, in a `Turn` (windows are those of the batches), or if
        a turn moves the weights by no optimizer, for the next one, as in SAM.

    Example:
        ```python
        import torch
        from fitkit import Accumulate, FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1), batch_size=8))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), Accumulate(4))
        loop.fit(epochs=1)
        assert loop.state.num_updates == 2
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True
    instead_of_two = "One is enough: Accumulate(8) for a 2 and a 4."

    def __init__(self, num_batches: int) -> None:
        self.num_batches = positive_int("num_batches", num_batches)
        self.around = {Event.BACKWARD: self._added}
        self._parameters: list[nn.Parameter] = []
        self._weigh: dict[str | None, BatchWeight] = {}
        self._windows: dict[str | None, Window] = {}
        self._position = 0  # of the next batch in its window
        self._unit = 0  # batch size that counts 1, so that sums of equal batches are plain sums

    @property
    def step_key(self) -> Hashable:
        """What batch sizes are divided by."""
        return self._unit

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its optimizers and turns are looked at."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Check what is beside it; ask each loss how its batches count."""
        refuse_doubled(
            self._loop, self, ("gradient_accumulation_steps",), does="accumulate gradients"
        )
        if (turn := turn_of(self._loop, self)) is not None:
            raise ConfigError(
                f"Accumulate is in the turn '{turn}', but a window is one of all turns of a batch\n"
                "Attach it to the loop, beside the turns."
            )
        self._check_turns()
        for each in self._loop.bus.turns:
            name = each.name if each else None
            self._weigh[name] = batch_weight_of(self._loop, each)
            self._windows.setdefault(name, Window())

    def _check_turns(self) -> None:
        """Refuse turns whose gradients are to be those at weights that another turn has moved."""
        turns, known = self._loop.bus.turns, applied_optimizers(self._loop)
        for turn in turns[:-1]:
            own = () if turn is None else turn.callbacks
            moving = [type(c).__name__ for c in own if Event.APPLY in filled_by(c)]
            if turn is not None and moving and turn.name not in known:
                raise ConfigError(
                    f"Accumulate: {moving[0]} moves the weights in the turn '{turn.name}', and "
                    "would in the last batch of a window only\n"
                    "The turns behind it would see the other batches at other weights.\n"
                    "Use larger batches in place of Accumulate."
                )

    def on_pass_begin(self, state: State) -> None:
        """List the weights and begin a window."""
        expected = state.num_batches_expected
        if expected is not None and expected < self.num_batches:
            raise ConfigError(
                f"Accumulate({self.num_batches}): the loader has {expected} batches, fewer than "
                f"one window\nUse Accumulate({max(expected, 1)}), or smaller batches."
            )
        self._state = state
        tensors = trained_tensors(state.model)
        self._parameters = [tensor for tensor in tensors if isinstance(tensor, nn.Parameter)]
        self._position = 0

    def on_batch_begin(self, state: State) -> None:
        """Say whether a window opens and closes here."""
        self._unit = self._unit or state.batch_size
        state.opens_update = self._position == 0
        state.closes_update = self._position + 1 >= self.num_batches or state.is_last_batch
        self._position = 0 if state.closes_update else self._position + 1
        if any(window.uneven for window in self._windows.values()):
            state.request_eager()  # a program would not tell which weights have got a gradient

    @contextmanager
    def _added(self) -> Generator[None]:
        """Run the backward pass on no gradients, and move those that it gives to the sums."""
        state = self._state
        if not state.opens_update:
            self._clear()  # another turn may have left its gradients
        yield
        if state.opens_update and state.closes_update:
            return
        counts, window = self._weigh[state.turn], self._windows[state.turn]
        opens = state.opens_update
        if counts.is_sum:
            _check_sum(state)
        weight = counts.of(state)
        plain = isinstance(weight, int) and not counts.is_sum
        if plain:
            weight = weight / self._unit
        gradients = [parameter.grad for parameter in self._parameters]
        window.add(gradients, weight, opens=opens, trainable=self._trainable())
        if not plain:
            loss, size, divide = state.loss.detach(), state.batch_size, not counts.is_sum
            state.loss = window.share_of(loss, weight, size, opens=opens, divide=divide)
        self._clear()

    def _trainable(self) -> Hashable:
        # Asked once all have heard BATCH_BEGIN, where `Freeze` changes it.
        return tuple([parameter.requires_grad for parameter in self._parameters])

    def _clear(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def on_grads_ready(self, state: State) -> None:
        """Hand out the gradients of the window."""
        if not (state.opens_update and state.closes_update):
            divide = not self._weigh[state.turn].is_sum
            self._windows[state.turn].close(self._parameters, divide=divide)

    def on_batch_end(self, state: State) -> None:
        """Remember what the batch has added, also if it was a replay that added it."""
        trainable = self._trainable()
        for window in self._windows.values():
            window.recall(trainable)

    def state_dict(self) -> dict[str, Any]:
        """Return the batch size that counts 1; a checkpoint holds no open window."""
        return {"unit": self._unit}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it: with another one, sums would round differently."""
        self._unit = state["unit"]


def _check_sum(state: State) -> None:
    if "added" in state.losses:
        raise ConfigError(
            "Accumulate: the loss is a sum over samples, and the layers of the model add to it\n"
            "What they add would count once per batch of a window; use a loss that is a mean."
        )
