"""Training loops written by hand: what fitkit must equal to the bit, and is timed against.

The caller sets the seeds (`keras.utils.set_random_seed`), then builds a model of `digits.py`, then
calls a loop: first weights and order of the batches come from the global generators. Targets are
one-hot. As in most such loops, the model is called without `training=True`: the MLP does not care.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import keras
import numpy as np
import torch
from torch import Tensor, nn

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class HandRun:
    """What a loop leaves behind: the final weights and one dict of logged values per epoch."""

    weights: list[np.ndarray]
    epochs: list[dict[str, float]]


# -- the forms -----------------------------------------------------------------------------------


def torch_form(model, train, *, epochs, optimizer=None) -> HandRun:
    """Torch loss and torch optimizer, by default Adam; logs the loss."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    return hand_loop(
        model, train, epochs=epochs, loss_of=torch_loss(), update=torch_update(model, optimizer)
    )


def keras_form(model, train, val=None, *, epochs, added_losses=False) -> HandRun:
    """Keras loss and Keras Adam; with `val` the form with metrics, then also with added losses."""
    return hand_loop(
        model,
        train,
        val,
        epochs=epochs,
        loss_of=keras_loss(),
        update=keras_update(model, keras.optimizers.Adam(LEARNING_RATE)),
        added_losses=added_losses,
    )


def keras_model_torch_sgd(model, train, *, epochs) -> HandRun:
    """A Keras model, torch loss, torch SGD with momentum (a small rate: pixels go up to 255)."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    return torch_form(model, train, epochs=epochs, optimizer=optimizer)


def torch_model_fused_adam(model, train, *, epochs) -> HandRun:
    """A torch module, torch loss, torch's fused Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    return torch_form(model, train, epochs=epochs, optimizer=optimizer)


def torch_model_keras_adam(model, train, *, epochs) -> HandRun:
    """A torch module, torch loss, Keras Adam on variables that share the parameters' storage."""
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    update = keras_update(model, optimizer, shared_variables(model))
    return hand_loop(model, train, epochs=epochs, loss_of=torch_loss(), update=update)


def metrics_loop_steps(model, train, *, report: Callable[[str], object] = print):
    """Return `run(n)`: n steps of the metrics form, written out flat to be timed.

    As such loops do, it gives `report` a line every 100 batches and one at the end of each pass.
    """
    optimizer = keras.optimizers.Adam(learning_rate=LEARNING_RATE)
    loss_fn = keras.losses.CategoricalCrossentropy(from_logits=True)
    accuracy = keras.metrics.CategoricalAccuracy()

    def run_pass(num_steps):
        for step, (inputs, targets) in enumerate(islice(train, num_steps)):
            logits = model(inputs)
            loss = loss_fn(targets, logits)
            model.zero_grad()
            trainable = list(model.trainable_weights)
            loss.backward()
            gradients = [v.value.grad for v in trainable]
            with torch.no_grad():
                optimizer.apply(gradients, trainable)
            accuracy.update_state(targets, logits)
            if step % 100 == 0:
                report(f"batch {step}: loss {loss.detach().numpy():.4f}")
        report(f"accuracy {float(accuracy.result()):.4f}")
        accuracy.reset_state()

    def run(num_steps):
        while num_steps > 0:
            run_pass(num_steps)
            num_steps -= len(train)

    return run


# -- the loop ------------------------------------------------------------------------------------


def hand_loop(model, train, val=None, *, epochs, loss_of, update, added_losses=False) -> HandRun:
    """Train for `epochs` passes; with `val`, also log accuracies and validate after each."""
    logged = []
    for _ in range(epochs):
        seen, accuracy = [], keras.metrics.CategoricalAccuracy()
        for inputs, targets in train:
            logits = model(inputs)
            loss = total_loss(model, loss_of(targets, logits), added_losses)
            update(loss)
            seen.append((loss.detach(), len(targets)))
            if val is not None:
                accuracy.update_state(targets, logits)
        logs = {"loss": weighted_mean(seen)}
        if val is not None:
            logs["accuracy"] = float(accuracy.result())
            logs |= validate(model, val, loss_of, added_losses)
        logged.append(logs)
    return HandRun(weights_of(model), logged)


@torch.no_grad()
def validate(model, val, loss_of, added_losses) -> dict[str, float]:
    seen, accuracy = [], keras.metrics.CategoricalAccuracy()
    for inputs, targets in val:
        logits = model(inputs, training=False)
        loss = total_loss(model, loss_of(targets, logits), added_losses)
        seen.append((loss, len(targets)))
        accuracy.update_state(targets, logits)
    return {"val_loss": weighted_mean(seen), "val_accuracy": float(accuracy.result())}


def total_loss(model, loss: Tensor, added_losses: bool) -> Tensor:
    """Add the model's own losses one after the other; reading them recomputes regularizers."""
    for extra in model.losses if added_losses else ():
        loss = loss + extra
    return loss


def weighted_mean(seen: list[tuple[Tensor, int]]) -> float:
    """The mean over samples, summed in double precision, of (batch mean, batch size) pairs."""
    return sum(float(loss) * size for loss, size in seen) / sum(size for _, size in seen)


def weights_of(model: nn.Module) -> list[np.ndarray]:
    """Copies of all weights in the order of the layers.

    A Keras model's `parameters()` are sorted by name, so that dense_10 comes before dense_9.
    """
    weights = model.weights if isinstance(model, keras.Model) else model.parameters()
    return [keras.ops.convert_to_numpy(w) for w in weights]


# -- the parts of a step -------------------------------------------------------------------------


def torch_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy from torch with the arguments in Keras's order: targets first."""
    loss_fn = nn.CrossEntropyLoss()
    return lambda targets, logits: loss_fn(logits, targets)


def keras_loss() -> Callable[[Tensor, Tensor], Tensor]:
    return keras.losses.CategoricalCrossentropy(from_logits=True)


def torch_update(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], None]:
    def update(loss):
        model.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def keras_update(model, optimizer, variables=None) -> Callable[[Tensor], None]:
    """Let a Keras optimizer update `variables`, by default the model's trainable weights."""

    def update(loss):
        model.zero_grad()
        trainable = list(variables or model.trainable_weights)
        loss.backward()
        gradients = [v.value.grad for v in trainable]
        with torch.no_grad():
            optimizer.apply(gradients, trainable)

    return update


def shared_variables(model: nn.Module) -> list[keras.Variable]:
    """Keras variables that are the parameters of a torch module: same object, same storage.

    `keras.Variable` keeps the `nn.Parameter` it is given, so gradients reach `v.value.grad`.
    """
    return [keras.Variable(p) for p in model.parameters()]
