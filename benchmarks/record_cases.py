"""Models, data and contestants of benchmarks/record.py."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.harness import Run
from fitkit import FitLoop, Record, TensorLoader, Throughput, supervised
from tests.parity import hand_loops as hand
from tests.parity.digits import digit_loaders, keras_mlp, torch_mlp

BATCH = 32
layers = keras.layers


def digits(num_batches: int) -> tuple[Tensor, Tensor]:
    """Digit-like images of shape (samples, 784) in [0, 1], and one-hot targets.

    Learnable, and not to the end: where gradients vanish, Adam's moments become denormal numbers,
    on which a processor is several times slower, for every contestant.
    """
    train, _ = digit_loaders(num_batches * BATCH)
    x, y = train.dataset.tensors
    return x / 255, y


def images(shape: tuple[int, ...], num_batches: int) -> tuple[Tensor, Tensor]:
    """Random floats of `shape` per sample in [0, 1], and one-hot targets of 10 classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(num_batches * BATCH, *shape, generator=generator)
    labels = torch.randint(0, 10, (len(x),), generator=generator)
    return x, nn.functional.one_hot(labels, 10).float()


def tokens(num_batches: int, length: int = 32, vocabulary: int = 200) -> tuple[Tensor, Tensor]:
    """Random token ids of shape (samples, length), int64, and one-hot targets of 10 classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, vocabulary, (num_batches * BATCH, length), generator=generator)
    labels = torch.randint(0, 10, (len(x),), generator=generator)
    return x, nn.functional.one_hot(labels, 10).float()


def cnn() -> keras.Model:
    """Two conv blocks with BatchNormalization, pooling and Dropout, on 16x16x3."""
    model = [keras.Input((16, 16, 3))]
    for width in (16, 32):
        model += [layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization()]
        model += [layers.ReLU(), layers.MaxPooling2D()]
    return keras.Sequential([*model, layers.Flatten(), layers.Dropout(0.25), layers.Dense(10)])


def transformer() -> keras.Model:
    """One encoder block over token embeddings."""
    inputs = keras.Input((32,), dtype="int64")
    x = layers.Embedding(200, 32)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8, dropout=0.1)(x, x))
    hidden = layers.Dense(64, activation="relu")(x)
    x = layers.LayerNormalization()(x + layers.Dense(32)(hidden))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def lstm() -> keras.Model:
    """An LSTM over token embeddings."""
    inputs = keras.Input((32,), dtype="int64")
    x = layers.LSTM(32)(layers.Embedding(200, 32)(inputs))
    return keras.Model(inputs, layers.Dense(10)(x))


Case = tuple[Callable[[], keras.Model], Callable[[int], tuple[Tensor, Tensor]]]
CASES: dict[str, Case] = {
    "MLP": (keras_mlp, digits),
    "CNN": (cnn, lambda n: images((16, 16, 3), n)),
    "transformer": (transformer, tokens),
    "LSTM": (lstm, tokens),
}


def fitkit_loop(case: str, num_batches: int, *callbacks: Any) -> FitLoop:
    """The stack of the guide's metrics loop, from a fixed seed."""
    make_model, make_data = CASES[case]
    keras.utils.set_random_seed(1)
    stack = supervised(
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        optimizer=keras.optimizers.Adam(hand.LEARNING_RATE),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    loader = TensorLoader(*make_data(num_batches), batch_size=BATCH, shuffle=True)
    return FitLoop(make_model(), loader, callbacks=[stack, *callbacks])


def fitkit_steps(case: str, num_batches: int, backend: Any = None) -> Run:
    record = [Record(backend)] if backend else []
    loop = fitkit_loop(case, num_batches, Throughput(), *record)
    loop.fit(max_steps=3)  # builds, traces and compiles
    return lambda num_steps: loop.fit(max_steps=num_steps)


def hand_loop(num_batches: int) -> Run:
    keras.utils.set_random_seed(1)
    x, y = digits(num_batches)
    train = DataLoader(TensorDataset(x, y), BATCH, shuffle=True)
    return hand.metrics_loop_steps(keras_mlp(), train, report=len)


def keras_fit(num_batches: int) -> Run:
    """Keras's own loop, on arrays: what its documentation advises for data in memory."""
    keras.utils.set_random_seed(1)
    model = keras_mlp()
    model.compile(
        optimizer=keras.optimizers.Adam(hand.LEARNING_RATE),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    x, y = (tensor.numpy() for tensor in digits(num_batches))

    def run(num_steps: int) -> None:
        size = min(num_steps, num_batches) * BATCH
        for _ in range(max(1, num_steps // num_batches)):
            model.fit(x[:size], y[:size], batch_size=BATCH, epochs=1, verbose=0)

    return run


def torch_loop(num_batches: int) -> Run:
    """The same network as torch.nn.Sequential, fused Adam, loss and accuracy kept on the device."""
    torch.manual_seed(1)
    model = torch_mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=hand.LEARNING_RATE, fused=True)
    loss_fn = nn.CrossEntropyLoss()
    train = DataLoader(TensorDataset(*digits(num_batches)), BATCH, shuffle=True)

    def run(num_steps: int) -> None:
        total, correct, done = torch.zeros(()), torch.zeros(()), 0
        while done < num_steps:
            for inputs, targets in train:
                optimizer.zero_grad()
                outputs = model(inputs)
                loss = loss_fn(outputs, targets)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(targets)
                correct += (outputs.detach().argmax(1) == targets.argmax(1)).sum()
                done += 1
                if done == num_steps:
                    break
        if not np.isfinite(float(total + correct)):
            raise FloatingPointError("the hand loop diverged")

    return run


def bare_kernels() -> Run:
    """The floor: the matrix products of forward and backward, and one pass of the fused update."""
    x, _ = digits(1)
    sizes = (784, 64, 64, 10)
    weights = [torch.randn(a, b) * 0.01 for a, b in zip(sizes, sizes[1:], strict=False)]
    tensors = [*weights, *(torch.zeros(b) for b in sizes[1:])]
    grads = [torch.zeros_like(t) for t in tensors]
    slots = [[torch.zeros_like(t) for t in tensors] for _ in range(2)]
    steps = [torch.tensor(1.0) for _ in tensors]
    options = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-7}

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            hidden = [x]
            for weight in weights:
                hidden.append(hidden[-1] @ weight)
            error = hidden.pop()
            for index in (2, 1, 0):
                torch.mm(hidden[index].t(), error, out=grads[index])
                error = error @ weights[index].t() if index else error
            torch._fused_adam_(
                tensors, grads, *slots, [], steps, **options, amsgrad=False, maximize=False
            )

    return run
