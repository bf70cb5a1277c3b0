"""fitkit: the standard stack, eager or recorded, and its own `Benchmark` as a second opinion."""

from typing import Any

import torch

from benchmarks.suite.contestants.gan_losses import GanLosses
from benchmarks.suite.task import Task
from fitkit import Benchmark, Callback, FitLoop, Phase, Record, State, TensorLoader, gan, supervised


class PassClock(Callback):
    """Tells when a training pass begins and ends, as `Benchmark` beside it sees it."""

    phases = frozenset({Phase.TRAIN})

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_pass_begin(self, state: State) -> None:
        """Tell that it begins."""
        self.task.pass_begins()

    def on_pass_end(self, state: State) -> None:
        """Tell that it is over."""
        self.task.pass_ends()


class EpochEnd(Callback):
    """Rings after every epoch and its validation; tells what `Benchmark` has measured."""

    def __init__(self, task: Task, benchmark: Benchmark) -> None:
        self.task, self.benchmark, self.num_passes = task, benchmark, 0

    def on_pass_end(self, state: State) -> None:
        """Go on when `Benchmark` is done and wants to stop: the others are not."""
        self.num_passes += state.phase is Phase.TRAIN
        if state.stop and self.num_passes == self.task.warmup + self.task.windows:
            windows = self.benchmark.result.seconds
            self.task.told["benchmark_us"] = [1e6 * each / self.task.steps for each in windows]
            state.stop, state.stop_reason = False, None

    def on_epoch_end(self, state: State) -> None:
        """Ring."""
        self.task.tick()


class Nothing(Callback):
    """Does nothing twice a batch."""

    def on_batch_begin(self, state: State) -> None:
        """Do nothing."""

    def on_batch_end(self, state: State) -> None:
        """Do nothing."""


def train(task: Task, *, parts: str = "Keras", backend: Any = None, resident: bool = True) -> None:
    """Train with fitkit's own loader, or with the one that the other loops have."""
    case = task.case
    loader, val_loader = own_loaders(task) if resident else (task.loader(), task.val_loader())
    benchmark = Benchmark(task.steps, warmup=task.warmup * task.steps, repeats=task.windows)
    callbacks: list[Callback] = [Nothing() for _ in range(case.num_callbacks)]
    if backend is not None:
        callbacks.append(Record(backend, strict=True))
    make_stack = gan_stack if case.kind == "gan" else supervised_stack
    model, stack = make_stack(task, parts, backend)
    # Benchmark is the first: what the others do at the beginning of a pass is in its time, too
    callbacks = [PassClock(task), benchmark, *stack, *callbacks, EpochEnd(task, benchmark)]
    loop = FitLoop(model, loader, val_loader, callbacks=callbacks, run_dir=task.scratch)
    loop.fit(epochs=task.epochs)


def own_loaders(task: Task) -> tuple[TensorLoader, TensorLoader | None]:
    """Loaders that keep the data on the device."""
    arrays = (task.x,) if task.case.kind == "gan" else (task.x, task.y)
    loader = TensorLoader(*arrays, batch_size=task.batch)
    if not task.case.validates:
        return loader, None
    return loader, TensorLoader(task.x_val, task.y_val, batch_size=task.batch)


def supervised_stack(task: Task, parts: str, backend: Any) -> tuple[Any, Any]:
    """Recorded, torch's Adam has to be its fused one."""
    if parts == "Keras":
        optimizer, loss, metrics = task.keras_adam(), task.keras_loss(), task.keras_metrics()
    else:
        optimizer = task.torch_adam(fused=True if backend else None)
        loss, metrics = task.torch_loss(), task.torch_metrics()
    return task.model, supervised(loss=loss, optimizer=optimizer, metrics=metrics)


def gan_stack(task: Task, parts: str, backend: Any) -> tuple[Any, Any]:
    """Both kinds of parts have Keras's loss, as the guide's GAN has it."""
    model = task.model
    optimizers = model.d_optimizer, model.g_optimizer
    if parts == "torch":
        optimizers = GanLosses(model).optimizers(fused=True if backend else None)
    stack = gan(
        generator=model.generator,
        discriminator=model.discriminator,
        generator_optimizer=optimizers[1],
        discriminator_optimizer=optimizers[0],
        loss=model.loss_fn,
        latent_dim=model.latent_dim,
        seed=model.seed_generator,
    )
    return torch.nn.ModuleList([model.generator, model.discriminator]), stack
