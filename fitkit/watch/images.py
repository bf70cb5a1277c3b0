"""What a model was shown, what it said, and where it was most wrong, for TensorBoard."""

import math
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.curves import check_classes
from fitkit.watch.drawing import tiles_picture
from fitkit.watch.shown import Shown, answers_table, check_shape, images_of, pixels_of
from fitkit.watch.summaries import image_value

__all__ = ["Images"]


@final
class Images(Board):
    """Draw the first inputs of each validation with the answers, and those most wrong.

    Below an image stands what the model said, green where it is right; where it is wrong, red,
    with what would have been right. Most wrong is the answer that puts the right class farthest
    behind another one; for numbers, the largest difference.

    Args:
        num: How many images a picture holds.
        shape: (height, width) or (height, width, channels) of inputs that come as flat rows.
        classes: The names of the classes; default is 0, 1, 2, ...
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  state.inputs, (batch, height, width), with a last or first axis of 1 or 3 channels;
        state.outputs, state.targets, as `Curves` takes them, or a number per sample.
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
        shape: tuple[int, ...] | None = None,
        classes: Sequence[str] | None = None,
        log_dir: str | Path | None = None,
    ) -> None:
        super().__init__(log_dir)
        self._num = positive_int("num", num)
        self._shape = check_shape(shape)
        self._classes = check_classes(classes, "Images")
        self._open: list[tuple[Shown, Shown] | None] = []
        self.warns = True

    def on_pass_begin(self, state: State) -> None:
        """Begin to collect; a pass within this one collects for itself."""
        self._open.append(None)
        state.exits.callback(self._open.pop)

    def on_batch_end(self, state: State) -> None:
        """Keep the first images, and those of the worst answers so far."""
        if self.files is None or not state.prefix.startswith("val_"):
            return
        images = images_of(state.inputs, self._shape)
        if images is None:
            self._tell(state.inputs)
            return
        batch = Shown(images, answers_table(state.outputs, state.targets, len(images)))
        worst = batch.worst(self._num)  # copies: a replayed step writes to the same memory again
        if self._open[-1] is None:
            self._open[-1] = (Shown(images.clone(), batch.answers).first(self._num), worst)
            return
        first, worse = self._open[-1]
        if len(first.images) < self._num:
            first = (first + batch).first(self._num)
        self._open[-1] = (first, (worse + worst).worst(self._num))

    def on_pass_end(self, state: State) -> None:
        """Draw them."""
        found = self._open[-1]
        if self.files is None or found is None:
            return
        where = (state.prefix.rstrip("_"), self.files.axis.of_epoch(state), time.time())
        names = ("answers/samples", "answers/most wrong")
        for name, shown in zip(names, found, strict=True):
            answers: NDArray[np.float64] = shown.answers.cpu().numpy()  # sync: once per validation
            captions = [self._caption(row) for row in answers]
            if name == names[0] or any(text for text, _ in captions):
                columns = math.ceil(math.sqrt(len(captions)))
                picture = tiles_picture(pixels_of(shown.images), captions, columns)
                self.files.add_value(*where, name, **image_value(*picture))
        self.files.flush()

    def _caption(self, row: NDArray[np.float64]) -> tuple[str, bool | None]:
        _, said, right, said_number, right_number, kind = row.tolist()  # sync: none, on the host
        if math.isnan(kind):
            return "", None
        if not kind:
            return f"{said_number:.3g}, true {right_number:.3g}", None
        names = self._classes
        said_name = names[int(said)] if names else f"{said:.0f}"
        right_name = names[int(right)] if names else f"{right:.0f}"
        if said == right:
            return said_name, True
        return f"{said_name}, true {right_name}", False

    def _tell(self, inputs: Any) -> None:
        if self.warns:
            self.warns = False
            given = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
            warnings.warn(
                f"Images draws nothing: the inputs, {given}, are no images\n"
                "Say how a flat row is an image, Images(shape=(8, 8)), or leave Images out.",
                stacklevel=2,
            )
