"""What a device knows of updates that were not finite, until the host asks."""

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
        bad: bool (); whether the latest update was not finite.
    """

    def __init__(self, device: torch.device) -> None:
        self.bad = torch.zeros((), dtype=torch.bool, device=device)
        self.has_loss = torch.ones((), dtype=torch.bool, device=device)
        self._numbers = torch.zeros(4, dtype=torch.int64, device=device)
        self._update = torch.zeros((), dtype=torch.int64, device=device)
        self._memory: Any = None  # on the CPU it is written without an operation
        if device.type == "cpu":
            self._memory = memoryview(cast(Any, self._update).numpy())  # sync: none, on the CPU
        self._parts: dict[str, Tensor] = {}
        self._losses: dict[str | None, Tensor] = {}  # by turn

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

    def note(self, parts: dict[str, Tensor], sums: Tensor) -> None:
        """Look at an update. Syncs: never.

        Args:
            parts: The loss and its parts, shape () each.
            sums: Of the gradient of each weight, shape (weights,).
        """
        # One sum over all: compiled code keeps it, and works out anything else for every element of
        # what is taken back.
        odd = ~torch.cat([sums, torch.stack([part.to(sums) for part in parts.values()])]).isfinite()
        self.bad.copy_(odd.any())
        first = self.bad & ~self.any_bad()
        place = odd.to(torch.uint8).argmax()
        place = torch.where(self.bad & (place < len(sums)), place, -1)
        for name, part in parts.items():
            if name not in self._parts:
                self._parts[name] = torch.zeros_like(part, dtype=torch.float32)
            self._parts[name].copy_(torch.where(first, part.float(), self._parts[name]))
        count, row, update, old_place = self._numbers.unbind()
        self._numbers.copy_(
            torch.stack(
                [
                    count + self.bad,
                    torch.where(self.bad, row + 1, 0),
                    torch.where(first, self._update, update),
                    torch.where(first, place, old_place),
                ]
            )
        )

    def any_bad(self) -> Tensor:
        """Return whether an update since the last look was not finite, bool (). Syncs: never."""
        return self._numbers[0] > 0

    def is_bad(self) -> bool:
        """Return whether the latest update was not finite. Syncs: once."""
        return bool(self.bad)  # sync: per update, only where nothing waits for it

    def look(self) -> Found | None:
        """Return what was found since the last look, None if all was finite. Syncs: once."""
        numbers: list[int] = cast(Any, self._numbers).tolist()  # sync: when it is time to look
        if numbers[0] == 0:
            return None
        parts = {name: float(part) for name, part in self._parts.items()}  # sync: only where bad
        self._numbers[0].zero_()
        num_bad, in_a_row, update, place = numbers
        return Found(num_bad, in_a_row, update, place, parts)
