"""The confusion matrix and precision-recall curves of each validation, for TensorBoard."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.loop.events import Phase
from fitkit.loop.state import State
from fitkit.watch.answers import Answers, answers_of, check_classes, names_of
from fitkit.watch.board import Board
from fitkit.watch.drawing import confusion_picture
from fitkit.watch.run_files import RunFiles
from fitkit.watch.summaries import image_value, pr_curve_value
from fitkit.watch.together import Together

__all__ = ["Curves"]

_NUM_THRESHOLDS = 101
_MAX_CURVES, _MAX_DRAWN = 20, 100


@dataclass
class _Counts:
    """What was counted of a pass, on its device, for both readings of the outputs.

    Attributes:
        confusion: int64 (2, classes * classes), by right class and answer; (2, 0) for many classes.
        scores: int64 (2, curves * 2 * thresholds), by class, whether it was right, and score; one
            curve for many classes.
        told: int64 (3,): whether all targets were classes, whether all outputs may be
            probabilities, how many samples were left out because theirs are not finite.
    """

    confusion: Tensor
    scores: Tensor
    told: Tensor
    num_classes: int

    @classmethod
    def of(cls, answers: Answers) -> "_Counts":
        num = answers.readings.shape[2]
        zeros = partial(torch.zeros, dtype=torch.int64, device=answers.labels.device)
        confusion = zeros(2, num * num if num <= _MAX_DRAWN else 0)
        curves = num if num <= _MAX_CURVES else 1
        told = torch.ones_like(zeros(3))
        told[2] = 0
        return cls(confusion, zeros(2, curves * 2 * _NUM_THRESHOLDS), told, num)

    def add(self, answers: Answers) -> None:
        num, labels = self.num_classes, answers.labels
        known = ((labels >= 0) & (labels < num) & answers.finite).long()
        labels = labels.clamp(0, num - 1)
        classes = torch.arange(num, device=labels.device)
        is_it = (labels[:, None] == classes).long()
        first = classes * 2 if num <= _MAX_CURVES else torch.zeros_like(classes)
        counted = known[:, None].expand_as(is_it).flatten()
        for reading, scores in enumerate(answers.readings):
            if num <= _MAX_DRAWN:
                self.confusion[reading].index_add_(0, labels * num + scores.argmax(1), known)
            places = (scores.nan_to_num(0) * (_NUM_THRESHOLDS - 1)).long()
            bars = (first + is_it) * _NUM_THRESHOLDS + places.clamp(0, _NUM_THRESHOLDS - 1)
            self.scores[reading].index_add_(0, bars.flatten(), counted)
        self.told[:2] &= torch.stack([answers.fit, answers.shares]).long()
        self.told[2] += (~answers.finite).sum()

    def read(self) -> tuple[int, NDArray[np.int64] | None, NDArray[np.float64]] | None:
        """Return how many were left out and both tables, None without classes. Syncs: once."""
        parts = (self.told, self.confusion.flatten(), self.scores.flatten())
        numbers: Any = torch.cat(parts).cpu().numpy()  # sync: once per validation
        is_fit, are_shares, num_left_out = numbers[:3]
        if not is_fit:
            return None
        reading, num, size = (0 if are_shares else 1), self.num_classes, self.confusion.numel()
        confusion = numbers[3 : 3 + size].reshape(2, num, num)[reading] if size else None
        scores = numbers[3 + size :].reshape(2, -1, 2, _NUM_THRESHOLDS)[reading]
        return num_left_out, confusion, scores.astype(np.float64)


def _count(counts: list[_Counts], outputs: Any, targets: Any) -> None:
    """Count answers, in counts that the first of them make."""
    answers = answers_of(outputs, targets)
    if answers is not None:
        if not counts:
            counts.append(_Counts.of(answers))
        counts[0].add(answers)


@final
class Curves(Board):
    """Draw the confusion matrix and precision-recall curves of a classifier, per validation.

    Both are counted on the device while the validation pass runs: there is no second pass. Scores
    are counted at 101 thresholds. Outputs are probabilities if in the whole pass they lie between 0
    and 1 and, where there are several, add up to 1; otherwise they are logits. Beyond 20 classes
    there is only the curve of all together, beyond 100 no matrix. For a model that is no classifier
    nothing is written.

    Args:
        classes: Their names; default is 0, 1, 2, ...
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  state.outputs, (batch, classes), logits or probabilities, or (batch, 1) for two classes;
        state.targets, class indices or one-hot rows.
    Writes: files, from the main process only, beside the validation's curves: pictures
        `answers/confusion`, curves `pr/<class>` and `pr/all classes`.
    Logs:   nothing.
    Syncs:  once per validation.
    Raises: ConfigError if `classes` are not as many as the model has; outputs that are not finite
        are left out, which is a warning, the first time.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import Curves, FitLoop, TensorBoard, TensorLoader, supervised

        model = torch.nn.Linear(4, 3)
        data = TensorLoader(torch.randn(64, 4), torch.randint(3, (64,)))
        loop = FitLoop(model, data, data)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer))
        loop.attach(TensorBoard(tempfile.mkdtemp()), Curves(["cat", "dog", "bird"]))
        loop.fit(epochs=2)
        ```
    """

    phases = frozenset({Phase.VAL})
    needs = frozenset({"outputs"})
    only_watches = True

    def __init__(
        self, classes: Sequence[str] | None = None, *, log_dir: str | Path | None = None
    ) -> None:
        super().__init__(log_dir)
        self._classes = check_classes(classes, "Curves")
        self._open: list[tuple[Together, list[_Counts]]] = []
        self._has_told = False

    def on_pass_begin(self, state: State) -> None:
        """Begin to count; a pass within this one counts for itself."""
        counts: list[_Counts] = []  # none before the first batch
        self._open.append((Together(partial(_count, counts)), counts))
        state.exits.callback(self._open.pop)

    def on_batch_end(self, state: State) -> None:
        """Count the answers of the batch."""
        if self.files is not None and state.prefix.startswith("val_"):
            batches, _ = self._open[-1]
            batches.add(state.outputs, state.targets)

    def on_pass_end(self, state: State) -> None:
        """Write what was counted."""
        batches, found = self._open[-1]
        batches.finish()
        counts = found[0] if found else None
        tables = None if counts is None else counts.read()
        if counts is not None and tables is not None and self.files is not None:
            num_left_out, confusion, scores = tables
            if num_left_out and not self._has_told:
                self._has_told = True
                warnings.warn(
                    f"Curves left out {num_left_out} samples of a validation: their outputs are "
                    "not finite\nAttach NaNGuard() to see where that begins.",
                    stacklevel=2,
                )
            names = names_of(self._classes, counts.num_classes, "Curves")
            self._write(self.files, state, names, confusion, scores)

    def _write(
        self,
        files: RunFiles,
        state: State,
        names: Sequence[str],
        confusion: NDArray[np.int64] | None,
        scores: NDArray[np.float64],
    ) -> None:
        where = (*files.axis.of_pass(state, state.prefix.rstrip("_")), time.time())
        if confusion is not None:
            picture = image_value(*confusion_picture(confusion, names))
            files.add_value(*where, "answers/confusion", **picture)
        # How many scores lie at or above each threshold.
        above = scores[:, :, ::-1].cumsum(2)[:, :, ::-1]
        curves = {"all classes": above.sum(0)} if len(names) > 2 else {}
        if len(above) == len(names):
            start = 1 if len(names) == 2 else 0  # the other class is its mirror image
            curves |= dict(zip(names[start:], above[start:], strict=True))
        for name, (negative, positive) in curves.items():
            value = pr_curve_value(positive, negative, positive[0], negative[0])
            files.add_value(*where, f"pr/{name}", **value)
        files.flush()
