"""Programs that are interrupted: a Keras model and a torch module, with all that has state."""

import hashlib
import importlib
import random
import warnings
from contextlib import suppress

import keras
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from fitkit import (
    EMA,
    Accumulate,
    Callback,
    Checkpoint,
    EarlyStopping,
    FitLoop,
    KerasCallbacks,
    LRSchedule,
    Phase,
    Plateau,
    Record,
    TensorLoader,
    Warmup,
    compiled,
    supervised,
)
from fitkit.loop.snapshot import snapshot
from fitkit.store.codec import Codec, to_json

ROWS, BATCH, EPOCHS = 160, 4, 3
BATCHES = ROWS // BATCH


class Cut(BaseException):
    """The end of a run, at a moment of the test's choice."""


class Seen(Callback):
    """Keeps the samples of every training batch; ends the run after so many batches."""

    def __init__(self, cut_at=None):
        self.ids = []
        self.cut_at = cut_at

    def on_batch_end(self, state):
        if state.phase is Phase.TRAIN:
            self.ids.append(state.inputs[:, 0].mul(ROWS).round().tolist())
            if state.num_batches == self.cut_at:
                raise Cut


class Rows(Dataset):
    """Numbered rows; with noise they draw from the generators of the process."""

    def __init__(self, noise=False, num=ROWS):
        self.noise, self.num = noise, num

    def __len__(self):
        return self.num

    def __getitem__(self, index):
        row = torch.full((4,), index / ROWS)
        if self.noise:
            row[1:] += 0.1 * torch.randn(3) + 0.1 * random.random() + 0.1 * np.random.rand()
        return row, torch.tensor([index / ROWS])


class Stream(IterableDataset):
    """Numbered rows without indices, each worker its share."""

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        rows = Rows()
        return (rows[index] for index in range(first, ROWS, step))


class Shuffled:
    """A sampler that shuffles its own list, further in each pass."""

    def __init__(self):
        self.order, self.num_passes = list(range(ROWS)), 0

    def __len__(self):
        return ROWS

    def __iter__(self):
        self.num_passes += 1
        random.shuffle(self.order)
        yield from self.order


class Numbered(keras.utils.PyDataset):
    """Numbered rows by index; those that shuffle say how far they are."""

    def __init__(self):
        super().__init__()
        self.order = torch.arange(ROWS)

    def __len__(self):
        return BATCHES

    def __getitem__(self, index):
        rows = self.order[index * BATCH : (index + 1) * BATCH]
        return tuple(t[rows] for t in tensors())


class Reshuffled(Numbered):
    def on_epoch_begin(self):
        self.order = self.order[torch.randperm(ROWS)]

    def state_dict(self):
        return {"order": self.order}

    def load_state_dict(self, state):
        self.order = state["order"]


def tensors(num=ROWS):
    x = torch.arange(float(num))[:, None].repeat(1, 4) / ROWS
    return x, x[:, :1].clone()


def own(seed=1):
    return torch.Generator().manual_seed(seed)


def stateful(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata calls what torch calls deprecated
        return StatefulDataLoader(Rows(), BATCH, shuffle=True, **options)


LOADERS = {
    "TensorLoader": lambda: TensorLoader(*tensors(), batch_size=BATCH, shuffle=True, seed=3),
    "TensorDataset": lambda: DataLoader(TensorDataset(*tensors()), BATCH, shuffle=True),
    "TensorDataset, own": lambda: DataLoader(
        TensorDataset(*tensors()), BATCH, shuffle=True, generator=own()
    ),
    "map": lambda: DataLoader(Rows(), BATCH, shuffle=True),
    "map, own": lambda: DataLoader(Rows(), BATCH, shuffle=True, generator=own()),
    "map, noise": lambda: DataLoader(Rows(noise=True), BATCH, shuffle=True),
    "map, replacement": lambda: DataLoader(
        Rows(), BATCH, sampler=RandomSampler(range(ROWS), replacement=True, generator=own())
    ),
    "map, no batches": lambda: DataLoader(
        TensorDataset(*(t.view(BATCHES, BATCH, -1) for t in tensors())), None, shuffle=True
    ),
    "workers": lambda: DataLoader(Rows(), BATCH, shuffle=True, num_workers=2),
    "workers, own": lambda: DataLoader(Rows(), BATCH, shuffle=True, num_workers=2, generator=own()),
    "workers persist": lambda: DataLoader(
        Rows(), BATCH, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "workers persist, own": lambda: DataLoader(
        Rows(), BATCH, shuffle=True, num_workers=2, persistent_workers=True, generator=own()
    ),
    "iterable": lambda: DataLoader(Stream(), BATCH),
    "iterable, workers": lambda: DataLoader(Stream(), BATCH, num_workers=2),
    "own sampler": lambda: DataLoader(Rows(), BATCH, sampler=Shuffled()),
    "stateful": lambda: stateful(),
    "stateful, own": lambda: stateful(generator=own()),
    "stateful, workers": lambda: stateful(num_workers=2),
    "PyDataset": Numbered,
    "PyDataset, state": Reshuffled,
    "list": lambda: list(zip(*(t.split(BATCH) for t in tensors()), strict=True)),
}
DOUBTED = {"workers", "workers, own", "workers persist", "workers persist, own"}
DOUBTED |= {"iterable", "iterable, workers"}


def keras_model(seeded):
    """With seeds of Keras, which no recorded step can have, or with torch's random numbers."""
    noise = [keras.layers.Dropout(0.3, seed=3), keras.layers.GaussianNoise(0.1, seed=3)]
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.BatchNormalization(),
            *(noise if seeded else []),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        ]
    )


def reset():
    keras.utils.set_random_seed(0)


def val_loader():
    return DataLoader(Rows(num=16), 8, shuffle=True)


def recording(backend):
    """A compiled step equals another one bit by bit only if no step of its kind runs eagerly."""
    if backend == "inductor":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler imports calls something deprecated
            importlib.import_module("torch._inductor.compile_fx")
            importlib.import_module("torch.utils.mkldnn")
    return [Record(backend, rehearse=backend == "inductor")] if backend else []


def keras_loop(folder, loader="TensorLoader", *, extra=(), record=None, order=None, **options):
    """R: dropout, noise, AdamW with warm-up and plateau, EMA, early stopping, metrics."""
    reset()
    model, metric = keras_model(record is None), keras.metrics.MeanAbsoluteError(name="mae")
    optimizer = keras.optimizers.AdamW(0.01)
    movable = [
        EarlyStopping("val_loss", patience=50, restore_best=False),
        LRSchedule(Plateau("loss", patience=1)),
        EMA(0.9),
        Listening(),
        Checkpoint(**{"every": 7, **options}),
    ]
    movable = [movable[index] for index in order or range(len(movable))]
    callbacks = [
        *supervised(loss="mse", optimizer=optimizer, metrics=[metric]),
        *recording(record),
        KerasCallbacks([keras.callbacks.EarlyStopping("loss", patience=50)]),
        *extra,
        *movable,
    ]
    return FitLoop(model, LOADERS[loader](), val_loader(), callbacks=callbacks, run_dir=folder)


class Listening(Callback):
    """A user's callback with state: it counts what it sees."""

    def __init__(self):
        self.total = 0.0

    def on_epoch_end(self, state):
        self.total += state.logs["loss"] + random.random()

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


def torch_loop(folder, loader="TensorLoader", *, accumulate=1, extra=(), record=None, **options):
    """The same in torch: BatchNorm and Dropout, AdamW, warm-up, EMA; cheap enough for many runs."""
    reset()
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=record is not None)
    callbacks = [
        *supervised(loss=torch.nn.MSELoss(), optimizer=optimizer),
        *([Accumulate(accumulate)] if accumulate > 1 else []),
        *recording(record),
        LRSchedule(Warmup(0.01, steps=10)),
        EMA(0.9),
        *extra,
        Checkpoint(**{"every": 7, **options}),
    ]
    return FitLoop(model, LOADERS[loader](), val_loader(), callbacks=callbacks, run_dir=folder)


def compiled_loop(folder, loader="TensorLoader", *, extra=(), record=None, **options):
    """A compiled Keras model, with a metric that is built by the first batch."""
    reset()
    model = keras_model(record is None)
    model.compile(optimizer=keras.optimizers.AdamW(0.01), loss="mse", metrics=["mae", "r2_score"])
    callbacks = [
        compiled(),
        *recording(record),
        *extra,
        Checkpoint(**{"every": 7, **options}),
    ]
    return FitLoop(model, LOADERS[loader](), val_loader(), callbacks=callbacks, run_dir=folder)


def same(loop):
    """SHA-256 of all there is: weights, seeds, optimizer, callbacks, history, counters, streams."""
    content = snapshot(loop)
    content.meta["counters"]["elapsed_s"] = 0.0
    content.state["pass"] = None
    content.state["callbacks"].pop("TensorBoard", None)
    codec = Codec()
    parts = [content.meta, content.state, list(content.model.values())]
    digest = hashlib.sha256(to_json([codec.encode(p, str(i)) for i, p in enumerate(parts)]))
    for name, tensor in codec.tensors.items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def interrupted(make, folder, cut_at, limits, **options):
    """Run a program until it dies after so many batches; return the samples it has seen."""
    seen = Seen(cut_at)
    loop = make(folder, extra=(seen,), **options)
    with suppress(Cut):
        loop.fit(**limits)
    return seen.ids


def resumed(make, folder, limits, **options):
    """Run the program again; return loop, samples seen, first lines of warnings."""
    seen = Seen()
    loop = make(folder, extra=(seen,), **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loop.fit(**limits, resume=options.get("path", "auto"))
    ours = [str(w.message) for w in told if "may not go on" in str(w.message)]
    return loop, seen.ids, ours
