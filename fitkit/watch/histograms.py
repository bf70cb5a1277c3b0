"""How weights and gradients are distributed, for TensorBoard."""

import math
import time
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.interop import is_keras, trainable_parameters
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.run_files import RunFiles
from fitkit.watch.spread import LENGTH, look_at, norms_of
from fitkit.watch.summaries import histogram_values

__all__ = ["Histograms"]

_MAX_PENDING = 10
_Table = NDArray[np.float32]


@final
class Histograms(Board):
    """Draw histograms and norms of weights and gradients, and how much an update changes a weight.

    They are made in the first update and every `every`-th after it. Under `Record` that step runs
    eagerly: a recorded one keeps no gradients. Gradients are those at GRADS_READY behind what is
    listed before this callback: behind a clipping callback they are clipped. What is not finite
    is left out of histograms, and shows in the norms. Of a sparse gradient the rows that it has are
    looked at.

    Args:
        every: How many updates lie between two of them.
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  the trainable weights and their gradients.
    Writes: files, from the main process only: histograms `weights/<name>`, `gradients/<name>`;
        scalars `weight_norm/`, `gradient_norm/` and `update_ratio/<name>`, the norm of an update
        over the norm of the weight, if that is not zero. Ratios around 1e-3 are usual.
    Logs:   nothing.
    Syncs:  once per pass, or per ten of them.
    Raises: ConfigError if `every` is no positive int.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, Histograms, TensorBoard, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(TensorBoard(tempfile.mkdtemp()), Histograms(every=2))
        loop.fit(epochs=2)
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True  # an update that is looked at runs eagerly
    after = ("Accumulate",)

    def __init__(self, every: int = 100, *, log_dir: str | Path | None = None) -> None:
        super().__init__(log_dir)
        self._every = positive_int("every", every)
        self._is_due = False
        self._weights: dict[str, Tensor] = {}
        self._before: list[Tensor] = []
        self._gradients: dict[str, Tensor] = {}
        self._pending: list[_Update] = []

    def on_fit_begin(self, state: State) -> None:
        """Open the files; ask for charts with all layers in one."""
        super().on_fit_begin(state)
        if self.files is not None:
            for title in ("update_ratio", "gradient_norm", "weight_norm"):
                chart = {title.replace("_", " "): [f"^{title}/"]}
                self.files.charts.setdefault("All layers", {}).update(chart)

    def on_pass_begin(self, state: State) -> None:
        """List what is trained now."""
        model: Any = state.model
        pairs = trainable_parameters(model)
        # Keras numbers unnamed models, so that those of two runs would share no chart.
        whole = f"{model.name}/" if is_keras(model, "Model") else ""
        self._weights = {
            name.removeprefix(whole): p for name, p in pairs if p.is_floating_point() and p.numel()
        }

    def on_batch_begin(self, state: State) -> None:
        """Decide on the host whether this update is looked at, and keep the weights before it."""
        due = state.num_updates % self._every == 0 and state.closes_update
        self._is_due = due and self.files is not None
        if self._is_due:
            state.request_eager()
            self._before = [weight.detach().clone() for weight in self._weights.values()]
            self._gradients = {}

    def on_grads_ready(self, state: State) -> None:
        """Look at the gradients, those of one turn after the other."""
        if not self._is_due:
            return
        found: dict[str, Tensor] = {}
        for name, weight in self._weights.items():
            if (gradient := weight.grad) is not None:
                is_dense = gradient.layout is torch.strided
                values = gradient if is_dense else gradient.coalesce().values()
                if values.numel():
                    found[name] = values
        if found:
            self._gradients |= zip(found, look_at([*found.values()]).unbind(), strict=True)

    def on_batch_end(self, state: State) -> None:
        """Look at the weights."""
        if not self._is_due or self.files is None:
            return
        self._is_due = False
        if self._weights:
            weights = [weight.detach() for weight in self._weights.values()]
            lengths = norms_of(self._before)
            for new, old in zip(weights, self._before, strict=True):
                old.sub_(new)  # in place: there may be no room for another copy
            looks = [look_at(weights)]
            if self._gradients:
                device = looks[0].device
                looks += [torch.stack([look.to(device) for look in self._gradients.values()])]
            update = _Update(
                self.files.axis.of_update(state),
                time.time(),
                [*self._weights],
                [*self._gradients],
                torch.cat(looks),
                norms_of(self._before) / lengths,
            )
            self._pending.append(update)
        self._before, self._gradients = [], {}
        if len(self._pending) == _MAX_PENDING:
            _write(self.files, self._pending)

    def on_pass_end(self, state: State) -> None:
        """Write what was looked at."""
        if self.files is not None:
            _write(self.files, self._pending)

    def on_close(self, state: State) -> None:
        """Write what an error has left."""
        try:
            if self.files is not None:
                _write(self.files, self._pending)
        finally:
            self._is_due, self._before, self._gradients = False, [], {}
            self._pending.clear()
            super().on_close(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Forget what was seen of updates that the run has gone back behind."""
        self._pending.clear()


class _Update(NamedTuple):
    """What was seen of one update, on the device."""

    x: int
    wall_s: float
    weights: list[str]
    gradients: list[str]
    looks: Tensor  # (weights + gradients, LENGTH)
    ratios: Tensor  # (weights,)


def _write(files: RunFiles, pending: list[_Update]) -> None:
    if pending:
        looks = torch.cat([update.looks for update in pending])
        parts = [looks.flatten(), *[update.ratios for update in pending]]
        numbers: Any = torch.cat(parts).cpu().numpy()  # sync: once per pass or per ten of them
        table = numbers[: looks.numel()].reshape(-1, LENGTH)
        _write_histograms(files, pending, table[:, 1:3], table[:, 3:])
        norms: list[float] = table[:, 0].tolist()  # sync: none, it is on the host
        ratios: list[float] = numbers[table.size :].tolist()  # sync: none, as above
        _write_scalars(files, pending, norms, ratios)
    pending.clear()
    files.flush()


def _write_histograms(
    files: RunFiles, pending: Sequence[_Update], ranges: _Table, counts: _Table
) -> None:
    drawn: Any = np.isfinite(ranges).all(1) & counts.any(1)
    places = [
        (update.x, update.wall_s, f"{kind}/{name}")
        for update in pending
        for kind, names in (("weights", update.weights), ("gradients", update.gradients))
        for name in names
    ]
    values = histogram_values(ranges[drawn], counts[drawn])
    for place, value in zip(compress(places, drawn), values, strict=True):
        files.add_value(files.axis.of_updates_run, *place, **value)


def _write_scalars(
    files: RunFiles, pending: Sequence[_Update], norms: Sequence[float], ratios: Sequence[float]
) -> None:
    next_norm, next_ratio = iter(norms), iter(ratios)
    for update in pending:
        scalars = {f"weight_norm/{name}": next(next_norm) for name in update.weights}
        scalars |= {f"gradient_norm/{name}": next(next_norm) for name in update.gradients}
        scalars |= {
            f"update_ratio/{name}": ratio
            for name in update.weights
            if math.isfinite(ratio := next(next_ratio))  # a weight that was zero has none
        }
        files.add(files.axis.of_updates_run, update.x, update.wall_s, scalars)
