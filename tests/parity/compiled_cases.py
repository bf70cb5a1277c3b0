"""Compiled Keras models with their data, by name: what `compiled()` must train as `fit` does."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

NUM_TRAIN, NUM_VAL, BATCH_SIZE = 22, 11, 8


class Case(NamedTuple):
    """A compiled model and arrays of NUM_TRAIN + NUM_VAL rows; weights are used where given."""

    model: Any
    x: Any
    y: Any
    weight: Any = None
    class_weight: dict[int, float] | None = None
    with_arrays: bool = True


CASES = {}


def case(function):
    """Add a function that makes a case, under its name."""
    CASES[function.__name__] = function
    return function


def table(names, make):
    """Add one case per name: `make(*arguments)`."""
    for name, arguments in names.items():
        CASES[name] = lambda arguments=arguments: make(*arguments)


def rows(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(NUM_TRAIN + NUM_VAL, *shape)).astype("float32")


def classes(count, seed=1):
    return np.random.default_rng(seed).integers(0, count, NUM_TRAIN + NUM_VAL)


def positive(*shape):
    return np.abs(rows(*shape, seed=2)) + 0.1


def mlp(units=1, *between, activation=None, base=keras.Model, **options):
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, activation="relu", **options)(inputs)
    for layer in between:
        hidden = layer(hidden)
    return base(inputs, layers.Dense(units, activation=activation)(hidden))


def two_heads(names=None):
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, activation="relu")(inputs)
    one, two = layers.Dense(1, name="one")(hidden), layers.Dense(2, name="two")(hidden)
    return keras.Model(inputs, dict(zip(names, (one, two), strict=True)) if names else [one, two])


def regression(model=None, *, optimizer="adam", loss="mse", weight=None, **options):
    model = model or mlp()
    model.compile(optimizer, loss, **options)
    return Case(model, rows(4), rows(1, seed=1), weight)


def with_heads(model, *, by_name=None, weight=None, loss="mse", **options):
    model.compile("adam", loss, **options)
    y = [rows(1, seed=1), rows(2, seed=2)]
    y = dict(zip(by_name, y, strict=True)) if by_name else y
    return Case(model, rows(4), y, weight, None, by_name is not None)


AB = ("a", "b")
MAE = ["mae"]


class Subclassed(keras.Model):
    def __init__(self, units=1):
        super().__init__()
        self.hidden, self.out = layers.Dense(6, activation="relu"), layers.Dense(units)
        self.drop = layers.Dropout(0.3)
        self(np.zeros((1, 4), "float32"))

    def call(self, x, training=False):
        return self.out(self.drop(self.hidden(x), training=training))


class WithoutTraining(keras.Model):
    def __init__(self):
        super().__init__()
        self.out, self.drop = layers.Dense(1), layers.Dropout(0.3)
        self(np.zeros((1, 4), "float32"))

    def call(self, x):
        return self.out(self.drop(x))


class DictOfHeads(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(1), layers.Dense(2)
        self(np.zeros((1, 4), "float32"))

    def call(self, x):
        return {"a": self.one(x), "b": self.two(x)}


class AddedLoss(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * ops.mean(x**2))
        return x


def huber(y_true, y_pred):
    return ops.mean(ops.sqrt(1 + (y_true - y_pred) ** 2) - 1, axis=-1)


# Models.
@case
def functional():
    return regression(metrics=MAE)


@case
def sequential():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)])
    return regression(model, metrics=MAE)


@case
def subclassed():
    return regression(Subclassed(), metrics=MAE)


@case
def subclassed_without_training():
    return regression(WithoutTraining())


@case
def list_outputs():
    return with_heads(two_heads(), metrics=[MAE, ["mse"]])


@case
def dict_outputs():
    return with_heads(two_heads(AB), by_name=AB, metrics={"a": MAE, "b": ["mse", "mae"]})


@case
def dict_outputs_of_a_subclass():
    return with_heads(DictOfHeads(), by_name=AB, loss={"a": "mse", "b": "mae"})


@case
def targets_by_output_name():
    return with_heads(two_heads(), by_name=("one", "two"), metrics={"one": MAE})


@case
def dict_inputs():
    one, two = keras.Input((4,), name="one"), keras.Input((2,), name="two")
    model = keras.Model({"one": one, "two": two}, layers.Dense(1)(layers.Concatenate()([one, two])))
    model.compile("adam", "mse")
    return Case(model, {"one": rows(4), "two": rows(2, seed=3)}, rows(1, seed=1))


@case
def convolution():
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(3, 3), layers.BatchNormalization()]
        + [layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return Case(model, rows(6, 6, 1), classes(3))


@case
def embedding():
    model = keras.Sequential(
        [keras.Input((3,), dtype="int64"), layers.Embedding(7, 4), layers.Flatten()]
        + [layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    tokens = np.random.default_rng(4).integers(0, 7, (NUM_TRAIN + NUM_VAL, 3))
    return Case(model, tokens, classes(2)[:, None].astype("float32"))


# Losses.
table(
    {
        "loss_by_class_name": ("MeanSquaredError",),
        "loss_object": (keras.losses.Huber(0.5),),
        "loss_with_a_sum": (keras.losses.MeanSquaredError(reduction="sum"),),
        "loss_function": (huber,),
        "loss_in_a_list": (["mae"],),
    },
    lambda loss: regression(loss=loss, metrics=MAE),
)
table(
    {
        "losses_in_a_list": (["mse", "mae"], None, None),
        "losses_in_a_dict": ({"one": "mse", "two": huber}, None, None),
        "loss_weights_in_a_list": (["mse", "mae"], [0.3, 2.0], None),
        "loss_weights_in_a_dict": ({"one": "mse", "two": "mae"}, {"one": 0.5, "two": 3.0}, None),
        "loss_for_one_output_only": ({"a": "mse", "b": None}, None, AB),
    },
    lambda loss, weights, names: with_heads(
        two_heads(names), loss=loss, loss_weights=weights, by_name=names
    ),
)


@case
def loss_weight_of_one_output():
    return regression(loss_weights=0.25)


@case
def no_loss_but_add_loss():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1), AddedLoss()])
    model.compile("adam")
    return Case(model, rows(4), rows(1))


def classifier(loss, y, units, activation, metrics):
    model = mlp(units, activation=activation)
    model.compile("adam", loss, metrics=metrics)
    return Case(model, rows(4), y)


table(
    {
        "sparse_crossentropy": ("sparse_categorical_crossentropy", classes(3), 3, "softmax", None),
        "crossentropy_by_targets": ("crossentropy", classes(3), 3, "softmax", ["accuracy"]),
        "smoothed_crossentropy": (
            *(keras.losses.CategoricalCrossentropy(label_smoothing=0.1), np.eye(3)[classes(3)]),
            *(3, "softmax", ["accuracy", "categorical_crossentropy"]),
        ),
    },
    classifier,
)


@case
def counts_and_areas():
    areas = keras.metrics.AUC(num_thresholds=20, name="area")
    metrics = [areas, keras.metrics.Precision(name="precision"), "recall"]
    y = classes(2)[:, None].astype("float32")
    return classifier("binary_crossentropy", y, 1, "sigmoid", [*metrics, "accuracy"])


# Metrics.
@case
def weighted_metrics():
    return regression(metrics=MAE, weighted_metrics=["mae", "mse"], weight=positive())


@case
def weighted_metrics_without_weights():
    return regression(weighted_metrics=["mae"])


@case
def two_metrics_of_one_name():
    return regression(metrics=["mae", keras.metrics.MeanAbsoluteError(name="mae")])


@case
def metric_function():
    return regression(metrics=[huber])


# Optimizers.
def steps(make, *arguments):
    return regression(optimizer=make(*arguments), metrics=MAE)


def cosine():
    return keras.optimizers.schedules.CosineDecay(0.01, 9)


optimizers = keras.optimizers
table(
    {
        "adam": (optimizers.Adam, 0.01),
        "adam_amsgrad": (lambda: optimizers.Adam(0.01, amsgrad=True),),
        "adamw_with_schedule": (lambda: optimizers.AdamW(cosine(), weight_decay=0.1),),
        "sgd_momentum": (lambda: optimizers.SGD(0.01, momentum=0.9),),
        "sgd_nesterov": (lambda: optimizers.SGD(0.01, momentum=0.9, nesterov=True),),
        "rmsprop": (lambda: optimizers.RMSprop(0.01, momentum=0.5),),
        "global_clipnorm": (lambda: optimizers.Adam(0.01, global_clipnorm=0.1),),
        "clipnorm": (lambda: optimizers.SGD(0.1, clipnorm=0.1),),
        "clipvalue": (lambda: optimizers.SGD(0.1, clipvalue=0.01),),
        "use_ema": (lambda: optimizers.Adam(0.1, use_ema=True, ema_momentum=0.8),),
        "ema_overwrite": (lambda: optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=4),),
        "gradient_accumulation": (lambda: optimizers.Adam(0.1, gradient_accumulation_steps=2),),
        "loss_scale_factor": (lambda: optimizers.SGD(0.1, loss_scale_factor=8.0),),
        "lion": (optimizers.Lion, 0.01),
    },
    steps,
)

# Layers.
table(
    {
        "batch_normalization": (lambda: mlp(1, layers.BatchNormalization()),),
        "dropout": (lambda: mlp(1, layers.Dropout(0.4)),),
        "seeded_dropout": (lambda: mlp(1, layers.Dropout(0.4, seed=3)),),
        "gaussian_noise": (lambda: mlp(1, layers.GaussianNoise(0.4)),),
        "regularizers": (lambda: mlp(1, kernel_regularizer="l2", bias_regularizer="l1"),),
        "activity_regularizer": (lambda: mlp(1, activity_regularizer="l2"),),
        "add_loss": (lambda: mlp(1, AddedLoss(), kernel_regularizer="l2"),),
        "constraint": (lambda: mlp(1, kernel_constraint="max_norm"),),
    },
    lambda make: regression(make(), metrics=MAE),
)


@case
def frozen_layer():
    model = mlp()
    model.layers[1].trainable = False
    return regression(model)


# Precision.
def in_policy(policy, **options):
    outer = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return regression(mlp(1, layers.BatchNormalization()), metrics=MAE, **options)
    finally:
        keras.config.set_dtype_policy(outer)


table({"mixed_bfloat16": ("mixed_bfloat16",), "mixed_float16": ("mixed_float16",)}, in_policy)


@case
def mixed_float16_unscaled():
    return in_policy("mixed_float16", auto_scale_loss=False)


@case
def mixed_float16_with_overflow():
    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=2.0**24, dynamic_growth_steps=3
    )
    return in_policy("mixed_float16", optimizer=scaled)


# Weights.
@case
def sample_weight():
    return regression(weight=positive(), metrics=MAE)


@case
def sample_weight_as_column():
    return regression(weight=positive(1), weighted_metrics=MAE)


@case
def sample_weight_by_output():
    weight = {"a": positive(), "b": positive()[::-1].copy()}
    return with_heads(two_heads(AB), by_name=AB, weight=weight, weighted_metrics={"a": MAE})


@case
def sample_weight_for_all_outputs():
    return with_heads(two_heads(AB), by_name=AB, weight=positive())


@case
def sample_weight_per_place():
    model = keras.Sequential([keras.Input((5, 4)), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    y = np.random.default_rng(3).integers(0, 3, (NUM_TRAIN + NUM_VAL, 5))
    return Case(model, rows(5, 4), y, positive(5))


@case
def class_weight():
    model = mlp(3, activation="softmax")
    model.compile("adam", "sparse_categorical_crossentropy", weighted_metrics=["accuracy"])
    return Case(model, rows(4), classes(3), None, {0: 0.2, 2: 3.0})
