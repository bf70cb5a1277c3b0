"""What a model was shown, what it said, and where it was most wrong, for TensorBoard."""

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.answers import check_classes, names_of
from fitkit.watch.board import Board
from fitkit.watch.drawing import label_of, tiles_picture
from fitkit.watch.shown import (
    Layout,
    Shown,
    answers_table,
    check_shape,
    images_of,
    layout_of,
    pixels_of,
)
from fitkit.watch.summaries import image_value
from fitkit.watch.together import Together

__all__ = ["Images"]


class _Kept:
    """Of a pass: the first images, and the worst in both readings of the outputs.

    Attributes:
        layout: What the inputs are; the first batch tells.
        first, worst: The images.
        shares: Bool (): whether the outputs may be probabilities.
        batches: Takes (images, outputs, targets).
    """

    layout: Layout
    first: Shown
    worst: tuple[Shown, Shown]
    shares: Tensor

    def __init__(self, num: int) -> None:
        self._num = num
        self.is_new = self.is_empty = True
        self.batches = Together(self._look)

    def _look(self, images: Tensor, outputs: Any, targets: Any) -> None:
        answers, shares = answers_table(outputs, targets, len(images))
        batch = Shown(images, answers)
        worst = batch.worst(self._num, 0), batch.worst(self._num, 1)
        if self.is_empty:
            self.is_empty = False
            # A copy: the batch need not be one.
            self.first = Shown(images[: self._num].clone(), answers[:, : self._num])
            self.worst, self.shares = worst, shares
            return
        if len(self.first.images) < self._num:
            self.first = (self.first + batch).first(self._num)
        self.worst = (
            (self.worst[0] + worst[0]).worst(self._num, 0),
            (self.worst[1] + worst[1]).worst(self._num, 1),
        )
        self.shares = self.shares & shares


@final
class Images(Board):
    """Draw the first inputs of each validation with the answers, and those most wrong.

    Below an image stands what the model said, green where it is right; where it is wrong, red,
    with what would have been right. Most wrong is the answer that puts the right class farthest
    behind another one; for numbers, the largest difference.

    Inputs of two sides without channels are gray images, unless one side is more than twice the
    other: those are series, time along the longer side, and their first six features are drawn as
    lines, each between its smallest and largest value in the picture.

    Args:
        num: How many images a picture holds.
        shape: (height, width) or (height, width, channels) of inputs that come as flat rows, or
            are images of other sides; "series" for lines, of rows, too.
        classes: The names of the classes; default is 0, 1, 2, ...
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  state.inputs, (batch, height, width), with a last or first axis of 1 or 3 channels, or
        (batch, time, features) or (batch, features, time); state.outputs, state.targets, as
        `Curves` takes them, or a number per sample.
    Writes: files, from the main process only, beside the validation's curves: pictures
        `answers/samples` and `answers/most wrong`.
    Logs:   nothing.
    Syncs:  once per validation.
    Raises: ConfigError if `shape` or `classes` do not fit the model; inputs that are no images are
        a warning.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, Images, TensorBoard, TensorLoader, supervised

        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        data = TensorLoader(torch.rand(64, 8, 8), torch.randint(10, (64,)))
        loop = FitLoop(model, data, data)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.CrossEntropyLoss(), optimizer=optimizer))
        loop.attach(TensorBoard(tempfile.mkdtemp()), Images())
        loop.fit(epochs=2)
        ```
    """

    phases = frozenset({Phase.VAL})
    needs = frozenset({"outputs"})
    only_watches = True

    def __init__(
        self,
        num: int = 25,
        *,
        shape: tuple[int, ...] | Literal["series"] | None = None,
        classes: Sequence[str] | None = None,
        log_dir: str | Path | None = None,
    ) -> None:
        super().__init__(log_dir)
        self._num = positive_int("num", num)
        self._shape: tuple[int, ...] | Literal["series"] | None = check_shape(shape)
        self._classes = check_classes(classes, "Images")
        self._open: list[_Kept] = []
        self.warns = True

    def on_pass_begin(self, state: State) -> None:
        """Begin to collect; a pass within this one collects for itself."""
        self._open.append(_Kept(self._num))
        state.exits.callback(self._open.pop)

    def on_batch_end(self, state: State) -> None:
        """Keep the first images, and those of the worst answers so far."""
        if self.files is None or not state.prefix.startswith("val_"):
            return
        kept = self._open[-1]
        if kept.is_new:
            kept.is_new, kept.layout = False, layout_of(state.inputs, self._shape)
        images = images_of(state.inputs, kept.layout)
        if images is None:
            self._tell(state.inputs)
        else:
            kept.batches.add(images, state.outputs, state.targets)

    def on_pass_end(self, state: State) -> None:
        """Draw them."""
        kept = self._open[-1]
        kept.batches.finish()
        if self.files is None or kept.is_empty:
            return
        where = (*self.files.axis.of_pass(state, state.prefix.rstrip("_")), time.time())
        reading = 0 if kept.shares.item() else 1  # sync: once per validation
        found = {"answers/samples": kept.first, "answers/most wrong": kept.worst[reading]}
        for name, shown in found.items():
            answers: Any = shown.answers[reading].cpu().numpy()  # sync: once per validation
            captions = [self._caption(row) for row in answers]
            if shown is kept.first or any(text for text, _ in captions):
                is_series = shown.images.dim() == 3
                columns = 3 if is_series else math.ceil(math.sqrt(len(captions)))
                picture = tiles_picture(pixels_of(shown.images), captions, columns)
                self.files.add_value(*where, name, **image_value(*picture))
        self.files.flush()

    def _caption(self, row: NDArray[np.float64]) -> tuple[str, bool | None]:
        _, said, right, said_number, right_number, num = row.tolist()  # sync: none, on the host
        if math.isnan(num):
            return "", None
        if not num:
            return f"{said_number:.3g}, true {right_number:.3g}", None
        names = names_of(self._classes, int(num), "Images")
        right_name = label_of(names[int(right)])
        if said == right:
            return right_name, True
        said_name = "not finite" if math.isnan(said) else label_of(names[int(said)])
        return f"{said_name}, true {right_name}", False

    def _tell(self, inputs: Any) -> None:
        if self.warns:
            self.warns = False
            given = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            warnings.warn(
                f"Images draws nothing: the inputs, {given}, are no images\n"
                "Say how a flat row is an image, Images(shape=(8, 8)), or that it is a series, "
                'Images(shape="series"), or leave Images out.',
                stacklevel=2,
            )
