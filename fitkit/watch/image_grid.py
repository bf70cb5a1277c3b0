"""Pictures for TensorBoard."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from fitkit.errors import brief
from fitkit.interop import modules_of
from fitkit.loop.interval import Interval, positive_int
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.png import grid_of, png_of
from fitkit.watch.summaries import image_value

__all__ = ["ImageGrid"]


@final
class ImageGrid(Board):
    """Write a grid of images to TensorBoard after each epoch: samples of a generator, for example.

    The images go to the folder `images` beside the curves of `TensorBoard`, over the same steps.
    They are made in eval mode, without gradients.

    Args:
        sample: Called without arguments; returns images of shape (n, height, width, c) or
            (n, c, height, width), c = 1 or 3, uint8 or floats from 0 to 1.
        every: "1 epoch", "5 epochs" or "10 minutes", as seen at the end of an epoch.
        tag: What TensorBoard calls them.
        columns: How many stand in a row; default is as many as make a square.
        log_dir: Where the folder is made; default is the loop's run_dir.

    Reads:  state.num_updates.
    Writes: files, from the main process only.
    Logs:   nothing.
    Syncs:  once per grid.
    Raises: TypeError if `sample` cannot be called; DataError for other shapes. A disk that fails is
        a warning.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, ImageGrid, TensorLoader, supervised

        model = torch.nn.Linear(4, 64)
        data = TensorLoader(torch.randn(64, 4), torch.rand(64, 64))
        loop = FitLoop(model, data, run_dir=tempfile.mkdtemp())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        latent = torch.randn(9, 4)
        loop.attach(ImageGrid(lambda: model(latent).reshape(9, 8, 8, 1)))
        loop.fit(epochs=2)
        ```
    """

    def __init__(
        self,
        sample: Callable[[], Any],
        *,
        every: int | str = "1 epoch",
        tag: str = "samples",
        columns: int | None = None,
        log_dir: str | Path | None = None,
    ) -> None:
        if not callable(sample):
            raise TypeError(
                f"ImageGrid got {brief(sample)}, expected a function that returns images\n"
                "Write ImageGrid(lambda: generator(latent))."
            )
        super().__init__(log_dir)
        self._sample = sample
        self._interval = Interval.parse(every)
        self._tag = tag
        self._columns = None if columns is None else positive_int("columns", columns)

    def on_fit_begin(self, state: State) -> None:
        """Open the file."""
        super().on_fit_begin(state)
        self._interval.start(state)

    def on_epoch_end(self, state: State) -> None:
        """Write the grid if it is due."""
        if self.files is None or not self._interval.due(state):
            return
        self._interval.mark(state)
        images = self._made(state)
        picture = grid_of(images, self._columns or math.ceil(math.sqrt(len(images))))
        size = (picture.shape[0], picture.shape[1], picture.shape[2])
        x = self.files.axis.of_epoch(state)
        value = image_value(png_of(picture), size)
        self.files.add_value("images", x, time.time(), self._tag, **value)
        self.files.flush()

    def _made(self, state: State) -> Tensor:
        modes = [(module, module.training) for module in modules_of(state.model)]
        state.model.eval()
        try:
            with torch.no_grad():
                return self._sample()
        finally:
            for module, training in modes:
                module.training = training
