"""What the model gave for every sample of a pass."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from fitkit.data import Gather, default_unpack
from fitkit.data.rows import check_rows, joined
from fitkit.data.structure import leaves, map_leaves
from fitkit.errors import ConfigError, brief
from fitkit.loop.callback import Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State

__all__ = ["Collected", "Predictions"]

_CHANGED = (
    "Predictions keeps targets as they are at the end of the pass, and they were written to in it\n"
    "Read state.targets at BATCH_BEGIN, after Predictions: they are copied with each batch then."
)


@final
@dataclass(frozen=True)
class Collected:
    """The samples of a pass, in the order in which they came, on the CPU.

    Attributes:
        outputs: What the model gave, nested tensors of shape (samples, ...).
        targets: The targets, the same; None where the batches have none.
        ids: int64 (samples,). Rows of the arrays, where the loader gathers from arrays; otherwise
            positions in the pass.
        num_dropped: Samples of the pass that were not kept, because there were too many.
    """

    outputs: Any
    targets: Any
    ids: Tensor
    num_dropped: int


@dataclass(slots=True)
class _Part:
    """Batches one after the other whose targets come from the same place."""

    arrays: Any = None  # of a loader; None if the batches were gathered, as most are
    versions: list[int] = field(default_factory=list[int])  # of the targets among them, at first
    targets: list[Any] = field(default_factory=list[Any])  # on the host; with arrays none yet
    ids: list[Tensor] = field(default_factory=list[Tensor])


@dataclass(slots=True)
class _Open:
    """A pass that is being collected."""

    parts: list[_Part] = field(default_factory=lambda: [_Part()])
    outputs: list[Any] = field(default_factory=list[Any])
    gather: Gather | None = None  # the current batch, as it came
    num_seen: int = 0


@final
class Predictions(Callback):
    """Keep outputs, targets and sample ids of the latest pass of each kind, on the CPU.

    Args:
        phases: Which passes: "val" (also those of `evaluate`), "train", "predict".
        max_samples: How many samples of a pass are kept; later ones are counted.

    Reads:  state.outputs, state.targets, nested tensors of shape (batch, ...). Where no step reads
        the batch, as under Record, targets are read at the end of the pass.
    Writes: nothing.
    Logs:   nothing.
    Syncs:  once per batch of such a pass, until `max_samples` are kept.
    Raises: ConfigError if a phase is unknown or `max_samples` no positive int; DataError where
        outputs have no row for each sample, or rows of several shapes.

    Attributes:
        passes: `Collected` by the name of the pass: "train", "val", "val_<name of the loader>",
            "predict".

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Predictions, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        data = TensorLoader(torch.randn(64, 4), torch.randn(64, 1))
        loop = FitLoop(model, data, data)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        predictions = Predictions(max_samples=50)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), predictions)
        loop.fit(epochs=1)
        val = predictions.passes["val"]
        errors = (val.outputs - val.targets).abs()
        assert errors.shape == (50, 1) and val.num_dropped == 14
        ```
    """

    needs = frozenset({"outputs"})
    only_watches = True

    def __init__(self, phases: Iterable[str] = ("val",), *, max_samples: int = 100_000) -> None:
        given = [phases] if isinstance(phases, str) else list(phases)
        known = {phase.value for phase in Phase}
        if not given or not set(given) <= known:
            raise ConfigError(
                f"Predictions(phases={brief(phases)}) got an unknown phase, expected some of: "
                f'{", ".join(sorted(known))}\nWrite for example Predictions(["val"]).'
            )
        self.phases = frozenset(Phase(each) for each in given)
        self.passes: dict[str, Collected] = {}
        self._max_samples = positive_int("max_samples", max_samples)
        self._open: list[_Open] = []

    def on_pass_begin(self, state: State) -> None:
        """Collect for this pass; a pass within it collects for itself."""
        self._open.append(_Open())
        state.exits.callback(self._open.pop)

    def on_batch_begin(self, state: State) -> None:
        """Note which rows are about to be gathered."""
        self._open[-1].gather = state.pending

    def on_batch_end(self, state: State) -> None:
        """Copy the batch to the host, as far as there is room."""
        now, size, pending = self._open[-1], state.batch_size, state.pending
        begin = now.num_seen
        now.num_seen = begin + size
        room = self._max_samples - begin
        if room <= 0:
            return
        arrays = None if pending is None else pending.arrays
        part = now.parts[-1]
        if part.arrays is not arrays:
            part = _Part(arrays, _versions(arrays))
            now.parts.append(part)
        if now.gather is None:
            rows = torch.arange(begin, begin + size, device=state.device)
        else:
            rows = now.gather.index
        part.ids.append(rows if size <= room else rows[:room])
        if not now.outputs:
            check_rows(state.outputs, size, who="Predictions")
        now.outputs.append(_kept(state.outputs, room, size))
        if arrays is None:  # otherwise its rows are gathered with those of the others
            part.targets.append(_kept(state.targets, room, size))

    def on_pass_end(self, state: State) -> None:
        """Put the batches together."""
        now = self._open[-1]
        if not now.outputs:
            return
        parts = [part for part in now.parts if part.ids]
        rows = [torch.cat(part.ids) for part in parts]
        if any(part.versions != _versions(part.arrays) for part in parts):
            warnings.warn(_CHANGED, stacklevel=2)
        ids = torch.cat(rows).cpu()  # sync: once per pass
        self.passes[state.prefix.rstrip("_") or state.phase.value] = Collected(
            joined(now.outputs, who="Predictions"),
            joined([_targets(*both) for both in zip(parts, rows, strict=True)], who="Predictions"),
            ids,
            now.num_seen - len(ids),
        )


def _kept(structure: Any, room: int, size: int) -> Any:
    """Return the first `room` of `size` samples on the host."""
    if room < size:
        structure = map_leaves(lambda leaf: leaf[:room], structure)
    return map_leaves(_to_host, structure)


def _to_host(tensor: Tensor) -> Tensor:
    # A copy also on the CPU: a recorded step writes its outputs to the same memory again.
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor.clone() if tensor.is_cpu else tensor.cpu()  # sync: once per batch


def _targets(part: _Part, rows: Tensor) -> Any:
    """Return the targets of a part; those that nobody has gathered by one gather."""
    if part.arrays is None:
        return joined(part.targets, who="Predictions")
    targets = default_unpack(part.arrays)[1]
    return map_leaves(lambda leaf: leaf[rows].cpu(), targets)  # sync: once per pass


def _versions(arrays: Any) -> list[int]:
    """Return how often the targets among the arrays of a loader have been written to."""
    if arrays is None:
        return []
    return [leaf._version for _, leaf in leaves(default_unpack(arrays)[1])]
