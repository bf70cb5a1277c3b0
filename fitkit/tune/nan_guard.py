"""Losses and gradients that are no numbers."""

import warnings
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import torch
from torch import Tensor

from fitkit.data.structure import leaves
from fitkit.errors import ConfigError, NonFiniteError, brief
from fitkit.interop import is_keras, state_tensors
from fitkit.loop.callback import TRAIN_ONLY, Callback, filled_by
from fitkit.loop.events import Event
from fitkit.loop.interval import positive_int
from fitkit.loop.resume import copy_weights, stores_of
from fitkit.loop.snapshot import keyed
from fitkit.loop.state import State
from fitkit.tune.nan_flags import Found, NaNFlags
from fitkit.tune.optimizers import optimizers_beside
from fitkit.tune.tensor_lists import copy_
from fitkit.tune.undo import Undo, take_back

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["NaNGuard"]

Mode = Literal["raise", "skip", "rollback"]


@final
class NaNGuard(Callback):
    """Do something about a loss or gradients that are infinite or no numbers.

    - "raise" ends the run. On a CPU, without `Record`, before the update. Elsewhere nothing waits:
      the first such update, and all after it, are taken back on the device, and the error comes
      when the host looks.
    - "skip" takes such updates back, and running statistics of a batch whose loss is not finite.
      `state.num_updates` counts them all the same.
    - "rollback" brings the weights, the optimizers and averages of the newest checkpoint back when
      the host looks, and goes on with the next batch, at its learning rate. The updates in between
      are lost.

    Taking back on the device costs a copy of weights and slots per update, and a second pass to
    choose; on a CPU, without `Record`, only updates that are taken back are copied. The host looks
    every so many updates, at the end of each pass, and before anything is saved.

    Args:
        mode: "raise", "skip" or "rollback".
        every: How many updates there are between two looks.
        limit: So many skipped updates in a row, or rollbacks in all, end the run.

    Reads:  state.loss, state.losses, shape () each; the gradients.
    Writes: what APPLY wrote, where it is taken back.
    Logs:   nothing.
    Syncs:  every `every` updates; "raise" and "skip" on a CPU without Record once per update.
    Raises: NonFiniteError naming the update, the loss and its parts, and the first gradient that is
        not finite; ConfigError for an argument out of range, or "rollback" without a Checkpoint.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, NaNGuard, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), NaNGuard("skip"))
        loop.fit(epochs=1)
        ```
    """

    phases = TRAIN_ONLY
    after = ("Accumulate", "MixedPrecision")
    instead_of_two = "One looks at all there is; give it the mode that is to win."

    def __init__(self, mode: Mode = "raise", *, every: int = 100, limit: int = 10) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(
                f"NaNGuard({brief(mode)}) is no mode\nUse one of: 'raise', 'skip', 'rollback'."
            )
        self.mode: Mode = mode
        self.only_watches = mode != "rollback"
        self._every = positive_int("every", every)
        self._limit = positive_int("limit", limit)
        if mode != "rollback":
            self.around = {
                Event.FORWARD: self._statistics_kept,
                Event.BACKWARD: self._statistics_back,
                Event.APPLY: self._taken_back,
            }
        self._num_skipped = self._num_rollbacks = 0  # private: no part of a program's key
        self._flags: NaNFlags | None = None
        self._undo = Undo()
        self._weights: dict[str, Tensor] = {}
        self._statistics: list[Tensor] = []
        self._copies: dict[Tensor, Tensor] = {}  # of statistics, as they were before a batch
        self._reads = False  # whether the host looks at every update
        self._scaled = False  # whether infinite gradients are somebody else's affair
        self._due = 0  # the update at which the host looks

    @property
    def num_skipped(self) -> int:
        """Updates skipped so far, as of the latest look."""
        return self._num_skipped

    @property
    def num_rollbacks(self) -> int:
        """How often it went back to a checkpoint."""
        return self._num_rollbacks

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its optimizers and checkpoints are looked at."""
        self._loop = loop

    def on_fit_begin(self, state: State) -> None:
        """Check that there is what to go back to."""
        names = {type(callback).__name__ for callback in self._loop.callbacks}
        if self.mode == "rollback" and "Checkpoint" not in names:
            raise ConfigError(
                'NaNGuard("rollback") has nothing to go back to\nAttach a Checkpoint behind it.'
            )
        self._scaled = any(getattr(c, "skips_updates", False) for c in self._loop.callbacks) or any(
            is_keras(optimizer, "optimizers.LossScaleOptimizer")
            for optimizer in optimizers_beside(self._loop, self)
        )
        self._flags = self._flags or NaNFlags(state.device)

    def on_pass_begin(self, state: State) -> None:
        """List what is looked at and taken back; say which update comes."""
        assert self._flags is not None  # noqa: S101  # on_fit_begin has made it
        self._flags.begin(state.num_updates)
        self._due = state.num_updates + self._every
        self._reads = self.mode != "rollback" and _reads_freely(self._loop)
        self.accept_flags()
        if self.mode != "rollback":
            self._undo.prepare(self._loop, self)

    def accept_flags(self) -> None:
        """List weights and statistics, which is what has no gradient: freezing changes that."""
        held = state_tensors(self._loop.model)
        self._weights = {n: t for n, t in held.items() if isinstance(t, torch.nn.Parameter)}
        if self.mode != "rollback":
            floats = [t for t in held.values() if t.is_floating_point()]
            self._statistics = [t for t in floats if not t.requires_grad]
            for tensor in self._statistics:
                if tensor not in self._copies:  # one for good: recorded steps write to it
                    self._copies[tensor] = tensor.detach().clone()

    @property
    def _before(self) -> list[Tensor]:
        return [self._copies[tensor] for tensor in self._statistics]

    @contextmanager
    def _statistics_kept(self) -> Generator[None]:
        copy_(self._before, self._statistics)
        yield

    @contextmanager
    def _statistics_back(self) -> Generator[None]:
        """Take back running statistics, once the backward pass needs them no more."""
        yield
        if self._flags is not None:
            good = self._flags.has_loss
            if self.mode == "raise":
                good = good & (self._flags.num_bad == 0)
            take_back(self._statistics, self._before, good)

    def on_loss_ready(self, state: State) -> None:
        """Look at the loss of a batch."""
        if self._flags is None:
            return
        loss = state.loss.detach()
        if self._statistics:
            self._flags.has_loss.copy_(loss.isfinite())
        if not state.closes_update:
            self._flags.keep_loss(loss, state.turn, opens=state.opens_update)

    def on_grads_ready(self, state: State) -> None:
        """Look at the loss and the gradients."""
        flags = self._flags
        assert flags is not None  # noqa: S101  # on_fit_begin has made it
        loss = state.loss.detach()
        if not state.opens_update:
            loss = flags.loss_of_update(loss, state.turn)
        parts = {"loss": loss, **{n: p.detach() for n, p in state.losses.items()}}
        gradients = [] if self._scaled else [weight.grad for weight in self._weights.values()]
        flags.note(gradients, parts, state.turn)
        if self._reads and self.mode == "raise" and (found := flags.look()):
            raise self._error(found, f"{_odd_inputs(state)}\n")

    def _taken_back(self) -> AbstractContextManager[None]:
        flags = self._flags
        if flags is None or (self._reads and not flags.is_bad()):
            return nullcontext()
        num_bad = flags.num_bad if self.mode == "raise" else flags.in_a_row
        return self._undo.unless(lambda: num_bad == 0)

    def on_batch_end(self, state: State) -> None:
        """Say which update comes; look now and then."""
        assert self._flags is not None  # noqa: S101  # on_fit_begin has made it
        self._flags.begin(state.num_updates)
        if state.num_updates >= self._due:
            self._look()

    def on_pass_end(self, state: State) -> None:
        """Look before anybody judges the epoch."""
        self._look()

    def on_save(self, state: State) -> None:
        """Look before anything is saved."""
        self._look()

    def _look(self) -> None:
        self._due = self._loop.state.num_updates + self._every
        found = None if self._flags is None else self._flags.look()
        if found is None:
            return
        if self.mode == "raise" or (self.mode == "skip" and found.in_a_row >= self._limit):
            raise self._error(found, "")
        if self.mode == "skip":
            self._num_skipped += found.num_bad
            warnings.warn(
                f"NaNGuard skipped {found.num_bad} updates: {self._told(found)}", stacklevel=2
            )
        else:
            self._roll_back(found)

    def _roll_back(self, found: Found) -> None:
        latest = [saved for store in stores_of(self._loop) if (saved := store.latest())]
        if not latest or self._num_rollbacks >= self._limit:
            raise self._error(
                found, "There is no checkpoint to go back to.\n" if not latest else ""
            )
        saved = max(latest, key=lambda each: each.meta["counters"]["num_updates"])
        self._num_rollbacks += 1
        copy_weights(self._loop.model, saved.model, saved.path)
        kept = saved.state["callbacks"]
        for key, callback in keyed(self._loop.callbacks).items():
            follows = getattr(callback, "follows_weights", False) and key in kept
            if follows or Event.APPLY in filled_by(callback):
                callback.load_state_dict(kept[key])
        warnings.warn(f"NaNGuard went back to {saved.path.name}: {self._told(found)}", stacklevel=2)

    def _told(self, found: Found) -> str:
        first = "none" if found.place < 0 else [*self._weights][found.place]
        loss = found.parts["loss"]
        return f"loss {loss:.4g} in update {found.update}, first bad gradient: {first}"

    def _error(self, found: Found, more: str) -> NonFiniteError:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in found.parts.items())
        return NonFiniteError(
            f"{self._told(found)}\n"
            f"Parts of the loss: {parts}.\n{more}"
            "Look at that batch and the learning rate, clip gradients, or skip such updates: "
            'NaNGuard("skip").'
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"num_skipped": self.num_skipped, "num_rollbacks": self.num_rollbacks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the counts."""
        self._num_skipped, self._num_rollbacks = state["num_skipped"], state["num_rollbacks"]


def _reads_freely(loop: "FitLoop") -> bool:
    """Whether nothing waits when the host reads a flag: on a CPU, where no step is recorded."""
    runner = loop.runner
    return loop.device.type == "cpu" and runner.run_step == runner.run_region


def _odd_inputs(state: State) -> str:
    """Say which tensors of the batch hold what is not finite; never what they hold."""
    odd = [
        f"{path} {int((~leaf.isfinite()).sum())}"  # sync: once, in an error on a CPU
        for path, leaf in leaves(state.batch)
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and not leaf.isfinite().all()
    ]
    return f"Values in the batch that are not finite: {', '.join(odd) or 'none'}."
