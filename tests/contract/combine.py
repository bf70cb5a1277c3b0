"""Any of the callbacks of tune/ together, in a loop and written by hand."""

import keras
import torch

from fitkit import (
    EMA,
    Accumulate,
    ClipGradNorm,
    ClipGradValue,
    EarlyStopping,
    FitLoop,
    Freeze,
    KerasCallbacks,
    Limits,
    LRSchedule,
    MixedPrecision,
    NaNGuard,
    Record,
    Seed,
    TensorLoader,
    supervised,
)

NUM_EPOCHS, NORM, VALUE, DECAY, LIMIT = 3, 0.5, 0.05, 0.9, 4

MAKERS = {
    "Accumulate": lambda: Accumulate(2),
    "MixedPrecision": lambda: MixedPrecision("bf16"),
    "NaNGuard": lambda: NaNGuard("skip"),
    "ClipGradNorm": lambda: ClipGradNorm(NORM),
    "ClipGradValue": lambda: ClipGradValue(VALUE),
    "EMA": lambda: EMA(DECAY, warmup=False),
    "EarlyStopping": lambda: EarlyStopping("val_loss", patience=1, min_delta=1e6),
    "Freeze": lambda: Freeze(FIRST[_kind], until="1 epoch"),
    "KerasCallbacks": lambda: KerasCallbacks([stop_after_two()]),
    "LRSchedule": lambda: LRSchedule(rate_at),
    "Limits": lambda: Limits(train_batches=LIMIT),
    "Seed": lambda: Seed(7),
}


def rate_at(update):
    return 0.1 / (update + 1)


def stop_after_two():
    class StopAfterTwo(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    return StopAfterTwo()


# -- the two trainings

FIRST = {"torch": "0", "keras": "first"}  # the layer that is frozen
_kind = "torch"


def kind_of(pair):
    """The model the pair is run on: callbacks of Keras want one of Keras."""
    return "keras" if "KerasCallbacks" in pair else "torch"


def rows(num, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, 4, generator=generator)
    return x, 3 * x.sum(1, keepdim=True)


TRAIN, VAL = rows(44, 0), rows(16, 1)  # 44: the last of 6 batches has 4 rows


def model_and_optimizer(pair):
    """The same weights every time; dropout shows where random numbers differ."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    if kind_of(pair) == "torch":
        linear = torch.nn.Linear
        model = torch.nn.Sequential(
            linear(4, 8), torch.nn.Tanh(), torch.nn.Dropout(0.2), linear(8, 1)
        )
        return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    policy = "mixed_bfloat16" if "MixedPrecision" in pair else "float32"
    layers = [
        keras.layers.Dense(8, activation="tanh", name="first", dtype=policy),
        keras.layers.Dropout(0.2, dtype=policy),
        keras.layers.Dense(1, dtype=policy),
    ]
    return keras.Sequential([keras.Input((4,)), *layers]), keras.optimizers.Adam(0.05)


def loop_of(pair, *, recorded=False):
    """The loop with both callbacks, in the order of the pair."""
    global _kind
    _kind = kind_of(pair)
    model, optimizer = model_and_optimizer(pair)
    loop = FitLoop(model, TensorLoader(*TRAIN, batch_size=8), TensorLoader(*VAL, batch_size=8))
    loss = torch.nn.MSELoss() if _kind == "torch" else keras.losses.MeanSquaredError()
    loop.attach(supervised(loss=loss, optimizer=optimizer))
    loop.attach(*[MAKERS[name]() for name in pair])
    torch.manual_seed(3)
    return loop.attach(Record("interpret")) if recorded else loop


def by_hand(pair):
    """Train without fitkit, with what both callbacks stand for; return weights and val losses."""
    model, optimizer = model_and_optimizer(pair)
    kind, has = kind_of(pair), frozenset(pair)
    weights = weights_of(kind, model)
    torch.manual_seed(7 if "Seed" in has else 3)
    if kind == "keras":
        optimizer.build(model.trainable_variables)
    averages = [weight.detach().clone() for weight in weights]
    best, val_losses, update = None, [], 0
    for epoch in range(NUM_EPOCHS):
        batches = list(TensorLoader(*TRAIN, batch_size=8))
        batches = batches[:LIMIT] if "Limits" in has else batches
        size = 2 if "Accumulate" in has else 1
        for start in range(0, len(batches), size):
            set_rate(optimizer, rate_at(update) if "LRSchedule" in has else 0.05)
            one_update(kind, model, optimizer, batches[start : start + size], pair, epoch)
            update += 1
            with torch.no_grad():
                for average, weight in zip(averages, weights, strict=True):
                    average.lerp_(weight, 1 - DECAY)
        judged = averages if "EMA" in has else weights
        val_losses.append(evaluate(kind, model, weights, judged, has))
        if best is None:
            best = [weight.detach().clone() for weight in judged]
        if epoch == 1 and has & {"EarlyStopping", "KerasCallbacks"}:
            break
    return (best if "EarlyStopping" in has else weights), val_losses


def one_update(kind, model, optimizer, window, pair, epoch):
    weights = weights_of(kind, model)
    total, sums = sum(len(x) for x, _ in window), [torch.zeros_like(w) for w in weights]
    for x, y in window:
        for weight in weights:
            weight.grad = None
        loss_of(kind, model, x, y, pair, training=True).backward()
        for weight, part in zip(weights, sums, strict=True):
            part.add_(weight.grad, alpha=len(x) / total)
    if len(window) > 1:
        for weight, part in zip(weights, sums, strict=True):
            weight.grad = part
    if "Freeze" in pair and epoch == 0:
        weights[0].grad = weights[1].grad = None
    for name in dict.fromkeys(pair):
        if name == "ClipGradNorm":
            torch.nn.utils.clip_grad_norm_(weights, NORM)
        if name == "ClipGradValue":
            torch.nn.utils.clip_grad_value_(weights, VALUE)
    with torch.no_grad():
        if kind == "torch":
            optimizer.step()
        else:
            known = [v for v in model.trainable_variables if v.value.grad is not None]
            optimizer.apply([v.value.grad for v in known], known)


def loss_of(kind, model, x, y, pair, *, training):
    if kind == "keras":
        return keras.losses.MeanSquaredError()(y, model(x, training=training))
    model.train(training)
    with torch.autocast("cpu", torch.bfloat16, enabled="MixedPrecision" in pair):
        return torch.nn.functional.mse_loss(model(x), y)


@torch.no_grad()
def evaluate(kind, model, weights, judged, has):
    before = [weight.clone() for weight in weights]
    for weight, value in zip(weights, judged, strict=True):
        weight.copy_(value)
    batches = list(TensorLoader(*VAL, batch_size=8))
    losses = [loss_of(kind, model, x, y, has, training=False).double() for x, y in batches]
    for weight, value in zip(weights, before, strict=True):
        weight.copy_(value)
    return torch.stack(losses).mean().item()


def weights_of(kind, model):
    if kind == "torch":
        return list(model.parameters())
    return [variable.value for variable in model.trainable_variables]


def set_rate(optimizer, rate):
    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer.param_groups[0]["lr"] = rate
    else:
        optimizer.learning_rate = rate
