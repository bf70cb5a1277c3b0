"""What the layers of a model cost in a step: operations, outputs, bytes."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from fitkit.data.structure import leaves

__all__ = ["Counter", "LayerRow"]


@final
@dataclass(slots=True)
class LayerRow:
    """A layer, with all layers inside it.

    Attributes:
        name: The names that lead to it, with dots; "" for the model.
        depth: 0 for the model.
        kind: Its class.
        num_trained: Numbers in its weights that are trained.
        num_other: Numbers in frozen weights and running statistics.
        num_bytes: Bytes of both.
        output: The shape of what it gave in the step that was counted, with the batch axis; None
            if it was not called, or gave no tensor.
        output_bytes: Bytes of that.
        flops: Floating point operations of its forward pass, for the whole batch.
    """

    name: str
    depth: int
    kind: str
    num_trained: int
    num_other: int
    num_bytes: int
    output: tuple[int, ...] | None = None
    output_bytes: int = 0
    flops: int = 0


class Counter:
    """Counts floating point operations while its `mode` is entered.

    Args:
        compiled: Whether parts of the model are compiled; their operators are out of sight, and
            nothing is counted.

    Attributes:
        mode: The context to enter.
    """

    def __init__(self, *, compiled: bool) -> None:
        from torch.utils import flop_counter

        module = cast(Any, flop_counter)

        def on_cpu(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
            return module.sdpa_flop_count(query, key, value)

        attention: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        counter = module.FlopCounterMode(display=False, custom_mapping={attention: on_cpu})
        self.mode: Any = nullcontext() if compiled else counter

    @property
    def total(self) -> int:
        """Operations so far."""
        return getattr(self.mode, "get_total_flops", int)()

    def watch(self, module: nn.Module, row: LayerRow) -> list[Any]:
        """Fill `row` whenever the module is called; return the handles of the hooks."""
        begun: list[int] = []

        def before(*_: Any) -> None:
            begun.append(self.total)

        def after(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
            row.flops += self.total - begun.pop()
            found = [leaf for _, leaf in leaves(outputs) if isinstance(leaf, Tensor)]
            row.output = tuple(found[0].shape) if found else None
            row.output_bytes = sum(tensor.nbytes for tensor in found)

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
