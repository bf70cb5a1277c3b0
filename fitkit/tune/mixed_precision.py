"""Half the digits where they suffice."""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import torch

from fitkit.errors import ConfigError, brief
from fitkit.interop import is_keras, keras_layers_of
from fitkit.loop.callback import Callback
from fitkit.loop.events import Event, Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.tune.clipping import positive
from fitkit.tune.loss_scale import LossScale
from fitkit.tune.precision_checks import check_device, check_keras, check_scale, check_weights
from fitkit.tune.undo import Undo

if TYPE_CHECKING:
    from fitkit.loop.fit_loop import FitLoop

__all__ = ["MixedPrecision"]

Precision = Literal["bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@final
class MixedPrecision(Callback):
    """Compute the model and its loss in bfloat16 or float16; weights and updates stay float32.

    A torch module runs under `torch.autocast`, in all phases, FORWARD and LOSS alone: neither the
    backward pass nor anything else is inside. A Keras model computes in the dtype of its policy,
    "mixed_bfloat16" or "mixed_float16", and it must have it when it is made.

    With "fp16" the loss is scaled, so that small gradients do not vanish: doubled after
    `growth_every` good updates, halved where a gradient is not finite. Such an update is made and
    taken back on the device, so that nothing waits: weights and optimizer are as if it had not
    been. `state.num_updates` counts it all the same. With `Turn`s, give each one its own.

    "bf16" and "fp16" have not been run on a GPU yet.

    Args:
        dtype: "bf16" or "fp16".
        initial_scale: The first loss scale of "fp16".
        growth_every: Updates without a skipped one after which it doubles.

    Reads:  the gradients; weights and optimizer slots.
    Writes: with "fp16" state.grad_scale, shape (), until GRADS_READY; the gradients, unscaled;
        what APPLY wrote, where it is taken back.
    Logs:   with "fp16" loss_scale, the last of the pass, and skipped_updates, their number in it;
        with turns <turn>_loss_scale and so on.
    Syncs:  with "fp16" once, at the first update of a torch optimizer; per update never, but for
        optimizers of torch that count their steps on the CPU while the model is on a GPU: fused
        ones do not.
    Raises: ConfigError for another dtype or one the device lacks; for a Keras model of another
        policy, or in a torch module; for weights in float16 with "fp16"; beside a Keras optimizer
        that scales the loss itself.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, MixedPrecision, TensorLoader, supervised

        model = torch.nn.Linear(4, 1)
        loop = FitLoop(model, TensorLoader(torch.randn(64, 4), torch.randn(64, 1)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
        loop.attach(MixedPrecision("bf16")).fit(epochs=1)
        ```
    """

    after = ("Accumulate",)

    def __init__(
        self, dtype: Precision = "bf16", *, initial_scale: float = 2.0**16, growth_every: int = 2000
    ) -> None:
        if dtype not in get_args(Precision):
            raise ConfigError(
                f"MixedPrecision({brief(dtype)}) is no precision, expected 'bf16' or 'fp16'\n"
                'Use MixedPrecision("bf16"), or leave it out for float32.'
            )
        self.dtype: Precision = dtype
        self.initial_scale = positive("initial_scale", initial_scale)
        self.growth_every = positive_int("growth_every", growth_every)
        self.around = {Event.FORWARD: self._autocast, Event.LOSS: self._autocast}
        if dtype == "fp16":
            self.around[Event.APPLY] = self._taken_back
        self.skips_updates = dtype == "fp16"
        self._scale: LossScale | None = None
        self._casts = True
        self._device = "cpu"
        self._undo = Undo()
        self._loaded: Mapping[str, Any] | None = None

    def attach(self, loop: "FitLoop") -> None:
        """Keep the loop: its optimizers and turns are looked at."""
        self._loop = loop

    def on_open(self, state: State) -> None:
        """Check model and device."""
        check_device(self.dtype, state.device)
        self._casts = not is_keras(state.model, "Layer")
        self._device = state.device.type
        if keras_layers_of(state.model):
            check_keras(self.dtype, state.model)

    def on_fit_begin(self, state: State) -> None:
        """Check weights and optimizers; make the scale."""
        if self.dtype != "fp16":
            return
        check_weights(state.model)
        check_scale(self._loop, self)
        if self._scale is None:
            self._scale = LossScale(self.initial_scale, self.growth_every, state.device)
        if self._loaded:
            self._scale.load_state_dict(self._loaded)
            self._loaded = None

    def on_pass_begin(self, state: State) -> None:
        """List what an update writes."""
        if state.phase is Phase.TRAIN and self._scale is not None:
            self._undo.prepare(self._loop, self)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._casts:
            return nullcontext()
        return torch.autocast(self._device, _DTYPES[self.dtype])

    def on_loss_ready(self, state: State) -> None:
        """Have the gradients scaled."""
        if self._scale is None or state.phase is not Phase.TRAIN:
            return
        if state.loss.dtype is torch.float16:
            state.loss = state.loss.float()  # the scale does not fit into float16
        before = torch.ones_like(state.loss) if state.grad_scale is None else state.grad_scale
        state.grad_scale = before * self._scale.scale.to(state.loss.dtype)

    def on_grads_ready(self, state: State) -> None:
        """Unscale the gradients."""
        if self._scale is not None:
            self._scale.unscale([p.grad for p in self._undo.weights if p.grad is not None])
            prefix = f"{state.turn}_" if state.turn else ""
            state.log(f"{prefix}loss_scale", self._scale.scale, reduce="last")
            state.log(f"{prefix}skipped_updates", ~self._scale.finite, reduce="sum")

    @contextmanager
    def _taken_back(self) -> Generator[None]:
        """Run the update, and take it back where a gradient was not finite."""
        scale = self._scale
        assert scale is not None  # noqa: S101  # on_fit_begin has made it
        with self._undo.unless(lambda: scale.finite):
            yield
        scale.update()

    @property
    def num_skipped(self) -> int:
        """The updates skipped so far. Syncs: once per call."""
        return 0 if self._scale is None else int(self._scale.num_skipped)  # sync: when it is asked

    def state_dict(self) -> dict[str, Any]:
        """Return the loss scale, and what decides when it grows."""
        return dict(self._loaded or {}) if self._scale is None else self._scale.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the loss scale, now or when there is one."""
        self._loaded = state
        if self._scale is not None and state:
            self._scale.load_state_dict(state)
            self._loaded = None
