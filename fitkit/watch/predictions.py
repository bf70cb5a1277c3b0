"""What the model gave for every sample of a pass."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast, final

import torch
from torch import Tensor

from fitkit.data import default_unpack
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


@dataclass
class _Open:
    """A pass that is being collected."""

    outputs: list[Any] = field(default_factory=list[Any])
    targets: list[Any] = field(default_factory=list[Any])
    arrays: list[Any] = field(default_factory=list[Any])  # where targets are not gathered yet
    ids: list[Tensor] = field(default_factory=list[Tensor])
    rows: Tensor | None = None  # of the current batch
    versions: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    num_kept: int = 0
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
    Raises: ConfigError if a phase is unknown or `max_samples` no positive int.

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
        self._open[-1].rows = None if state.pending is None else state.pending.index

    def on_batch_end(self, state: State) -> None:
        """Copy the batch to the host, as far as there is room."""
        now, size = self._open[-1], state.batch_size
        begin, room = now.num_seen, min(self._max_samples - now.num_kept, size)
        now.num_seen += size
        if room <= 0:
            return
        now.num_kept += room
        rows = now.rows
        if rows is None:
            rows = torch.arange(begin, begin + size, device=state.device)
        now.ids.append(rows if room == size else rows[:room])
        now.outputs.append(_kept(state.outputs, room, size))
        if state.pending is None:
            now.arrays.append(None)
            now.targets.append(_kept(state.targets, room, size))
        else:  # nobody has gathered the batch: its rows are gathered with those of the others
            arrays = state.pending.arrays
            now.arrays.append(arrays)
            now.targets.append(None)
            if id(arrays) not in now.versions:
                now.versions[id(arrays)] = _versions(arrays)

    def on_pass_end(self, state: State) -> None:
        """Put the batches together."""
        now = self._open[-1]
        if now.ids:
            self.passes[state.prefix.rstrip("_") or state.phase.value] = Collected(
                _joined(now.outputs),
                _targets(now),
                torch.cat(now.ids).cpu(),  # sync: once per pass
                now.num_seen - now.num_kept,
            )


def _kept(structure: Any, room: int, size: int) -> Any:
    """Return the first `room` of `size` samples on the host."""
    if room < size:
        structure = map_leaves(lambda leaf: leaf[:room], structure)
    return map_leaves(_to_host, structure)


def _to_host(tensor: Tensor) -> Tensor:
    # A copy also on the CPU: a recorded step writes its outputs to the same memory again.
    tensor = tensor.detach()
    return tensor.clone() if tensor.is_cpu else tensor.cpu()  # sync: once per batch


def _targets(now: _Open) -> Any:
    """Return the targets of a pass; those of consecutive lazy batches by one gather."""
    parts: list[Any] = []
    places = range(len(now.ids))
    for _, group in groupby(places, lambda place: id(now.arrays[place])):
        found = [*group]
        arrays = now.arrays[found[0]]
        if arrays is None:
            parts += [now.targets[place] for place in found]
            continue
        rows = torch.cat([now.ids[place] for place in found])
        targets = default_unpack(arrays)[1]
        if _versions(arrays) != now.versions[id(arrays)]:
            warnings.warn(_CHANGED, stacklevel=3)
        parts.append(map_leaves(lambda leaf, rows=rows: leaf[rows].cpu(), targets))  # sync: once
    return _joined(parts)


def _versions(arrays: Any) -> list[int]:
    """Return how often the targets among the arrays of a loader have been written to."""
    return [leaf._version for _, leaf in leaves(default_unpack(arrays)[1])]


def _joined(batches: list[Any]) -> Any:
    columns = zip(*([leaf for _, leaf in leaves(batch)] for batch in batches), strict=True)
    joined = iter([torch.cat(cast("list[Tensor]", list(column))) for column in columns])
    return map_leaves(lambda _: next(joined), batches[0])
