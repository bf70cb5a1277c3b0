"""What a model is made of, and what a step of it costs."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TextIO, final

from fitkit.interop import weights_of
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.console import Console
from fitkit.watch.flops import Counter, LayerRow
from fitkit.watch.layers import NamedLayer, named_layers
from fitkit.watch.step_context import StepContext
from fitkit.watch.text_table import short, text_table

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["ModelSummary"]


@final
class ModelSummary(Callback):
    """Print the layers of the model after the first step: outputs, weights, FLOPs, bytes.

    FLOPs are those of the very first training step, so no data is made up and nothing is computed
    twice: matrix products, convolutions and attention, counted by `torch.utils.flop_counter`, two
    for each product that is added. Under `Record` that step runs eagerly.

    Args:
        depth: How deep layers within layers are printed; `rows` has them all.
        file: Where to; default is standard output.

    Reads:  the model; what its layers give in the first step.
    Writes: nothing.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if `depth` is no positive int.

    Attributes:
        rows: `LayerRow`s, the model first; empty before the first step.
        forward_flops: Of a batch of `batch_size`.
        step_flops: Of the whole step: forward, backward, loss and update.
        batch_size: Samples in the step that was counted.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, ModelSummary, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1), batch_size=32))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        summary = ModelSummary()
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), summary)
        loop.fit(epochs=1)
        assert summary.rows[0].num_trained == 5
        assert summary.forward_flops == 2 * 32 * 4
        ```
    """

    phases = TRAIN_ONLY
    only_watches = True

    def __init__(self, depth: int = 2, *, file: TextIO | None = None) -> None:
        self._depth = positive_int("depth", depth)
        self._console = Console(file)
        self._loop: FitLoop | None = None
        self._around: StepContext | None = None
        self.rows: list[LayerRow] = []
        self.forward_flops = self.step_flops = self.batch_size = 0

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop, for the first step."""
        self._loop = loop

    def on_batch_begin(self, state: State) -> None:
        """Count what happens in the first step."""
        if not self.rows and self._loop is not None:
            state.request_eager()
            layers = named_layers(state.model)
            self.rows = [_row_of(layer) for layer in layers]
            self._around = StepContext(self._loop.runner, lambda: self._counted(layers), eager=True)

    def on_batch_end(self, state: State) -> None:
        """Print what was found."""
        if self._around is not None:
            self._around.remove()
            self._around = None
            self.batch_size = state.batch_size
            if state.is_main:
                for line in str(self).splitlines():
                    self._console.line(line)

    def on_close(self, state: State) -> None:
        """Leave nothing behind after an error in the first step."""
        if self._around is not None:
            self._around.remove()
            self._around, self.rows = None, []

    @contextmanager
    def _counted(self, layers: list[NamedLayer]) -> Generator[None]:
        compiled = any(type(layer.module).__name__ == "OptimizedModule" for layer in layers)
        counter = Counter(compiled=compiled)
        with ExitStack() as exits:
            exits.enter_context(counter.mode)
            for layer, row in zip(layers, self.rows, strict=True):
                for handle in counter.watch(layer.module, row):
                    exits.callback(handle.remove)
            yield
            self.forward_flops += self.rows[0].flops
            self.step_flops += counter.total

    def __str__(self) -> str:
        """Return the table as text."""
        if not self.rows:
            return "ModelSummary: no step was run yet"
        shown = [row for row in self.rows if row.depth <= self._depth]
        head = ("layer", "class", "output", "trained", "other", "bytes", "FLOPs")
        lines = text_table(head, [_cells(row) for row in shown])
        if len(shown) < len(self.rows):
            lines.append(f"({len(self.rows) - len(shown)} layers deeper than {self._depth})")
        model, size = self.rows[0], self.batch_size
        kept = sum(row.output_bytes for row in self.rows if not self._has_parts(row))
        lines += [
            f"weights {_bytes(model.num_bytes)}, outputs of all layers {_bytes(kept)}",
            f"FLOPs for a batch of {size}: forward {_count(self.forward_flops)}, "
            f"whole step {_count(self.step_flops)}; "
            f"forward {_count(self.forward_flops // max(size, 1))} per sample",
        ]
        return "\n".join(lines)

    def _has_parts(self, row: LayerRow) -> bool:
        below = self.rows[self.rows.index(row) + 1 :]
        return bool(below) and below[0].depth > row.depth


def _row_of(layer: NamedLayer) -> LayerRow:
    weights = weights_of(layer.module)
    return LayerRow(
        layer.name,
        layer.depth,
        type(layer.module).__name__,
        sum(tensor.numel() for tensor, trained in weights if trained),
        sum(tensor.numel() for tensor, trained in weights if not trained),
        sum(tensor.nbytes for tensor, _ in weights),
    )


def _cells(row: LayerRow) -> tuple[str, ...]:
    name = "  " * row.depth + (short(row.name.rpartition(".")[2]) or "model")
    shape = "" if row.output is None else f"({', '.join(map(str, row.output))})"
    counts = (f"{row.num_trained:,}", f"{row.num_other:,}", _bytes(row.num_bytes))
    return name, row.kind, shape, *counts, _count(row.flops)


def _count(number: float) -> str:
    for unit in ("", " k", " M", " G", " T"):
        if number < 1000 or unit == " T":
            break
        number /= 1000
    return f"{number:,.0f}" if not unit else f"{number:.3g}{unit}"


def _bytes(number: int) -> str:
    return f"{_count(number)}B" if number >= 1000 else f"{number} B"
