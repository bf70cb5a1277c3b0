"""What was run, in words, for TensorBoard."""

import contextlib
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch

from fitkit.errors import ConfigError, brief
from fitkit.interop import trainable_parameters
from fitkit.loop.callback import TRAIN_ONLY
from fitkit.loop.snapshot import versions
from fitkit.loop.state import State
from fitkit.watch.board import Board
from fitkit.watch.hparams import settings_of
from fitkit.watch.run_files import WHOLE_RUN
from fitkit.watch.summaries import text_value

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["RunText"]

_MAX_ROWS = 500


@final
class RunText(Board):
    """Write down what was run: settings, the assembled loop, weights, versions, git commit.

    A run that goes on writes it again, as far as it got; the newest is on top.

    Args:
        config: Settings of your own, by name.
        log_dir: Where to; default is where the `TensorBoard` of the loop writes, or its run_dir.

    Reads:  the loop, state.model; `git` in the folder of the program, if there is one.
    Writes: a file, from the main process only: texts `run/settings`, `run/loop`, `run/weights`,
        `run/versions`.
    Logs:   nothing.
    Syncs:  once per fit, to read the learning rate.
    Raises: ConfigError if `config` is no dict.

    Example:
        ```python
        import tempfile

        import torch
        from fitkit import FitLoop, RunText, TensorBoard, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(TensorBoard(tempfile.mkdtemp()), RunText({"data": "random numbers"}))
        loop.fit(epochs=1)
        ```
    """

    phases = TRAIN_ONLY

    def __init__(
        self, config: Mapping[str, Any] | None = None, *, log_dir: str | Path | None = None
    ) -> None:
        super().__init__(log_dir)
        if config is not None and not isinstance(config, Mapping):
            raise ConfigError(
                f"RunText({brief(config)}) got a {type(config).__name__}, expected a dict\n"
                'Write RunText({"data": "digits"}).'
            )
        self._config: dict[str, Any] = dict(config or {})

    def on_fit_begin(self, state: State) -> None:
        """Write everything that is known before the first batch."""
        super().on_fit_begin(state)
        if self.files is None or self._loop is None:
            return
        limits = {"max_epochs": state.max_epochs, "max_steps": state.max_steps}
        given = {name: value for name, value in limits.items() if value is not None}
        texts = {
            "settings": _table(
                ("setting", "value"), settings_of(self._loop) | given | self._config
            ),
            "loop": f"```\n{self._loop}\n```",
            "weights": _weights(state.model),
            "versions": _table(("what", "which"), _surroundings(self._loop)),
        }
        for name, text in texts.items():
            value = text_value(text)
            self.files.add_value(WHOLE_RUN, state.num_updates, time.time(), f"run/{name}", **value)
        self.files.flush()


def _table(head: tuple[str, str], rows: Mapping[str, Any]) -> str:
    """Return a table in Markdown; what a value holds can not leave its cell."""
    cells = [(name, _cell(str(value))) for name, value in rows.items()]
    lines = [head, ("---", "---"), *((_cell(name), value) for name, value in cells)]
    return "\n".join(f"| {left} | {right} |" for left, right in lines)


def _cell(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text)
    return printable.replace("|", "\\|")[:1000]


def _weights(model: Any) -> str:
    pairs = trainable_parameters(model)
    rows = [(name, tuple(tensor.shape), tensor.numel()) for name, tensor in pairs[:_MAX_ROWS]]
    lines = [f"| {_cell(name)} | {shape} | {size:,} |" for name, shape, size in rows]
    total = sum(tensor.numel() for _, tensor in pairs)
    rest = f", the first {_MAX_ROWS} of them here" if len(pairs) > _MAX_ROWS else ""
    return "\n".join(
        [
            f"**{type(model).__name__}**: {total:,} numbers to train in {len(pairs)} weights{rest}",
            "",
            "| weight | shape | numbers |",
            "| --- | --- | --- |",
            *lines,
        ]
    )


def _surroundings(loop: "FitLoop") -> dict[str, str]:
    device = loop.device
    found = {"device": str(device)}
    if device.type == "cuda":
        found["device"] += f", {torch.cuda.get_device_name(device)}"
    found |= {"threads": str(torch.get_num_threads()), "system": platform.platform()}
    found |= {name: str(version) for name, version in versions().items()}
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    found["program"] = str(program)
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found["git commit"] = _commit(program.resolve().parent)
    return found


def _commit(folder: Path) -> str:
    """Return the commit a program is of, and whether files differ from it."""
    commit = _git(folder, "rev-parse", "HEAD")
    commit.check_returncode()
    changed = _git(folder, "diff", "--quiet", "HEAD").returncode
    return f"{commit.stdout.strip()}, with changes" if changed else commit.stdout.strip()


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=5)
