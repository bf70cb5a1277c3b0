"""Keras optimizers, their options, and learning-rate schedules."""

import keras
import torch

from tests.record_matrix.row import Row, Training

OPT, S = keras.optimizers, keras.optimizers.schedules


def digits(optimizer, *layers, loss=None, metrics=()):
    """A small classifier."""
    x = torch.randn(80, 12)
    y = torch.nn.functional.one_hot(torch.randint(0, 4, (80,)), 4).float()
    hidden = keras.layers.Dense(8, activation="relu")
    model = keras.Sequential([keras.Input((12,)), hidden, *layers, keras.layers.Dense(4)])
    loss = loss or keras.losses.CategoricalCrossentropy(from_logits=True)
    return Training(model, x, y, loss, optimizer, metrics or [keras.metrics.CategoricalAccuracy()])


class OwnAdam(OPT.Adam):
    """A subclass runs per variable, not fused over all of them."""


def multi():
    """Two optimizers in one, by the path of the variable."""
    return OPT.MultiOptimizer(OPT.OptimizerMap(OPT.Adam(0.01), {".*bias": OPT.SGD(0.1)}))


OPTIMIZERS = {
    "Adadelta": OPT.Adadelta,
    "Adafactor": OPT.Adafactor,
    "Adagrad": OPT.Adagrad,
    "Adam": OPT.Adam,
    "Adam(amsgrad)": lambda: OPT.Adam(amsgrad=True),
    "Adam(weight_decay)": lambda: OPT.Adam(weight_decay=0.01),
    "Adam(clipnorm)": lambda: OPT.Adam(clipnorm=0.1),
    "Adam(clipvalue)": lambda: OPT.Adam(clipvalue=0.01),
    "Adam(global_clipnorm)": lambda: OPT.Adam(global_clipnorm=0.1),
    "Adam(loss_scale_factor)": lambda: OPT.Adam(loss_scale_factor=8.0),
    "Adam(use_ema)": lambda: OPT.Adam(use_ema=True),
    "Adam(use_ema, ema_overwrite_frequency=3)": lambda: OPT.Adam(
        0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
    ),
    "Adam(gradient_accumulation_steps=3)": lambda: OPT.Adam(0.01, gradient_accumulation_steps=3),
    "SGD(momentum, gradient_accumulation_steps=2)": lambda: OPT.SGD(
        0.1, momentum=0.9, gradient_accumulation_steps=2
    ),
    "Adam(accumulation and ema_overwrite_frequency)": lambda: OPT.Adam(
        gradient_accumulation_steps=2, use_ema=True, ema_overwrite_frequency=3
    ),
    "a subclass of Adam": OwnAdam,
    "AdamW": OPT.AdamW,
    "Adamax": OPT.Adamax,
    "Ftrl": OPT.Ftrl,
    "Lamb": OPT.Lamb,
    "Lion": OPT.Lion,
    "LossScaleOptimizer(Adam)": lambda: OPT.LossScaleOptimizer(OPT.Adam(), dynamic_growth_steps=3),
    "MultiOptimizer(Adam, SGD)": multi,
    "Muon": OPT.Muon,
    "Nadam": OPT.Nadam,
    "RMSprop": OPT.RMSprop,
    "RMSprop(momentum, centered)": lambda: OPT.RMSprop(momentum=0.9, centered=True),
    "SGD": OPT.SGD,
    "SGD(momentum)": lambda: OPT.SGD(0.1, momentum=0.9),
    "SGD(nesterov)": lambda: OPT.SGD(0.1, momentum=0.9, nesterov=True),
    "ScheduleFreeAdamW": OPT.ScheduleFreeAdamW,
}


class Stairs(S.LearningRateSchedule):
    """A schedule of the user's own that asks the step with `if`."""

    def __call__(self, step):
        return 0.01 if step < 3 else 0.001

    def get_config(self):
        return {}


SCHEDULES = {
    "ExponentialDecay": lambda: S.ExponentialDecay(0.01, 3, 0.9),
    "ExponentialDecay(staircase)": lambda: S.ExponentialDecay(0.01, 3, 0.9, staircase=True),
    "PiecewiseConstantDecay": lambda: S.PiecewiseConstantDecay([3, 6], [0.01, 0.005, 0.001]),
    "PolynomialDecay": lambda: S.PolynomialDecay(0.01, 8),
    "PolynomialDecay(cycle)": lambda: S.PolynomialDecay(0.01, 4, cycle=True),
    "InverseTimeDecay": lambda: S.InverseTimeDecay(0.01, 3, 0.5),
    "CosineDecay": lambda: S.CosineDecay(0.01, 8),
    "CosineDecay(warmup_target)": lambda: S.CosineDecay(
        0.001, 8, warmup_target=0.01, warmup_steps=4
    ),
    "CosineDecayRestarts": lambda: S.CosineDecayRestarts(0.01, 3),
    "a schedule with an if": Stairs,
    "a callable": lambda: lambda: 0.01,
}


def _rows():
    for name, make in OPTIMIZERS.items():
        yield Row("Keras optimizers", name, lambda make=make: digits(make()))
    for name, make in SCHEDULES.items():
        yield Row("Keras schedules", name, lambda make=make: digits(OPT.Adam(make())))
    yield Row(
        "Keras schedules",
        "AdamW: CosineDecay(warmup_target)",
        lambda: digits(OPT.AdamW(SCHEDULES["CosineDecay(warmup_target)"](), weight_decay=0.1)),
    )


ROWS = list(_rows())
