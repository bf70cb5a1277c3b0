"""Standard stacks: the callbacks of a kind of training, in run order."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from fitkit.errors import ConfigError, brief
from fitkit.gan import DiscriminatorStep, Generate, GeneratorStep, Noise
from fitkit.interop import is_keras
from fitkit.loop.callback import Callback, Stack, Turn
from fitkit.passes import Metrics, TrainMode, Validate
from fitkit.step import (
    AddedLosses,
    Backward,
    Forward,
    KerasApply,
    KerasLoss,
    TorchLoss,
    TorchStep,
    ZeroGrad,
)

__all__ = ["gan", "supervised"]


def supervised(
    *,
    loss: Any,
    optimizer: Any,
    metrics: Iterable[Any] | Mapping[str, Any] = (),
    validate: int | str = "1 epoch",
) -> Stack:
    """Return the stack of supervised training, for Keras and torch parts in any mix.

    TrainMode, ZeroGrad, Forward, the loss, AddedLosses, Backward, the optimizer, Metrics, Validate.

    Args:
        loss: A Keras loss or its name, a torch loss module, a function of `torch.nn.functional`,
            or `KerasLoss(function)` / `TorchLoss(function)` for a function of your own.
        optimizer: A Keras optimizer or its name, or a torch optimizer.
        metrics: Keras metrics and torchmetrics, a list or a dict by name.
        validate: How often to run the validation loaders, if the loop has any: "1 epoch",
            "500 updates" or 500, "10 minutes".

    Raises:
        ConfigError: If it cannot be told whether a function takes (targets, outputs) as in Keras
            or (outputs, targets) as in torch, or if Keras does not know a name.
        TypeError: If something is of the wrong kind.

    Example:
        ```python
        import keras
        from fitkit import supervised

        stack = supervised(
            loss=keras.losses.CategoricalCrossentropy(from_logits=True),
            optimizer=keras.optimizers.Adam(1e-3),
            metrics=[keras.metrics.CategoricalAccuracy()],
        )
        ```
    """
    return Stack(
        (
            TrainMode(),
            ZeroGrad(),
            Forward(),
            _loss(loss),
            AddedLosses(),
            Backward(),
            _apply(optimizer),
            Metrics(metrics),
            Validate(validate),
        )
    )


def gan(
    *,
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: Any,
    discriminator_optimizer: Any,
    loss: Any,
    latent_dim: int,
    label_noise: float = 0.05,
    seed: Any = None,
) -> Stack:
    """Return the stack of a GAN: two turns per batch, "d" and "g", each with its own optimizer.

    Turn "d" trains the discriminator on fakes, labelled 1, and the real samples of the batch,
    labelled 0; turn "g" trains the generator to have its fakes taken for real. The generator runs
    without a graph in turn "d"; gradients of the discriminator's weights are not computed in turn
    "g". Logs are `d_loss` and `g_loss`, counters `state.turn_updates["d"]` and `["g"]`.
    `loop.predict` turns latent vectors into samples.

    The model of the loop holds both networks: `torch.nn.ModuleList([generator, discriminator])`,
    or a Keras model that has them as attributes.

    Args:
        generator: Makes samples, shaped like those of the batch, of (batch, latent_dim).
        discriminator: Gives one number per sample, shape (batch, 1).
        generator_optimizer: A Keras or torch optimizer of the generator's weights alone.
        discriminator_optimizer: The same for the discriminator.
        loss: A Keras or torch loss, as `supervised` takes it, between labels and that number.
        latent_dim: The length of a latent vector.
        label_noise: How much of a uniform random number is added to the labels of turn "d".
        seed: None draws from torch's generator of the device. An int or a
            `keras.random.SeedGenerator` draws as `keras.random` does, with a sync on a GPU.

    Raises:
        ConfigError: If `latent_dim` or `label_noise` is out of range, or `loss` is ambiguous.
        TypeError: If something is of the wrong kind.

    Example:
        ```python
        import torch
        from fitkit import FitLoop, TensorLoader, gan

        generator, discriminator = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1)
        loop = FitLoop(
            torch.nn.ModuleList([generator, discriminator]),
            TensorLoader(torch.randn(64, 4)),
            callbacks=gan(
                generator=generator,
                discriminator=discriminator,
                generator_optimizer=torch.optim.Adam(generator.parameters()),
                discriminator_optimizer=torch.optim.Adam(discriminator.parameters()),
                loss=torch.nn.BCEWithLogitsLoss(),
                latent_dim=2,
            ),
        )
        loop.fit(epochs=2)
        ```
    """
    criterion: Any = _loss(loss)
    networks = (generator, discriminator)
    d_step = DiscriminatorStep(*networks, loss=criterion, label_noise=label_noise)
    g_step = GeneratorStep(*networks, loss=criterion)
    d_apply = _apply(discriminator_optimizer, model=discriminator)
    g_apply = _apply(generator_optimizer, model=generator)
    return Stack(
        (
            TrainMode(),
            Noise(latent_dim, seed=seed),
            ZeroGrad(),
            Turn("d", [d_step, Backward(discriminator), d_apply]),
            Turn("g", [g_step, Backward(generator), g_apply]),
            Generate(generator),
            Metrics(),
        )
    )


def _loss(loss: Any) -> Callback:
    if isinstance(loss, KerasLoss | TorchLoss):
        return loss
    module = getattr(loss, "__module__", None) or ""
    if isinstance(loss, str) or is_keras(loss, "losses.Loss") or module.startswith("keras."):
        return KerasLoss(loss)
    if isinstance(loss, nn.Module | type) or module.startswith("torch."):
        return TorchLoss(loss)
    if callable(loss):
        raise ConfigError(
            f"loss={brief(loss)}: is it f(targets, outputs) as in Keras or f(outputs, targets)?\n"
            "Say so: loss=KerasLoss(f) calls f(targets, outputs), loss=TorchLoss(f) the other way."
        )
    raise TypeError(
        f"loss={brief(loss)} is a {type(loss).__name__}, expected a loss\n"
        "Pass a Keras loss or its name, a torch loss module, or KerasLoss(f) / TorchLoss(f)."
    )


def _apply(optimizer: Any, *, model: nn.Module | None = None) -> Callback:
    if isinstance(optimizer, KerasApply | TorchStep):
        return optimizer
    kind: Any = optimizer if isinstance(optimizer, type) else type(optimizer)
    is_torch = issubclass(kind, Optimizer)
    return TorchStep(cast(Any, optimizer)) if is_torch else KerasApply(optimizer, model=model)
