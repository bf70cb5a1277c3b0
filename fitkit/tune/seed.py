"""Random numbers that are the same in every run."""

import os
import random
import sys
from collections.abc import Mapping
from typing import Any, Self, cast, final

import numpy as np
import torch

from fitkit.errors import ConfigError, brief
from fitkit.interop import keras
from fitkit.loop.callback import Callback
from fitkit.loop.state import State

__all__ = ["Seed"]

_MAX_SEED = 2**32 - 1  # numpy takes no larger one


@final
class Seed(Callback):
    """Seed Python, numpy, torch on all devices, and Keras when the first `fit` begins.

    Workers of a `DataLoader` are covered: torch seeds Python, numpy and torch in them from its own
    generator. What is drawn before, such as the first weights, needs `Seed(0).apply()` before the
    model is made. A further call of `fit` goes on with the random numbers as they are, and so does
    a resumed run.

    Args:
        seed: From 0 to 2**32 - 1.
        deterministic: Let torch refuse or replace operations whose result varies from run to run,
            while the loop runs; they may be slower. On a GPU `CUBLAS_WORKSPACE_CONFIG` must be set
            before torch first uses it, so make the callback early: it sets it if nobody has.

    Reads:  nothing.
    Writes: the states of the generators; torch's deterministic flags from OPEN to CLOSE.
    Logs:   nothing.
    Syncs:  never.
    Raises: ConfigError if the seed is no int in range.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, Seed, TensorLoader, supervised

        seed = Seed(0).apply()
        model = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Dropout(0.1))
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer), seed)
        loop.fit(epochs=1)
        ```
    """

    instead_of_two = "One seed is enough: it seeds everything."

    def __init__(self, seed: int = 0, *, deterministic: bool = False) -> None:
        is_int = isinstance(seed, int) and not isinstance(seed, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
        if not is_int or not 0 <= seed <= _MAX_SEED:
            raise ConfigError(
                f"Seed({brief(seed)}) got a {type(seed).__name__}, expected an int from 0 to "
                f"{_MAX_SEED}\nGive a whole number, for example Seed(0)."
            )
        self.seed = seed
        self.deterministic = deterministic
        self._is_applied = False
        self._before: tuple[bool, bool, bool, bool] | None = None
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def apply(self) -> Self:
        """Seed everything now."""
        if "keras" in sys.modules:  # else its generators will draw their seeds from Python's
            keras().utils.set_random_seed(self.seed)
        random.seed(self.seed)
        np.random.seed(self.seed)
        cast("Any", torch).manual_seed(self.seed)
        return self

    def on_open(self, state: State) -> None:
        """Switch torch to deterministic operations."""
        if not self.deterministic:
            return
        cudnn: Any = torch.backends.cudnn
        self._before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn.deterministic,
            cudnn.benchmark,
        )
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False

    def on_fit_begin(self, state: State) -> None:
        """Seed, once."""
        if not self._is_applied:
            self._is_applied = True
            self.apply()

    def on_close(self, state: State) -> None:
        """Switch back."""
        if self._before is None:
            return
        cudnn: Any = torch.backends.cudnn
        was_on, warned, cudnn.deterministic, cudnn.benchmark = self._before
        torch.use_deterministic_algorithms(was_on, warn_only=warned)
        self._before = None

    def state_dict(self) -> dict[str, Any]:
        """Return whether the run was seeded."""
        return {"is_applied": self._is_applied}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        self._is_applied = state["is_applied"]
