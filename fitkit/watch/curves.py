"""The confusion matrix and precision-recall curves of each validation, for TensorBoard."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
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

__all__ = ["Curves"]

_NUM_THRESHOLDS = 101
_MAX_CURVES, _MAX_DRAWN = 20, 100


@dataclass
class _Counts:
    """What was counted of a pass, on its device.

    Attributes:
        confusion: int64 (classes * classes,), by right class and answer.
        scores: int64 (classes * 2 * thresholds,), by class, whether it was right, and score.
        fit: Whether all targets were classes.
    """

    confusion: Tensor
    scores: Tensor
    fit: Tensor
    num_classes: int

    @classmethod
    def of(cls, answers: Answers) -> "_Counts":
        num, device = answers.scores.shape[1], answers.scores.device
        return cls(
            torch.zeros(num * num, dtype=torch.int64, device=device),
            torch.zeros(num * 2 * _NUM_THRESHOLDS, dtype=torch.int64, device=device),
            answers.fit,
            num,
        )

    def add(self, answers: Answers) -> None:
        num, labels = self.num_classes, answers.labels
        known = ((labels >= 0) & (labels < num)).long()
        labels = labels.clamp(0, num - 1)
        said = answers.scores.argmax(1)
        self.confusion.index_add_(0, labels * num + said, known)
        places = (answers.scores * (_NUM_THRESHOLDS - 1)).long().clamp(0, _NUM_THRESHOLDS - 1)
        classes = torch.arange(num, device=labels.device)
        is_it = (labels[:, None] == classes).long()
        bars = (classes * 2 + is_it) * _NUM_THRESHOLDS + places
        self.scores.index_add_(0, bars.flatten(), known[:, None].expand_as(bars).flatten())
        self.fit = self.fit & answers.fit

    def read(self) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Return both tables on the host, None if the targets are no classes. Syncs: once."""
        joined = torch.cat([self.fit.long()[None], self.confusion, self.scores])
        numbers: Any = joined.cpu().numpy()  # sync: once per validation
        if not numbers[0]:
            return None
        num = self.num_classes
        confusion = numbers[1 : 1 + num * num].reshape(num, num)
        scores = numbers[1 + num * num :].reshape(num, 2, _NUM_THRESHOLDS)
        return confusion, scores.astype(np.float64)


@final
class Curves(Board):
    """Draw the confusion matrix and precision-recall curves of a classifier, per validation.

    Both are counted on the device while the validation pass runs: there is no second pass. Scores
    are counted at 101 thresholds. Beyond 20 classes there is only the curve of all together, beyond
    100 no matrix. For a model that is no classifier nothing is written.

    Args:
        classes: Their names; default is 0, 1, 2, ...
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  state.outputs, (batch, classes), logits or probabilities, or (batch, 1) for two classes;
        state.targets, class indices or one-hot rows.
    Writes: files, from the main process only, beside the validation's curves: pictures
        `answers/confusion`, curves `pr/<class>` and `pr/all classes`.
    Logs:   nothing.
    Syncs:  once per validation.
    Raises: ConfigError if `classes` are not as many as the model has.

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
        self._open: list[_Counts | None] = []

    def on_pass_begin(self, state: State) -> None:
        """Begin to count; a pass within this one counts for itself."""
        self._open.append(None)
        state.exits.callback(self._open.pop)

    def on_batch_end(self, state: State) -> None:
        """Count the answers of the batch."""
        if self.files is None or not state.prefix.startswith("val_"):
            return
        answers = answers_of(state.outputs, state.targets)
        if answers is not None:
            counts = self._open[-1] or _Counts.of(answers)
            counts.add(answers)
            self._open[-1] = counts

    def on_pass_end(self, state: State) -> None:
        """Write what was counted."""
        counts = self._open[-1]
        tables = None if counts is None else counts.read()
        if tables is not None and self.files is not None:
            names = names_of(self._classes, len(tables[0]), "Curves")
            self._write(self.files, state, names, *tables)

    def _write(
        self,
        files: RunFiles,
        state: State,
        names: Sequence[str],
        confusion: NDArray[np.int64],
        scores: NDArray[np.float64],
    ) -> None:
        where = (state.prefix.rstrip("_"), files.axis.of_epoch(state), time.time())
        if len(names) <= _MAX_DRAWN:
            picture = image_value(*confusion_picture(confusion, names))
            files.add_value(*where, "answers/confusion", **picture)
        # How many scores lie at or above each threshold.
        above = scores[:, :, ::-1].cumsum(2)[:, :, ::-1]
        curves = {"all classes": above.sum(0)} if len(names) > 2 else {}
        if len(names) <= _MAX_CURVES:
            start = 1 if len(names) == 2 else 0  # the other class is its mirror image
            curves |= dict(zip(names[start:], above[start:], strict=True))
        for name, (negative, positive) in curves.items():
            value = pr_curve_value(positive, negative, positive[0], negative[0])
            files.add_value(*where, f"pr/{name}", **value)
        files.flush()
