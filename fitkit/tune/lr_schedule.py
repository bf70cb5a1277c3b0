"""Learning rates, weight decay and momentum that change while a model trains."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast, final

import torch
from torch.optim import lr_scheduler

from fitkit.errors import ConfigError, brief
from fitkit.interop import is_keras, keras
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import Phase
from fitkit.loop.figure import axes_or_new
from fitkit.loop.interval import Interval, positive_int
from fitkit.loop.monitor import Monitor
from fitkit.loop.state import State
from fitkit.tune.held_optimizer import Setting, held_optimizer, setting_of
from fitkit.tune.plateau import Plateau
from fitkit.tune.rates_of_steps import RatesOfSteps, ratios_of
from fitkit.tune.schedules import is_pure
from fitkit.tune.second_controller import check_alone
from fitkit.tune.torch_schedule import is_torch_schedule, rates_ahead

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["LRSchedule"]

# What no optimizer takes below 0; a schedule that falls to 0 may end so far below it by rounding.
_LEAST: dict[str, float] = {"lr": -1e-12, "weight_decay": -1e-12, "momentum": -1e-12}


@final
class LRSchedule(Callback):
    """Set the learning rate of an optimizer, or another of its numbers, by a schedule.

    The number is set at BATCH_BEGIN, so update k, counted from 0, runs with the value of step k.
    Updates are completed accumulation windows. With several parameter groups the value is that of
    the first one; the others keep their ratio to it.

    Args:
        schedule: A function of the 0-based step, such as `Cosine(1e-3, steps=1000)`; a Keras
            schedule; a torch scheduler, made from the optimizer; or `Plateau("val_loss")`.
        every: What a step is: 1 or "1 update", "1 epoch", "2 epochs".
        of: What is set: "lr", "weight_decay", "momentum" (the first beta where there are betas),
            or any other number of the optimizer.
        monitor: The key in `state.logs` that torch's `ReduceLROnPlateau` looks at.
        optimizer: Which one, where the loop has several.

    Reads:  state.num_updates, or those of the optimizer's turn; state.epoch; for a plateau
        state.logs, once per validation.
    Writes: the number, in the groups of a torch optimizer, in the variable of a Keras one. Under
        Record a new weight decay or momentum, and a rate that an optimizer cannot take as a
        tensor (see docs/record.md), is a new program: change it per epoch.
    Logs:   weight_decay, momentum, ...: what is set, if it is not lr; lr is logged by the step.
    Syncs:  once per fit, to read what there is; with a plateau once per value. A torch scheduler
        on tensor rates, and a function that returns a tensor, as they do.
    Raises: ConfigError if the optimizer has no such number, if somebody else sets it as well, if
        the value to look at is not logged, or if the schedule gives no finite number, or for lr,
        weight_decay or momentum one below 0.

    Example:
        ```python
        import torch
        from fitkit import Cosine, FitLoop, LRSchedule, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(LRSchedule(Cosine(1e-3, steps=10, warmup=2)))
        loop.fit(max_steps=10)
        ```
    """

    only_watches = True  # to a recorded step a rate is a tensor or in its key; others are not
    follows_weights = True  # the optimizer goes back to a checkpoint: so does where this was
    after = ("Metrics", "CompiledRun")

    def __init__(
        self,
        schedule: Any,
        *,
        every: int | str = 1,
        of: str = "lr",
        monitor: str | None = None,
        optimizer: Any = None,
    ) -> None:
        self.of = of
        if of != "lr" or getattr(schedule, "cycle_momentum", False):
            self.only_watches = False
        self._schedule = _checked(schedule, of)
        self._is_torch = is_torch_schedule(schedule)
        self._is_keras = is_keras(schedule, "optimizers.schedules.LearningRateSchedule")
        self._interval = _in_steps(every)
        self._optimizer = schedule.optimizer if self._is_torch else optimizer
        self._plateau = schedule if isinstance(schedule, Plateau) else None
        self._monitor = _monitor_of(schedule, monitor)
        self.phases = TRAIN_ONLY if self._monitor is None else frozenset({Phase.TRAIN, Phase.VAL})
        self._loop: FitLoop | None = None
        self._setting: Setting | None = None
        self._turn: str | None = None
        self._rates = RatesOfSteps(ahead=is_pure(schedule))
        self._at = -1  # the step whose value is set; -1 is none yet

    def __str__(self) -> str:
        """Return how messages call it."""
        what = getattr(self._schedule, "__name__", type(self._schedule).__name__)
        return f"LRSchedule({what})"

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its callbacks hold the optimizer."""
        self._loop = loop

    def controls(self, loop: "FitLoop") -> dict[int, set[str]]:
        """Return which numbers it sets, by the id of the optimizer."""
        optimizer, _ = held_optimizer(loop, self._optimizer, "LRSchedule")
        cycles = getattr(self._schedule, "cycle_momentum", False)
        return {id(optimizer): {self.of, "momentum"} if cycles else {self.of}}

    def on_fit_begin(self, state: State) -> None:
        """Find the optimizer; check that nobody else sets the number and that values will come."""
        assert self._loop is not None  # noqa: S101  # a hook runs only while attached
        optimizer, self._turn = held_optimizer(self._loop, self._optimizer, "LRSchedule")
        check_alone(self._loop, str(self), optimizer, self.controls(self._loop)[id(optimizer)])
        self._setting = setting_of(optimizer, self.of, "LRSchedule")
        if self._monitor is not None:
            self._monitor.check(self._loop)
        elif self._is_torch:
            self._at = self._step(state) if self._at < 0 else self._at
        else:
            self._at = -1  # also after somebody has loaded the optimizer's state
            self._rates.scale(self._rates.ratios or ratios_of(self._setting.read()))

    def on_batch_begin(self, state: State) -> None:
        """Set the value of this step, if it is a new one."""
        step = self._step(state)
        if step == self._at or self._setting is None or self._monitor is not None:
            return
        if self._is_torch:
            for _ in range(step - self._at):
                self._schedule.step()
        else:
            self._setting.write(self._rates.of(step, self._value))
        self._at = step

    def on_pass_end(self, state: State) -> None:
        """Look at the value a validation has logged; log what was set."""
        if self.of != "lr" and state.phase is Phase.TRAIN and self._setting is not None:
            name = f"{self.of}_{self._turn}" if self._turn else self.of
            state.logs[name] = self._setting.read()[0]
        if self._monitor is not None:
            self._judge(self._monitor.at_pass_end(state))

    def on_epoch_end(self, state: State) -> None:
        """Look at a value that training has logged."""
        if self._monitor is not None:
            self._judge(self._monitor.at_epoch_end(state))

    def values(self, num_steps: int) -> list[float]:
        """Return what the next steps get, of the first parameter group; nothing is changed.

        Raises:
            ConfigError: If it depends on logged values.
        """
        positive_int("num_steps", num_steps)
        if self._monitor is not None:
            raise ConfigError(
                f"{self} depends on '{self._monitor.name}', so nobody knows its values yet\n"
                "Plot a schedule of the step, such as Cosine(1e-3, steps=1000)."
            )
        if self._is_torch:
            return rates_ahead(self._schedule, num_steps)
        return [self._value(step) for step in range(num_steps)]

    def plot(self, num_steps: int, *, axes: Any = None) -> Any:
        """Draw the schedule before training; return the matplotlib axes.

        Raises:
            ConfigError: If it depends on logged values.
            ImportError: If matplotlib is not installed.
        """
        values, axes = self.values(num_steps), axes_or_new(axes)
        axes.plot(range(num_steps), values)
        axes.set(xlabel=f"step ({self._interval.unit}s)", ylabel=self.of)
        return axes

    def state_dict(self) -> dict[str, Any]:
        """Return where it is, what is set, and what a scheduler or plateau keeps."""
        inner: Any = getattr(self._schedule, "state_dict", None)
        kept: dict[str, Any] = {} if inner is None else copy.deepcopy(inner())
        seen = None if self._monitor is None else self._monitor.state_dict()
        # lr is saved with the optimizer; Keras ones save none of the other numbers.
        values = [] if self.of == "lr" or self._setting is None else self._setting.read()
        own = {"at": self._at, "ratios": self._rates.ratios, "values": values}
        return {**own, "inner": kept, "monitor": seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self._at = state["at"]
        self._rates.scale(state["ratios"])
        if self._setting is not None and (values := state.get("values")):
            self._setting.write(values)
        if self._monitor is not None:
            self._monitor.load_state_dict(state["monitor"])
        if state["inner"]:
            self._schedule.load_state_dict(copy.deepcopy(state["inner"]))

    def _step(self, state: State) -> int:
        interval, turn = self._interval, self._turn
        if interval.unit == "epoch":
            done = state.epoch
        else:
            done = state.num_updates if turn is None else state.turn_updates.get(turn, 0)
        return int(done // interval.count)

    def _value(self, step: int) -> float:
        schedule: Callable[[Any], Any] = self._schedule
        if self._is_keras:
            with torch.no_grad(), keras().device("cpu"):
                given = schedule(torch.tensor(step))
        else:
            given = schedule(step)
        try:
            value = float(given)  # sync: none, unless the function gives a tensor of the device
        except (TypeError, ValueError):
            value = math.nan
        if not _LEAST.get(self.of, -math.inf) < value < math.inf:
            least = " >= 0" if self.of in _LEAST else ""
            raise ConfigError(
                f"{self} gives {brief(given)} at step {step}, expected a finite number{least}\n"
                "Correct the schedule; plot(num_steps) shows it before training."
            )
        return value

    def _judge(self, value: float | None) -> None:
        if value is None or self._setting is None:
            return
        if self._plateau is None:
            self._schedule.step(value)
            return
        rates = self._setting.read()
        changed = self._plateau.judged(value, rates)
        if changed != rates:
            self._setting.write(changed)


def _in_steps(every: int | str) -> Interval:
    interval = Interval.parse(every)
    if interval.unit == "minute":
        raise ConfigError(
            f"LRSchedule(every={brief(every)}) is measured in time, expected updates or epochs\n"
            'Use every=1, "100 updates" or "1 epoch".'
        )
    return interval


def _monitor_of(schedule: Any, name: str | None) -> Monitor | None:
    if isinstance(schedule, Plateau) and name is None:
        return schedule.monitor
    is_plateau = isinstance(schedule, lr_scheduler.ReduceLROnPlateau)
    if is_plateau and name is not None:
        mode: Any = cast("Any", schedule).mode
        return Monitor("LRSchedule", name, mode=mode)
    if name is None and not is_plateau:
        return None
    given = f"{type(schedule).__name__} and monitor={brief(name)}"
    raise ConfigError(
        f"LRSchedule got {given}, expected monitor= with ReduceLROnPlateau only\n"
        'Write LRSchedule(ReduceLROnPlateau(optimizer), monitor="val_loss"), or '
        'LRSchedule(Plateau("val_loss")).'
    )


def _checked(schedule: Any, of: str) -> Any:
    if isinstance(schedule, type) or not (
        callable(schedule) or is_torch_schedule(schedule) or isinstance(schedule, Plateau)
    ):
        kind = "the class " if isinstance(schedule, type) else ""
        raise TypeError(
            f"LRSchedule got {kind}{brief(schedule)}, expected a schedule\n"
            "Give a function of the step, a ready-made one such as Cosine(1e-3, steps=1000), a "
            "Keras schedule, or a torch scheduler made from the optimizer."
        )
    if is_torch_schedule(schedule) and of != "lr":
        raise ConfigError(
            f"LRSchedule(of={brief(of)}) got {type(schedule).__name__}, which sets lr\n"
            "Give a function of the step for other numbers."
        )
    return schedule
