"""A row of the matrix: one training, run eagerly and recorded, and what came of it."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import torch
from torch import Tensor

from fitkit import Event, FitLoop, Record, TensorLoader, supervised

BATCH, TRAIN, VAL = 16, 80, 32
EPOCHS = 2
ROUNDING = 1e-6  # where `alpha=tensor` is rewritten as a product and a sum


@dataclass(frozen=True)
class Training:
    """What a row trains: a model with everything `supervised` needs, and data."""

    model: Any
    x: Any
    y: Any
    loss: Any
    optimizer: Any
    metrics: Sequence[Any] = ()
    callbacks: Sequence[Any] = ()


@dataclass(frozen=True)
class Row:
    """A training with a name; `make` builds it anew."""

    group: str
    name: str
    make: Callable[[], Training]


@dataclass
class Run:
    """What a training has left behind."""

    state: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    logs: list[dict[str, float]] = field(default_factory=list)
    record: Record | None = None


@dataclass(frozen=True)
class Verdict:
    """The outcome of a row: "recorded", "metrics eager", "refused", "needs CUDA" or "WRONG".

    Attributes:
        outcome: One of the above. "metrics eager": only UPDATE_METRICS runs eagerly.
        difference: The largest one to the eager run, absolute or relative to the value above 1.
        reason: Why something runs eagerly.
    """

    outcome: str
    difference: float
    reason: str = ""

    @property
    def holds(self) -> bool:
        """Whether the promise is kept: equal, or refused with a reason."""
        return self.outcome != "WRONG"


def judge(row: Row) -> Verdict:
    """Run a row both ways from the same seed and compare everything that moved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of refusals, and of what metrics keep in memory
        try:
            eager = _run(row, None)
        except AssertionError as error:
            if "capturable" not in str(error):
                raise
            return Verdict("needs CUDA", 0.0, "torch has this variant on accelerators only")
        recorded = _run(row, Record("interpret"))
    difference = _difference(eager, recorded)
    outcome, reason = _outcome(recorded.record)
    if not difference <= ROUNDING:
        return Verdict("WRONG", difference, f"{outcome}: {reason}")
    return Verdict(outcome, difference, reason)


def _run(row: Row, record: Record | None) -> Run:
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    training = row.make()
    loop = FitLoop(training.model, _loader(training, TRAIN), _loader(training, VAL))
    stack = supervised(
        loss=training.loss, optimizer=training.optimizer, metrics=list(training.metrics)
    )
    loop.attach(stack, *training.callbacks)
    run = Run(record=record)
    loop.on(Event.BATCH_END)(lambda state: run.losses.append(state.loss))
    loop.on(Event.EPOCH_END)(lambda state: run.logs.append(dict(state.logs)))
    if record is not None:
        loop.attach(record)
    loop.fit(epochs=EPOCHS)
    run.state = [tensor.detach().clone() for tensor in _state(training)]
    run.losses = [loss.detach().clone() for loss in run.losses]
    return run


def _loader(training: Training, num: int) -> TensorLoader:
    arrays = training.x if isinstance(training.x, tuple) else (training.x,)
    x = [array[:num] for array in arrays]
    return TensorLoader(x[0] if len(x) == 1 else tuple(x), training.y[:num], batch_size=BATCH)


def _state(training: Training) -> list[Tensor]:
    tensors = [*training.model.parameters(), *training.model.buffers()]
    optimizer = training.optimizer
    if isinstance(optimizer, torch.optim.Optimizer):
        slots = [v for p in tensors for v in optimizer.state.get(p, {}).values()]
        return tensors + [slot for slot in slots if isinstance(slot, Tensor)]
    return tensors + [v.value for v in optimizer.variables]


def _difference(left: Run, right: Run) -> float:
    assert len(left.state) == len(right.state)
    assert len(left.losses) == len(right.losses)
    assert [list(row) for row in left.logs] == [list(row) for row in right.logs]
    pairs = list(zip(left.state + left.losses, right.state + right.losses, strict=True))
    for ours, theirs in zip(left.logs, right.logs, strict=True):
        pairs += [(torch.tensor(ours[n]), torch.tensor(theirs[n])) for n in ours]
    return max(_distance(a, b) for a, b in pairs)


def _distance(a: Tensor, b: Tensor) -> float:
    if torch.equal(a, b):
        return 0.0
    a, b = a.double(), b.double()
    if not torch.equal(a.isfinite(), b.isfinite()):
        return float("inf")
    error = (a - b).abs() / a.abs().clamp(min=1.0)
    return float(error.nan_to_num(0.0).max())


def _outcome(record: Record) -> tuple[str, str]:
    recordings = list(record.recordings.values())
    refusals = [r.refusal for r in recordings if r.refusal is not None]
    eager = [r for r in recordings if r.refusal is not None and r.program is None]
    if eager:
        return "refused", _short(refusals[0])
    if refusals:
        return "metrics eager", _short(refusals[0])
    if not any(r.program and r.program.num_replays for r in recordings):
        return "refused", "nothing was replayed: every step has another key"
    return "recorded", ""


def _short(refusal: Any) -> str:
    """The reason, without the paths of this machine."""
    return str(refusal.reason)
