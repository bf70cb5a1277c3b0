"""The actions of a GAN: two turns within a batch, without the two passes nobody needs.

The turn of the discriminator runs the generator without a graph; the turn of the generator
computes no gradients of the discriminator's weights. Put together by `fitkit.stacks.gan`.
"""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from fitkit.errors import ConfigError, DataError, brief
from fitkit.interop import ignores_training, is_keras, keras
from fitkit.loop.callback import TRAIN_ONLY, Callback
from fitkit.loop.events import Phase
from fitkit.loop.interval import positive_int
from fitkit.loop.state import State
from fitkit.step import KerasLoss, TorchLoss
from fitkit.step.loss_checks import check_loss

__all__ = ["DiscriminatorStep", "Generate", "GeneratorStep", "Network", "Noise"]


class Network:
    """One of the two networks, called as a Keras model or a torch module wants it."""

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self._tells_training = False

    def look(self) -> None:
        """Ask once per pass whether any layer can tell `training=`."""
        self._tells_training = is_keras(self.module, "Layer") and not ignores_training(self.module)

    def __call__(self, inputs: Any, *, training: bool) -> Any:
        """Call the network."""
        if self._tells_training:
            return self.module(inputs, training=training)
        return self.module(inputs)


@final
class Noise(Callback):
    """Draw the random numbers of both turns at BATCH_BEGIN, so that the steps can be recorded.

    Reads:  state.batch_size, state.device.
    Writes: state.extra.d_latent and g_latent, shape (batch, latent_dim), normal;
        state.extra.label_noise, shape (2 * batch, 1), uniform in [0, 1). All float32.
    Logs:   nothing.
    Syncs:  never; with a Keras seed three times per step, on a GPU.
    Raises: ConfigError if latent_dim is no positive int.
    """

    phases = TRAIN_ONLY
    only_watches = True

    def __init__(self, latent_dim: int, *, seed: Any = None) -> None:
        self._latent_dim = positive_int("latent_dim", latent_dim)
        self._seed = seed
        if seed is not None and not is_keras(seed, "random.SeedGenerator"):
            self._seed = keras().random.SeedGenerator(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a Keras seed; torch's generators belong to the process."""
        return {} if self._seed is None else {"seed": self._seed.state.value.detach()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the seed."""
        if self._seed is not None:
            self._seed.state.assign(state["seed"])

    def on_batch_begin(self, state: State) -> None:
        """Draw in the order in which the turns use it."""
        size = state.batch_size
        state.extra.d_latent = self._normal((size, self._latent_dim), state.device)
        state.extra.label_noise = self._uniform((2 * size, 1), state.device)
        state.extra.g_latent = self._normal((size, self._latent_dim), state.device)

    def _normal(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        if self._seed is None:
            return torch.randn(shape, device=device)
        return keras().random.normal(shape, seed=self._seed)  # sync: Keras reads the seed

    def _uniform(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        if self._seed is None:
            return torch.rand(shape, device=device)
        return keras().random.uniform(shape, seed=self._seed)  # sync: Keras reads the seed


@final
class DiscriminatorStep(Callback):
    """Fill FORWARD and LOSS of the discriminator: fakes are labelled 1, real samples 0, with noise.

    Reads:  state.inputs, the real samples, shape (batch, ...); state.extra.d_latent, label_noise.
    Writes: state.outputs, shape (2 * batch, 1), fakes first; state.loss, shape ().
    Logs:   nothing.
    Syncs:  never.
    Raises: DataError if the discriminator gives anything but one number per sample.
    """

    phases = TRAIN_ONLY

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        loss: KerasLoss | TorchLoss,
        label_noise: float,
    ) -> None:
        self._generator, self._discriminator = Network(generator), Network(discriminator)
        self._loss = loss
        if not isinstance(label_noise, int | float) or label_noise < 0:
            raise ConfigError(
                f"label_noise={brief(label_noise)} is no number of at least 0\n"
                "Use 0.05 as the guide does, or 0 for labels of exactly 0 and 1."
            )
        self._label_noise = label_noise

    @property
    def loss(self) -> Any:
        """The loss function, for those that must know how it reduces."""
        return self._loss.loss

    def on_pass_begin(self, state: State) -> None:
        """Ask once per pass how the networks are called."""
        self._generator.look()
        self._discriminator.look()

    def on_forward(self, state: State) -> None:
        """Let the discriminator judge fakes and real samples together."""
        with torch.no_grad():  # its graph would be thrown away
            fakes = self._generator(state.extra.d_latent, training=True)
        _check_shapes(fakes, state.inputs)
        together = torch.cat([fakes, state.inputs])
        state.outputs = self._discriminator(together, training=True)
        _check_outputs(state.outputs, 2 * state.batch_size)

    def on_loss(self, state: State) -> None:
        """Compare with the noisy labels."""
        like = state.outputs[: state.batch_size]
        labels = torch.cat([torch.ones_like(like), torch.zeros_like(like)])
        labels = labels + self._label_noise * state.extra.label_noise
        state.loss = check_loss(self._loss.compute(labels, state.outputs), state)


@final
class GeneratorStep(Callback):
    """Fill FORWARD and LOSS of the generator: it wants its fakes to be taken for real.

    Reads:  state.extra.g_latent, shape (batch, latent_dim).
    Writes: state.outputs, shape (batch, 1); state.loss, shape ().
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing of its own.
    """

    phases = TRAIN_ONLY

    def __init__(
        self, generator: nn.Module, discriminator: nn.Module, *, loss: KerasLoss | TorchLoss
    ) -> None:
        self._generator, self._discriminator = Network(generator), Network(discriminator)
        self._loss = loss

    @property
    def loss(self) -> Any:
        """The loss function, for those that must know how it reduces."""
        return self._loss.loss

    def on_pass_begin(self, state: State) -> None:
        """Ask once per pass how the networks are called."""
        self._generator.look()
        self._discriminator.look()

    def on_forward(self, state: State) -> None:
        """Let the discriminator judge new fakes."""
        fakes = self._generator(state.extra.g_latent, training=True)
        state.outputs = self._discriminator(fakes, training=True)

    def on_loss(self, state: State) -> None:
        """Compare with the label of real samples."""
        state.loss = check_loss(
            self._loss.compute(torch.zeros_like(state.outputs), state.outputs), state
        )


@final
class Generate(Callback):
    """Fill FORWARD of a predict pass: the generator turns the latent vectors it is given to fakes.

    Reads:  state.inputs, shape (batch, latent_dim).
    Writes: state.outputs, shape (batch, ...).
    Logs:   nothing.
    Syncs:  never.
    Raises: nothing of its own.
    """

    phases = frozenset({Phase.PREDICT})

    def __init__(self, generator: nn.Module) -> None:
        self._generator = Network(generator)

    def on_pass_begin(self, state: State) -> None:
        """Ask once per pass how the network is called."""
        self._generator.look()

    def on_forward(self, state: State) -> None:
        """Call the generator."""
        state.outputs = self._generator(state.inputs, training=False)


def _check_shapes(fakes: Any, real: Any) -> None:
    if not isinstance(real, Tensor) or fakes.shape != real.shape:
        given = tuple(real.shape) if isinstance(real, Tensor) else type(real).__name__
        raise DataError(
            f"the generator makes {tuple(fakes.shape)}, the real samples are {given}\n"
            "Give both one shape: reshape the data, or the last layer of the generator."
        )


def _check_outputs(outputs: Any, size: int) -> None:
    if not isinstance(outputs, Tensor) or outputs.shape != (size, 1):
        given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise DataError(
            f"the discriminator gives {given} for {size} samples, expected ({size}, 1)\n"
            "End it with a layer of one unit, for example keras.layers.Dense(1)."
        )
