"""What a device knows of updates that were not finite, until the host asks."""

from collections.abc import Mapping, Sequence
from functools import reduce
from math import isfinite
from typing import Any, NamedTuple, cast, final

import torch
from torch import Tensor

__all__ = ["Found", "NaNFlags"]


class Found(NamedTuple):
    """What was found since the last look.

    Attributes:
        num_bad: Updates that were not finite.
        in_a_row: How many of them came last, without a finite one behind.
        update: The first of them, counted from 0.
        place: Which weight was the first whose gradient is not finite; -1 if all were finite.
        parts: The loss, and its parts by name, of that update.
    """

    num_bad: int
    in_a_row: int
    update: int
    place: int
    parts: dict[str, float]


@final
class NaNFlags:
    """Tensors on the device, written in place; a recorded step writes them as well.

    Attributes:
        has_loss: bool (); whether the loss of the latest batch is finite.
        num_bad: int64 (); updates since the last look that were not finite.
        in_a_row: int64 (); how many of them came last; 0 after an update that was finite.
    """

    def __init__(self, device: torch.device) -> None:
        self.has_loss = torch.ones((), dtype=torch.bool, device=device)
        self.num_bad, self.in_a_row, self._update, self._first = (
            torch.zeros((), dtype=torch.int64, device=device) for _ in range(4)
        )
        self._memory: Any = None  # on the CPU it is written without an operation
        if device.type == "cpu":
            self._memory = memoryview(cast(Any, self._update).numpy())  # sync: none, on the CPU
        self._losses: dict[str | None, Tensor] = {}  # by turn
        # What the first bad update gave, else the latest; by turn, and by its parts of the loss.
        self._seen: dict[tuple[str | None, int, tuple[str, ...]], Tensor] = {}

    def begin(self, update: int) -> None:
        """Say on the host which update comes next. Syncs: never."""
        if self._memory is None:
            self._update.fill_(update)
        else:
            self._memory[()] = update

    def keep_loss(self, loss: Tensor, turn: str | None, *, opens: bool) -> None:
        """Keep the loss of a batch, shape (), that does not complete the update. Syncs: never."""
        if turn not in self._losses:
            self._losses[turn] = torch.zeros_like(loss)
        self._losses[turn].copy_(loss if opens else self.loss_of_update(loss, turn))

    def loss_of_update(self, loss: Tensor, turn: str | None) -> Tensor:
        """Return the first loss of the update that is not finite, else the latest, shape ()."""
        before = self._losses[turn]
        return torch.where(before.isfinite(), loss, before)

    def note(
        self, gradients: Sequence[Tensor | None], parts: Mapping[str, Tensor], turn: str | None
    ) -> None:
        """Look at an update. Syncs: never.

        Args:
            gradients: Of each weight; None where it has none.
            parts: The loss and its parts, shape () each.
            turn: Whose update it is.
        """
        values = _stacked(gradients, [*parts.values()])
        key = (turn, len(gradients), tuple(parts))
        if key not in self._seen:
            self._seen[key] = torch.zeros_like(values)
        known, seen = self.num_bad > 0, self._seen[key]
        torch.where(known, seen, values, out=seen)
        torch.where(known, self._first, self._update, out=self._first)
        # Compiled code keeps the result of a sum, and works out anything else for every element of
        # what is taken back.
        bad = ~values.isfinite().all()
        self.num_bad.add_(bad)
        self.in_a_row.add_(1).mul_(bad)

    def is_bad(self) -> bool:
        """Return whether the latest update was not finite. Syncs: once."""
        return bool(self.in_a_row)  # sync: per update, only where nothing waits for it

    def look(self) -> Found | None:
        """Return what was found since the last look, None if all was finite. Syncs: once."""
        num_bad = int(self.num_bad)  # sync: when it is time to look
        if num_bad == 0:
            return None
        in_a_row, update = int(self.in_a_row), int(self._first)  # sync: only where bad
        place, named = -1, dict[str, float]()
        for (_, num_gradients, names), seen in self._seen.items():
            values: list[float] = cast(Any, seen).tolist()  # sync: only where bad
            odd = [index for index, value in enumerate(values) if not isfinite(value)]
            if odd:
                place = odd[0] if odd[0] < num_gradients else -1
                named = dict(zip(names, values[num_gradients:], strict=True))
            seen.zero_()  # another turn may be the next
        self.num_bad.zero_()
        return Found(num_bad, in_a_row, update, place, named)


def _stacked(gradients: Sequence[Tensor | None], parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of each gradient and all parts, shape (gradients + parts,).

    A sum is not finite where an element is not, and 0 where there is no gradient: who has one
    differs from turn to turn. It is one pass, which writes nothing of the size of a gradient.
    """
    given = [each for each in gradients if each is not None]
    dtypes = [each.dtype for each in (*given, *parts)]
    wide, device = reduce(torch.promote_types, dtypes, torch.float32), parts[0].device
    none = torch.zeros((), dtype=wide, device=device)
    sums = [none if each is None else each.sum(dtype=wide).to(device) for each in gradients]
    return torch.stack([*sums, *[part.to(device, wide) for part in parts]])
