"""The loop: it owns model, device, loaders and bus, and fires events. Callbacks do the rest."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch

from fitkit.data import check_loader
from fitkit.errors import ConfigError
from fitkit.loop.bus import EventBus
from fitkit.loop.callback import TRAIN_ONLY, Callback, Turn
from fitkit.loop.checks import check_assembly
from fitkit.loop.collect import OutputCollector
from fitkit.loop.events import Event, Phase
from fitkit.loop.history import History
from fitkit.loop.lifetime import separate_logs
from fitkit.loop.listener import Listener, check_event, listener
from fitkit.loop.prepare import prepare_fit
from fitkit.loop.render import render
from fitkit.loop.roster import Attachable, Roster
from fitkit.loop.runner import Runner
from fitkit.loop.session import Session
from fitkit.loop.setup import (
    as_loaders,
    as_sequence,
    check_model,
    check_unpack,
    is_main_process,
    new_run_dir,
    resolve_device,
)
from fitkit.loop.signals import StopSignals
from fitkit.loop.state import State, Unpack

__all__ = ["FitLoop"]


class FitLoop:
    """Trains, evaluates and predicts with a model by firing events at attached callbacks.

    Args:
        model: A built Keras model (torch backend) or a `torch.nn.Module`.
        train_loader: What `fit` iterates: `TensorLoader`, `DataLoader`, `PyDataset`, generator,
            any iterable of batches.
        val_loader: What `Validate` and `evaluate` iterate. A dict gives several of them a name;
            their logs are then called `val_<name>_loss`.
        callbacks: Callbacks, stacks such as `supervised(...)`, and turns, in run order.
        device: "auto" is the device of the model's variables. Another value moves a torch
            module; a Keras model stays where it was built.
        unpack: Maps a batch to (inputs, targets, sample weights); the last two may be None.
        run_dir: Where callbacks put files; default is a new folder below `runs/`.

    Attributes:
        state: The blackboard all callbacks share.
        bus: The dispatch table.
        history: One row of logs per epoch.
        runner: Runs epochs, passes, batches.
        resumed_from: The checkpoint the latest `fit` went on from, if it did.

    Raises:
        TypeError: If the model, a loader or a callback is of the wrong kind.
        ConfigError: If the model is not built, has another Keras backend, or is on another device.
        DeviceError: If the device is not available.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        history = loop.fit(epochs=2)
        ```
    """

    def __init__(
        self,
        model: Any,
        train_loader: Any = None,
        val_loader: Any = None,
        *,
        callbacks: Iterable[Attachable] = (),
        device: str | torch.device = "auto",
        unpack: Unpack | None = None,
        run_dir: str | Path | None = None,
    ) -> None:
        check_model(model)
        check_unpack(unpack)
        self.model = model
        self.train_loader = train_loader
        self.val_loaders = as_loaders(train_loader, val_loader)
        self.device = resolve_device(model, device)
        self.is_main = is_main_process()
        self.has_given_run_dir = run_dir is not None
        self.run_dir = Path(run_dir) if run_dir is not None else new_run_dir()
        self.state = State(
            model, device=self.device, is_main=self.is_main, run_dir=self.run_dir, unpack=unpack
        )
        self.bus = EventBus(self.state)
        self.session = Session(self.bus, self.state)
        self.running: str | None = None
        self.resumed_from: Path | None = None
        self.history, self._outputs = History(), OutputCollector()
        self._roster = Roster(self)
        self.runner = Runner(self.bus, self.state, self._roster.apply_changes)
        self._roster.attach_own(self.history, self._outputs)
        self.attach(*as_sequence(callbacks))

    def fit(
        self,
        epochs: int | None = None,
        *,
        max_steps: int | None = None,
        max_time: float | None = None,
        resume: str | Path | None = None,
        allow_changed: Collection[str] = (),
    ) -> History:
        """Train until the first limit is reached; further calls go on where the last one ended.

        SIGTERM and Ctrl-C let it finish the step, and a validation under way, save and close; then
        the one ends the program with exit code 143, the other one raises KeyboardInterrupt. Ctrl-C
        again ends at once.

        Args:
            epochs: So many epochs more.
            max_steps: So many updates (completed accumulation windows) more.
            max_time: Seconds.
            resume: "auto" goes on from the newest intact checkpoint of the run, or begins anew
                where there is none; a path leads to a run or to one checkpoint. The limits then
                count from the beginning of the whole run.
            allow_changed: What may differ from the saved run: "versions", "data", "optimizer",
                "callbacks". The end is then not bit-identical to that of an uninterrupted run.

        Returns:
            The history of all calls so far.

        Raises:
            ConfigError: If no limit is given, one is not positive, or the stack cannot train.
            RuntimeError: If the loop is already running.
            DataError: If a loader or a batch cannot be used.
            CheckpointError: If there is nothing intact to resume from, or it is of another program.

        Syncs: the loop itself once per pass, and only for logs that no Metrics has read.
        """
        prepare_fit(self, epochs, max_steps, max_time, resume, allow_changed)
        phases = (Phase.TRAIN, Phase.VAL) if self.val_loaders else (Phase.TRAIN,)
        with StopSignals(self.state):
            self._run("fit", phases, lambda: self.runner.run_epochs(self.train_loader))
        return self.history

    def _run(self, kind: str, phases: Iterable[Phase], body: Callable[[], object]) -> None:
        """Check the stack, open all callbacks, run the body, close them."""
        for phase in phases:
            self.check(phase)
        if self.running is not None:  # called by a callback: part of the run it belongs to
            body()
            return
        self.running = kind
        try:
            self.session.run(self.callbacks, body)
        finally:
            self.running = None
            self._roster.settle()

    def check(self, phase: Phase) -> None:
        """Check that the attached callbacks can run a pass of `phase`.

        Raises:
            CallbackOrderError: If an action is missing or doubled, or the order is wrong.
        """
        check_assembly(self._roster.given, phase)

    def evaluate(self, loader: Any = None) -> dict[str, float]:
        """Run a validation pass and return its logs.

        Args:
            loader: What to evaluate on, or a dict of several; default is the loop's `val_loader`.

        Returns:
            Loss and metrics by name, without "val_". Several loaders put their name in front:
            `<name>_loss`. `state.logs` stays as it is.

        Raises:
            ConfigError: If there is no loader, or the stack cannot validate.
            DataError: If the loader or a batch cannot be used.

        Syncs: once per loader, when its metrics are read.
        """
        loaders = self.val_loaders if loader is None else as_loaders(None, loader)
        if not loaders:
            raise ConfigError(
                "evaluate() has nothing to evaluate on\n"
                "Pass a loader, or make the loop with val_loader=."
            )

        def run_passes() -> None:
            for name, each in loaders.items():
                self.runner.run_pass(Phase.VAL, each, prefix=f"{name}_" if name else "")

        with separate_logs(self.state) as logs:
            self._run("evaluate", [Phase.VAL], run_passes)
        return logs

    def predict(self, loader: Any) -> Any:
        """Return what the model gives for every sample of `loader`.

        Args:
            loader: Its batches are unpacked like those of training; only the inputs are used.

        Returns:
            numpy arrays of shape (samples, ...), in the structure of the model's outputs.

        Raises:
            DataError: If the loader or a batch cannot be used.

        Syncs: once per batch, to copy the outputs to the host.
        """
        check_loader(loader, "the loader to predict on")
        self._run("predict", [Phase.PREDICT], lambda: self.runner.run_pass(Phase.PREDICT, loader))
        return self._outputs.take()

    @property
    def callbacks(self) -> list[Callback]:
        """All attached callbacks in run order, those inside turns too."""
        return self._roster.callbacks

    def attach(self, *callbacks: Attachable) -> "FitLoop":
        """Add callbacks, stacks or turns at the end; in a run they join at the next batch.

        Raises:
            TypeError: If one of them is nothing that can be attached.
            ConfigError: If a callback is attached twice.
        """
        self._roster.attach(callbacks, running=self.running is not None)
        return self

    def detach(self, callback: Callback | Turn) -> None:
        """Remove a callback; in a run it leaves, and is closed, at the next batch.

        Raises:
            ConfigError: If it is not attached.
        """
        self._roster.detach(callback, running=self.running is not None)

    def on(
        self,
        event: Event,
        *,
        phases: Iterable[Phase] = TRAIN_ONLY,
        every: int | str = 1,
        once: bool = False,
        when: Callable[[State], bool] | None = None,
    ) -> Callable[[Callable[[State], object]], Listener]:
        """Attach the decorated function to `event`; it is called with the state.

        Args:
            event: The moment. An action can be filled this way, too.
            phases: The passes in which an event from PASS_BEGIN to PASS_END is meant.
            every: An int counts firings of the event; a string is an interval ("1 epoch",
                "500 updates", "10 minutes").
            once: Only the first time, in all of a run; after a resume not again.
            when: Called with the state; the function runs where it returns True. For an event of
                the step region it is asked at BATCH_BEGIN.

        Returns:
            A decorator that returns a handle: callable like the function, with `.remove()`.

        Raises:
            TypeError: If `event` is no event, as where `@loop.on` lacks one.
            ConfigError: If `every` is no interval, or `phases` are none.
        """
        check_event(event)

        def decorate(function: Callable[[State], object]) -> Listener:
            made = listener(function, event, phases=phases, every=every, once=once, when=when)
            self.attach(made)
            return made

        return decorate

    def record_report(self) -> str:
        """Return what `Record` recorded: nodes, seconds, replays, eager steps and why."""
        return self.runner.report()

    def __str__(self) -> str:
        """Return the assembled loop: event, callback and file, per phase, in firing order."""
        return render(self)
