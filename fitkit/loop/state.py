"""The blackboard that callbacks read and write: fields by lifetime, with shapes, devices, units."""

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from fitkit.data import Gather, default_unpack, unpacked
from fitkit.errors import ConfigError
from fitkit.loop.events import Event, Phase
from fitkit.loop.fields import BATCH_FIELDS, LAZY_FIELDS, PASS_FIELDS, unset_error
from fitkit.loop.logs import LogBuffer, Owners, PhaseLogs, Reduce, check_owner, check_scalar
from fitkit.loop.packed import Packed, copy_of

__all__ = ["UNSET", "State", "Unpack"]

UNSET: Any = object()
Unpack = Callable[[Any], tuple[Any, Any, Any]]


class State:
    """What a run knows about itself, shared by all callbacks of a `FitLoop`.

    A batch field that nobody has written yet is *unset*: reading it raises `UnsetError`, which
    names the event that writes it. A validation pass inside a training pass gets a frame of its
    own; the fields of the training pass are back when it ends.

    Fit lifetime (written by the loop unless noted):
        model: The model of the loop.
        device (torch.device): Where batches are placed.
        is_main (bool): False in all processes of a distributed run but the first.
        run_dir (Path): Where callbacks put files; created by the first that writes one.
        epoch (int): 0-based index of the current epoch.
        num_epochs (int): Training passes that ran to their end.
        num_updates (int): Completed accumulation windows of all calls of `fit`.
        num_batches (int): Training batches.
        num_samples (int): Training samples.
        epoch_batches (int): Training batches of the current epoch; 0 between two epochs.
        turn_updates (dict[str, int]): Completed windows by the name of the `Turn`.
        max_epochs (int | None): The epoch count at which this call of `fit` stops.
        max_steps (int | None): The value of `num_updates` at which it stops.
        max_time_s (float | None): Seconds after which it stops.
        logs (dict[str, float]): Host values of this epoch; any callback may add to them.
        stop (bool), stop_reason (str | None), stop_signal (int | None): See `request_stop`.
        requests (set[Event]): See `request`.
        rates (dict[str, Callable]): What reads tensors of the step, shape (), for `packed`.
    Pass lifetime:
        phase (Phase): What the pass is for.
        prefix (str): What log names start with: "" in training and `evaluate`, "val_" or
            "val_<loader name>_" in validation.
        num_batches_expected (int | None): The length of the loader, if it has one.
        batch_index (int): 0-based index of the batch in the pass.
        data_wait_s (float): Seconds this pass has waited for data so far.
        exits (contextlib.ExitStack): Runs what is registered with `exits.callback(f, ...)` when the
            pass ends, last first, also if it raised.
    Batch lifetime:
        batch: The structure the loader gave, tensors of shape (batch, ...) on `device`; to be read.
        inputs, targets, sample_weight: The batch unpacked; the last two are None if absent.
        batch_size (int): Samples in the batch.
        extra (SimpleNamespace): For users: teacher outputs, noise, fakes.
        opens_update, closes_update (bool): Whether an accumulation window begins, ends here.
        turn (str | None): The name of the current `Turn`.
        outputs: What the model gave; attached to its graph inside the step region. After it only
            if a callback declares `needs = {"outputs"}`, then detached.
        loss (Tensor): Shape (); attached inside the step region, detached after it.
        losses (dict[str, Tensor]): Named parts of the loss, shape () each.
        grad_scale (Tensor | None): Shape (); what the loss is multiplied with for the gradients.
        step_values (dict[str, Tensor]): The latest logged device values, shape () each, detached.
        packed (Packed | None): A copy of what was logged, if `needs = {"packed"}`; None in turns.
        step_logs (dict[str, Any]): What a whole-step callback returned.
    """

    __slots__ = (
        *PASS_FIELDS,
        *BATCH_FIELDS,
        *("model", "device", "is_main", "run_dir", "epoch_batches", "logged", "packed", "rates"),
        *("epoch", "num_epochs", "num_updates", "num_batches", "num_samples", "turn_updates"),
        *("max_epochs", "max_steps", "max_time_s", "logs", "stop", "stop_reason", "stop_signal"),
        *("requests", "needs", "started_at", "eager_requested", "error", "pending", "unpack"),
    )

    phase: Phase
    prefix: str
    num_batches_expected: int | None
    batch_index: int
    data_wait_s: float
    exits: ExitStack
    log_owners: Owners
    batch: Any
    inputs: Any
    targets: Any
    sample_weight: Any
    batch_size: int
    extra: SimpleNamespace
    step_values: dict[str, Tensor]
    opens_update: bool
    closes_update: bool
    turn: str | None
    outputs: Any
    loss: Tensor
    losses: dict[str, Tensor]
    grad_scale: Tensor | None
    step_logs: dict[str, Any]
    _given: Any

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device,
        is_main: bool = True,
        run_dir: Path = Path("runs"),
        unpack: Unpack | None = None,
    ) -> None:
        self.model, self.device = model, device
        self.is_main, self.run_dir = is_main, run_dir
        self.epoch = self.num_epochs = self.num_updates = self.num_batches = self.num_samples = 0
        self.turn_updates: dict[str, int] = {}
        self.epoch_batches = 0
        self.max_epochs: int | None = None
        self.max_steps: int | None = None
        self.max_time_s: float | None = None
        self.logs: dict[str, float] = {}
        self.stop = self.eager_requested = False
        self.stop_reason: str | None = None
        self.stop_signal: int | None = None
        self.requests: set[Event] = set()
        self.needs: frozenset[str] = frozenset()
        self.started_at = time.perf_counter()
        self.error: BaseException | None = None
        self.pending: Gather | None = None
        self.packed: Packed | None = None
        self.rates: dict[str, Callable[[], Tensor]] = {}
        self.logged, self.unpack = PhaseLogs(), unpack

    def __getattr__(self, name: str) -> Any:
        # Only reached when a slot is unset: a batch that nobody has looked at is gathered now.
        if name in LAZY_FIELDS and self.pending is not None:
            self.gather()
            return getattr(self, name)
        raise unset_error(name)

    # -- what callbacks call ---------------------------------------------------------------------

    def log(self, name: str, value: Tensor, reduce: Reduce = "mean") -> None:
        """Log a device value: accumulated over the pass, and published in `step_values`.

        What was logged is in `logs` after PASS_END, with the prefix of the pass; a `Metrics` in the
        list puts it there at once. A predict pass has no logs.

        Args:
            name: The key in `state.logs`, without the prefix of the pass.
            value: Shape (), any real dtype, on the device. It is detached.
            reduce: How the pass reduces it. A mean is weighted by the number of samples.

        Raises:
            TypeError: If `value` is no tensor of shape ().
            ConfigError: If `reduce` is unknown or differs from the first call with this name, if
                another callback logs this name, or if the name is reserved.

        Syncs: never; the pass is read once, at PASS_END, and again if something is logged later.
        """
        value = check_scalar(name, value)
        caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # documented, and fast
        check_owner(self.log_owners, name, caller)
        self.step_values[name] = value
        if self.packed is not None:  # the step is over, which has copied the others
            self.packed.beside[name] = copy_of(value, self.device)
        weight = self.batch_size if reduce == "mean" else 1
        self.log_buffer.add(name, value, weight, reduce)

    def deliver_logs(self) -> None:
        """Write what was logged in this pass to `logs`, if it is new. Syncs: once."""
        buffer = self.log_buffer
        if buffer.unread and self.phase is not Phase.PREDICT:
            values, buffer.unread = buffer.read(), False
            self.logs.update({self.prefix + name: value for name, value in values.items()})

    @property
    def log_buffer(self) -> LogBuffer:
        """The accumulators of the current pass."""
        return self.logged.of(self.phase)

    @property
    def elapsed_s(self) -> float:
        """Seconds since this call of `fit` began."""
        return time.perf_counter() - self.started_at

    def request_stop(self, reason: str) -> None:
        """Ask the loop to stop; it reads the flag after the current batch or epoch."""
        self.stop = True
        self.stop_reason = self.stop_reason or reason

    def request(self, event: Event) -> None:
        """Ask for VALIDATE or SAVE right after the BATCH_END of the current training batch.

        At PASS_END and EPOCH_END it is for the end of this epoch, where SAVE comes anyway.

        Raises:
            ConfigError: If `event` is another one.
        """
        if event not in (Event.VALIDATE, Event.SAVE):
            raise ConfigError(
                f"state.request({event!r}): only VALIDATE and SAVE can be requested\n"
                "Listen to the other events instead, with a hook or loop.on."
            )
        self.requests.add(event)

    def request_eager(self) -> None:
        """Ask that the next step runs eagerly even where a recorded program exists."""
        self.eager_requested = True

    @property
    def is_last_batch(self) -> bool:
        """Whether the current batch is known to be the last one of the pass."""
        return hasattr(self, "batch_index") and self.batch_index + 1 == self.num_batches_expected

    def place(self) -> str:
        """Return where the run is, for messages."""
        batch = f"batch {self.batch_index}, " if hasattr(self, "batch_index") else ""
        return f"{batch}epoch {self.epoch}, after {self.num_updates} updates"

    # What the loop calls, through loop/lifetime.py.

    def gather(self) -> None:
        """Gather a batch that was put off; parts that a callback has written stay as they are."""
        if self.pending is not None:
            written = self.written()
            self.set_batch(self.pending.take())
            for name, value in written.items():
                setattr(self, name, value)

    def take_over(self) -> None:
        """Take over what callbacks have written at BATCH_BEGIN, so that the step sees it.

        Raises:
            ConfigError: If it is the batch itself, which was unpacked before.
        """
        written = self.written()
        if "batch" in written and written["batch"] is not getattr(self, "_given", None):
            raise ConfigError(
                "state.batch was replaced at BATCH_BEGIN: the step reads what was unpacked before\n"
                "Write state.inputs, state.targets, state.sample_weight; or use FitLoop(unpack=)."
            )
        if written:
            self.gather()  # the step reads no lazy batch then

    def written(self) -> dict[str, Any]:
        """Return the parts of the batch that are set, without gathering it."""
        found = {name: self.peek(name) for name in LAZY_FIELDS}
        return {name: value for name, value in found.items() if value is not UNSET}

    def peek(self, name: str) -> Any:
        """Return a field without gathering the batch; UNSET if nobody has written it."""
        try:
            return object.__getattribute__(self, name)
        except AttributeError:
            return UNSET

    def set_batch(self, batch: Any) -> None:
        """Write the batch and what it unpacks to."""
        self.pending = None
        self.batch = self._given = batch
        if self.unpack is None:
            self.inputs, self.targets, self.sample_weight = default_unpack(batch)
        else:
            self.inputs, self.targets, self.sample_weight = unpacked(self.unpack, batch)

    def unset(self, names: Iterable[str]) -> None:
        """Make fields unset."""
        for name in names:
            try:
                delattr(self, name)
            except AttributeError:
                continue
