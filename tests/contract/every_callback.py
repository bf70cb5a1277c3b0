"""How each exported callback is put into a loop, for the tests that run over all of them."""

import keras
import pytest
import torch

import fitkit
from fitkit import Callback, FitLoop, TensorLoader, compiled, supervised

KINDS = ("torch", "keras")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(36, 4, generator=GENERATOR)
Y = X.sum(1, keepdim=True)
IMAGES = torch.rand(4, 1, 2, 2, generator=GENERATOR)

STACK = {  # what supervised() makes of a torch module with torch parts, or Keras ones
    *("TrainMode", "ZeroGrad", "Forward", "TorchLoss", "KerasLoss", "AddedLosses", "Backward"),
    *("TorchStep", "KerasApply", "Metrics", "Validate"),
}
COMPILED = {"CompiledLoss", "CompiledMetrics", "CompiledRun"}
WHOLE_STEP = {"TrainStep", "TestStep", "PredictStep"}
OF_LOOP = {"History"}
EXTRA = {
    "Accumulate": lambda kind: fitkit.Accumulate(2),
    "ActivationStats": lambda kind: fitkit.ActivationStats(every=2),
    "Benchmark": lambda kind: fitkit.Benchmark(steps=3, warmup=1, repeats=2),
    "CSVLogger": lambda kind: fitkit.CSVLogger(),
    "Checkpoint": lambda kind: fitkit.Checkpoint(),
    "ClipGradNorm": lambda kind: fitkit.ClipGradNorm(0.5),
    "ClipGradValue": lambda kind: fitkit.ClipGradValue(0.1),
    "Curves": lambda kind: fitkit.Curves(),
    "DeviceStats": lambda kind: fitkit.DeviceStats(every=2),
    "EMA": lambda kind: fitkit.EMA(0.9),
    "EarlyStopping": lambda kind: fitkit.EarlyStopping(patience=2, min_delta=0.5),
    "EventTrace": lambda kind: fitkit.EventTrace(),
    "Freeze": lambda kind: fitkit.Freeze("0" if kind == "torch" else "first", until=7),
    "Graph": lambda kind: fitkit.Graph(),
    "HParams": lambda kind: fitkit.HParams(),
    "Histograms": lambda kind: fitkit.Histograms(every=2),
    "ImageGrid": lambda kind: fitkit.ImageGrid(lambda: IMAGES),
    "Images": lambda kind: fitkit.Images(shape=(2, 2)),
    "JSONLLogger": lambda kind: fitkit.JSONLLogger(),
    "KerasCallbacks": lambda kind: fitkit.KerasCallbacks([keras.callbacks.Callback()]),
    "LRSchedule": lambda kind: fitkit.LRSchedule(lambda k: 0.1 / (k + 1)),
    "Limits": lambda kind: fitkit.Limits(train_batches=4, sanity_batches=1),
    "MixedPrecision": lambda kind: fitkit.MixedPrecision("bf16"),
    "ModelSummary": lambda kind: fitkit.ModelSummary(),
    "NaNGuard": lambda kind: fitkit.NaNGuard("skip"),
    "Predictions": lambda kind: fitkit.Predictions(["train", "val"]),
    "PrintLog": lambda kind: fitkit.PrintLog(every=2),
    "Profile": lambda kind: fitkit.Profile(1, wait=1, warmup=1),
    "ProgressBar": lambda kind: fitkit.ProgressBar(),
    "Record": lambda kind: fitkit.Record("interpret"),
    "RunText": lambda kind: fitkit.RunText(),
    "Seed": lambda kind: fitkit.Seed(3, deterministic=True),
    "TensorBoard": lambda kind: fitkit.TensorBoard(),
    "Throughput": lambda kind: fitkit.Throughput(warmup=0),
}
ONLY = {"KerasCallbacks": "keras", "TorchLoss": "torch", "TorchStep": "torch"}
ONLY |= dict.fromkeys(("KerasLoss", "KerasApply", *COMPILED, *WHOLE_STEP), "keras")


def exported():
    """The names of all callbacks of the package, as they are today."""
    found = {name: getattr(fitkit, name) for name in fitkit.__all__}
    return sorted(n for n, v in found.items() if isinstance(v, type) and issubclass(v, Callback))


def cases(names=None, *, quick=lambda name, kind: kind == "torch" or name in ONLY):
    """(name, kind) of everything that can be attached; what is not quick only in the slow run.

    Callbacks that are always attached together are one case: Metrics stands for supervised(),
    CompiledRun for compiled(), TrainStep for models with steps of their own.
    """
    wanted = {*EXTRA, "Metrics", "CompiledRun", "TrainStep"} if names is None else names
    found = [(n, kind) for n in sorted(wanted) for kind in KINDS if ONLY.get(n, kind) == kind]
    return [pytest.param(*case, marks=[] if quick(*case) else [pytest.mark.slow]) for case in found]


def model_of(name, kind):
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    if kind == "torch":
        linear, dropout = torch.nn.Linear, torch.nn.Dropout(0.2)
        return torch.nn.Sequential(linear(4, 8), torch.nn.Tanh(), dropout, linear(8, 1))
    policy = "mixed_bfloat16" if name == "MixedPrecision" else "float32"
    layers = keras.layers
    inputs = keras.Input((4,))
    hidden = layers.Dense(8, activation="tanh", name="first", dtype=policy)(inputs)
    hidden = layers.Dropout(0.2, dtype=policy)(hidden)
    outputs = layers.Dense(1, dtype=policy)(hidden)
    model = keras.Model(inputs, outputs)
    if name in COMPILED | WHOLE_STEP:
        model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
    return model


def loop_of(name, kind, run_dir, *, times=1, front=(), behind=()):
    """A loop that trains with `times` instances of the callback, between `front` and `behind`."""
    model = model_of(name, kind)
    train = TensorLoader(X, Y, batch_size=8, shuffle=True, seed=2)
    loop = FitLoop(model, train, TensorLoader(X[:12], Y[:12], batch_size=8), run_dir=run_dir)
    loop.attach(*front)
    if name in WHOLE_STEP:
        loop.attach(fitkit.TrainStep(), fitkit.TestStep(), fitkit.PredictStep())
        loop.attach(fitkit.CompiledRun(), fitkit.Validate())
    elif name in COMPILED:
        loop.attach(compiled())
    elif kind == "keras" or name in ("KerasLoss", "KerasApply"):
        loop.attach(supervised(loss="mse", optimizer=keras.optimizers.Adam(0.05)))
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
        loop.attach(supervised(loss=torch.nn.MSELoss(), optimizer=optimizer))
    if name in EXTRA:
        loop.attach(*[EXTRA[name](kind) for _ in range(times)])
    return loop.attach(*behind)


def the(name, loop):
    """The callback of that class in the loop."""
    return next(c for c in loop.callbacks if type(c).__name__ == name)


def plain(structure):
    """Nested state with tensors as bytes and NaN as text, so that it can be compared."""
    if isinstance(structure, torch.Tensor):
        return structure.dtype, tuple(structure.shape), structure.detach().numpy().tobytes()
    if isinstance(structure, dict):
        return {key: plain(value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [plain(value) for value in structure]
    return repr(structure) if isinstance(structure, float) else structure


def weights_of(loop):
    return [t.detach().clone() for t in (*loop.model.parameters(), *loop.model.buffers())]
