"""What the layers of a model give: whether they explode, vanish, or are dead."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from fitkit.data.structure import leaves
from fitkit.errors import ConfigError, brief
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.figure import new_figure
from fitkit.loop.interval import Interval
from fitkit.loop.state import State
from fitkit.watch.activation_rows import ActivationRow, packed, unpacked
from fitkit.watch.layers import leaf_layers
from fitkit.watch.step_context import StepContext
from fitkit.watch.text_table import short

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["ActivationStats"]

_FIGURES = ("mean", "std", "dead")
_Figures = tuple[Tensor, Tensor, Tensor]
_TITLES = ("mean", "standard deviation", "share of dead units")


@final
class ActivationStats(Callback):
    """Log mean, standard deviation and dead share of what each layer gives, every few updates.

    A unit (a place in the output, whatever its row of the batch) is dead in a step if it is 0 for
    every sample: behind a ReLU, no gradient reaches what feeds it. Looked at are the layers without
    layers of their own. One that is called several times in a step, such as a shared ReLU, counts
    with the mean over its calls. Such a step runs eagerly under `Record`; all others cost nothing.

    Args:
        every: How often: 100 updates, "1 epoch", "10 minutes". The first step is among them.
        layers: Names, or patterns such as "encoder.*"; default is all.

    Reads:  what layers give in training, floating point, (batch, ...); the first tensor of several.
    Writes: nothing.
    Logs:   activations/<layer>/mean, /std and /dead (0 to 1), the latest of the epoch; at each such
        update under step/ in TensorBoard.
    Syncs:  once per pass, for `plot`, and once per checkpoint within a pass.
    Raises: ConfigError if `every` is no interval, or `layers` names none of the model's.

    Attributes:
        rows: One per such update: (num_updates, {layer: (mean, std, dead)}), on the host. A run
            that goes on keeps them.

    Example:
        ```python
        import torch
        from fitkit import ActivationStats, FitLoop, TensorLoader, supervised

        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stats = ActivationStats(every=2)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), stats)
        history = loop.fit(epochs=3)
        assert 0 <= history["activations/1/dead"][-1] <= 1
        stats.plot()  # three charts, a line per layer; needs matplotlib
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True

    def __init__(self, every: int | str = 100, *, layers: str | list[str] | None = None) -> None:
        self._interval = Interval.parse(every)
        self._patterns = [layers] if isinstance(layers, str) else layers
        self._loop: FitLoop | None = None
        self._layers: dict[str, nn.Module] = {}
        self._around: StepContext | None = None
        self._first = True
        self._calls: dict[str, list[_Figures]] = {}
        self._unread: list[tuple[int, list[str], Tensor]] = []
        self.rows: list[ActivationRow] = []

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop; find the layers, so that a wrong name is known at once."""
        self._loop = loop
        found = leaf_layers(loop.model)
        if self._patterns is not None:
            found = {name: module for name, module in found.items() if self._is_meant(name)}
        if not found:
            raise ConfigError(
                f"ActivationStats(layers={brief(self._patterns)}) names no layer of the model\n"
                f"It has: {', '.join(map(brief, list(leaf_layers(loop.model))[:20]))}.\n"
                'Name some of them, or write a pattern such as "encoder.*".'
            )
        self._layers = found

    def detach(self, loop: "FitLoop") -> None:
        """Forget the loop."""
        self._loop = None

    def on_fit_begin(self, state: State) -> None:
        """Start the interval."""
        self._first = state.num_updates == 0  # not where a run goes on
        self._interval.start(state)

    def on_batch_begin(self, state: State) -> None:
        """Look at the layers in this step if it is due."""
        if not (self._first or self._interval.due(state)) or self._loop is None:
            return
        self._first = False
        self._interval.mark(state)
        state.request_eager()
        self._around = StepContext(self._loop.runner, self._watched, eager=True)

    def on_batch_end(self, state: State) -> None:
        """Log what was seen."""
        if self._around is None:
            return
        self._around.remove()
        self._around = None
        found = {name: _mean(calls) for name, calls in self._calls.items()}
        self._calls.clear()
        for name, figures in found.items():
            for figure, value in zip(_FIGURES, figures, strict=True):
                state.log(f"activations/{name}/{figure}", value, reduce="last")
        if found:
            together = torch.stack([value for figures in found.values() for value in figures])
            self._unread.append((state.num_updates, [*found], together))

    def on_pass_end(self, state: State) -> None:
        """Read what `plot` draws."""
        self._read()

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        if not unread:
            return
        joined: Any = torch.cat([figures for *_, figures in unread]).reshape(-1, len(_FIGURES))
        numbers = iter(joined.tolist())  # sync: once per pass or checkpoint
        for num_updates, names, _ in unread:
            self.rows.append((num_updates, {name: tuple(next(numbers)) for name in names}))

    def on_close(self, state: State) -> None:
        """Leave nothing in the model after an error."""
        if self._around is not None:
            self._around.remove()
            self._around = None
        self._calls.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, as a few tensors."""
        self._read()
        return packed(self.rows)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them; what was seen after the checkpoint is forgotten."""
        self._unread.clear()
        self.rows = unpacked(state)

    def plot(self, *, figure: Any = None) -> list[Any]:
        """Draw mean, standard deviation and dead share over the updates; return the axes.

        Raises:
            ImportError: If matplotlib is not installed.
            RuntimeError: If nothing was seen yet.
        """
        if not self.rows:
            raise RuntimeError(
                "ActivationStats has nothing to draw: no pass has ended yet\n"
                "Call loop.fit(epochs=1) first."
            )
        figure = new_figure(11, 3.4) if figure is None else figure
        all_axes: list[Any] = list(figure.subplots(1, len(_FIGURES)))
        names = list(dict.fromkeys(name for _, row in self.rows for name in row))
        for index, (axes, title) in enumerate(zip(all_axes, _TITLES, strict=True)):
            for name in names:
                points = [(at, row[name][index]) for at, row in self.rows if name in row]
                axes.plot(*zip(*points, strict=True), label=self._label(name), linewidth=1)
            axes.set(title=title, xlabel="updates")
            axes.grid(alpha=0.3)
        all_axes[-1].set_ylim(-0.02, 1.02)
        if len(names) <= 20:  # beyond that it would cover the charts
            figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside right", fontsize=8)
        return all_axes

    def _label(self, name: str) -> str:
        """Return a name that tells something where the layers are numbered."""
        kind = type(self._layers[name]).__name__ if name in self._layers else ""
        return short(f"{name} {kind}" if name[-1:].isdigit() else name).strip("_ ") or "?"

    @contextmanager
    def _watched(self) -> Generator[None]:
        with ExitStack() as exits:
            for name, module in self._layers.items():
                exits.callback(module.register_forward_hook(self._hook(name)).remove)
            yield

    def _hook(self, name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
            tensors = (leaf for _, leaf in leaves(outputs) if isinstance(leaf, Tensor))
            first = next(tensors, None)
            if first is not None and first.is_floating_point() and first.numel():
                self._calls.setdefault(name, []).append(_figures(first.detach()))

        return look

    def _is_meant(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns or ())


def _figures(outputs: Tensor) -> _Figures:
    """Return mean, standard deviation and dead share of a tensor (batch, ...), float32 () each."""
    exact = outputs.float()
    std, mean = torch.std_mean(exact, correction=0)
    dead = exact.any(0).logical_not().mean(dtype=torch.float32)
    return mean, std, dead


def _mean(calls: list[_Figures]) -> _Figures:
    """Return the mean over the calls of a layer."""
    if len(calls) == 1:
        return calls[0]
    mean, std, dead = torch.stack([torch.stack(each) for each in calls]).mean(0).unbind()
    return mean, std, dead
