"""Keras layers, what hangs on layers (regularizers, constraints, activations), dtype policies."""

from dataclasses import replace

import keras
import torch
from torch.nn.functional import one_hot

from tests.record_matrix.row import Row, Training

K = keras.layers
VECTOR, SERIES, IMAGE, VOLUME = (12,), (8, 6), (8, 8, 3), (4, 4, 4, 2)


def net(shape, *layers, tokens=0):
    """A model of some layers, ending in four classes."""
    model = keras.Sequential([keras.Input(shape, dtype="int32" if tokens else None), *layers])
    if len(getattr(model, "output_shape", ())) > 2:
        model.add(K.Flatten())
    model.add(K.Dense(4))
    x = torch.randint(0, tokens, (80, *shape)) if tokens else torch.randn(80, *shape)
    return _training(model, x)


def _training(model, x):
    y = one_hot(torch.randint(0, 4, (80,)), 4).float()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    return Training(model, x, y, loss, keras.optimizers.Adam(0.01))


def functional(shape, call):
    """A model of one input; `call` gives the last hidden tensor."""
    i = keras.Input(shape)
    return _training(keras.Model(i, K.Dense(4)(K.Flatten()(call(i)))), torch.randn(80, *shape))


def two_inputs(merge):
    a, b = keras.Input(VECTOR), keras.Input(VECTOR)
    hidden = merge([K.Dense(8)(a), K.Dense(8)(b)])
    model = keras.Model([a, b], K.Dense(4)(K.Flatten()(hidden)))
    return _training(model, (torch.randn(80, *VECTOR), torch.randn(80, *VECTOR)))


class AddsLoss(K.Layer):
    """A layer that adds to the loss."""

    def call(self, x):
        self.add_loss(x.square().mean())
        return x


def normalization():
    layer = K.Normalization()
    layer.adapt(torch.randn(20, 12).numpy())
    return layer


# Name: the shape of a sample, and the layers.
LAYERS = {
    "Dense": (VECTOR, lambda: [K.Dense(8)]),
    "EinsumDense": (SERIES, lambda: [K.EinsumDense("abc,cd->abd", output_shape=(8, 5))]),
    "Conv1D": (SERIES, lambda: [K.Conv1D(4, 3)]),
    "Conv1D(causal, dilated)": (
        SERIES,
        lambda: [K.Conv1D(4, 2, padding="causal", dilation_rate=2)],
    ),
    "Conv1DTranspose": (SERIES, lambda: [K.Conv1DTranspose(4, 3)]),
    "Conv2D": (IMAGE, lambda: [K.Conv2D(4, 3)]),
    "Conv2D(same, strides=2)": (IMAGE, lambda: [K.Conv2D(4, 3, strides=2, padding="same")]),
    "Conv2DTranspose": (IMAGE, lambda: [K.Conv2DTranspose(4, 3, strides=2)]),
    "Conv3D": (VOLUME, lambda: [K.Conv3D(2, 2)]),
    "DepthwiseConv1D": (SERIES, lambda: [K.DepthwiseConv1D(3)]),
    "DepthwiseConv2D": (IMAGE, lambda: [K.DepthwiseConv2D(3)]),
    "SeparableConv1D": (SERIES, lambda: [K.SeparableConv1D(4, 3)]),
    "SeparableConv2D": (IMAGE, lambda: [K.SeparableConv2D(4, 3)]),
    "ConvLSTM1D": (VOLUME[:3], lambda: [K.ConvLSTM1D(2, 2)]),
    "MaxPooling1D": (SERIES, lambda: [K.MaxPooling1D()]),
    "MaxPooling2D": (IMAGE, lambda: [K.MaxPooling2D()]),
    "MaxPooling3D": (VOLUME, lambda: [K.MaxPooling3D()]),
    "AveragePooling1D": (SERIES, lambda: [K.AveragePooling1D(2)]),
    "AveragePooling2D": (IMAGE, lambda: [K.AveragePooling2D(2)]),
    "AveragePooling2D(same)": (IMAGE, lambda: [K.AveragePooling2D(3, padding="same")]),
    "GlobalMaxPooling1D": (SERIES, lambda: [K.GlobalMaxPooling1D()]),
    "GlobalAveragePooling1D": (SERIES, lambda: [K.GlobalAveragePooling1D()]),
    "GlobalAveragePooling2D": (IMAGE, lambda: [K.GlobalAveragePooling2D()]),
    "GlobalMaxPooling2D": (IMAGE, lambda: [K.GlobalMaxPooling2D()]),
    "AdaptiveAveragePooling2D": (IMAGE, lambda: [K.AdaptiveAveragePooling2D(2)]),
    "BatchNormalization": (VECTOR, lambda: [K.Dense(8), K.BatchNormalization()]),
    "BatchNormalization after Conv2D": (IMAGE, lambda: [K.Conv2D(4, 3), K.BatchNormalization()]),
    "LayerNormalization": (VECTOR, lambda: [K.LayerNormalization()]),
    "RMSNormalization": (VECTOR, lambda: [K.RMSNormalization()]),
    "GroupNormalization": (IMAGE, lambda: [K.Conv2D(4, 3), K.GroupNormalization(2)]),
    "UnitNormalization": (VECTOR, lambda: [K.UnitNormalization()]),
    "SpectralNormalization": (VECTOR, lambda: [K.SpectralNormalization(K.Dense(8))]),
    "Normalization": (VECTOR, lambda: [normalization()]),
    "Rescaling": (IMAGE, lambda: [K.Rescaling(1 / 255, offset=-1)]),
    "Resizing": (IMAGE, lambda: [K.Resizing(4, 4)]),
    "CenterCrop": (IMAGE, lambda: [K.CenterCrop(4, 4)]),
    "LSTM": (SERIES, lambda: [K.LSTM(5)]),
    "LSTM(return_sequences)": (SERIES, lambda: [K.LSTM(5, return_sequences=True)]),
    "LSTM(dropout)": (SERIES, lambda: [K.LSTM(5, dropout=0.2)]),
    "LSTM(recurrent_dropout)": (SERIES, lambda: [K.LSTM(5, recurrent_dropout=0.2)]),
    "GRU": (SERIES, lambda: [K.GRU(5)]),
    "SimpleRNN": (SERIES, lambda: [K.SimpleRNN(5)]),
    "SimpleRNN(unroll)": (SERIES, lambda: [K.SimpleRNN(5, unroll=True)]),
    "RNN(LSTMCell)": (SERIES, lambda: [K.RNN(K.LSTMCell(5))]),
    "RNN(LSTMCell, unroll)": (SERIES, lambda: [K.RNN(K.LSTMCell(5), unroll=True)]),
    "Bidirectional(LSTM)": (SERIES, lambda: [K.Bidirectional(K.LSTM(3))]),
    "Bidirectional(GRU)": (SERIES, lambda: [K.Bidirectional(K.GRU(3))]),
    "TimeDistributed(Dense)": (SERIES, lambda: [K.TimeDistributed(K.Dense(3))]),
    "Masking, LSTM": (SERIES, lambda: [K.Masking(), K.LSTM(5)]),
    "Dropout": (VECTOR, lambda: [K.Dense(8), K.Dropout(0.3)]),
    "Dropout(seed=1)": (VECTOR, lambda: [K.Dense(8), K.Dropout(0.3, seed=1)]),
    "AlphaDropout": (VECTOR, lambda: [K.AlphaDropout(0.3)]),
    "GaussianDropout": (VECTOR, lambda: [K.GaussianDropout(0.3)]),
    "GaussianNoise": (VECTOR, lambda: [K.GaussianNoise(0.3)]),
    "SpatialDropout1D": (SERIES, lambda: [K.SpatialDropout1D(0.3)]),
    "SpatialDropout2D": (IMAGE, lambda: [K.SpatialDropout2D(0.3)]),
    "RandomFlip": (IMAGE, lambda: [K.RandomFlip()]),
    "RandomRotation": (IMAGE, lambda: [K.RandomRotation(0.1)]),
    "RandomContrast": (IMAGE, lambda: [K.RandomContrast(0.1)]),
    "Flatten": (SERIES, lambda: [K.Flatten()]),
    "Reshape": (VECTOR, lambda: [K.Reshape((3, 4))]),
    "Permute": (SERIES, lambda: [K.Permute((2, 1))]),
    "RepeatVector": (VECTOR, lambda: [K.RepeatVector(2)]),
    "Cropping1D": (SERIES, lambda: [K.Cropping1D(1)]),
    "Cropping2D": (IMAGE, lambda: [K.Cropping2D(1)]),
    "ZeroPadding1D": (SERIES, lambda: [K.ZeroPadding1D(1)]),
    "ZeroPadding2D": (IMAGE, lambda: [K.ZeroPadding2D(1)]),
    "UpSampling1D": (SERIES, lambda: [K.UpSampling1D(2)]),
    "UpSampling2D": (IMAGE, lambda: [K.UpSampling2D(2)]),
    "UpSampling2D(bilinear)": (IMAGE, lambda: [K.UpSampling2D(2, interpolation="bilinear")]),
    "Activation": (VECTOR, lambda: [K.Activation("gelu")]),
    "ReLU": (VECTOR, lambda: [K.ReLU(max_value=1.0)]),
    "LeakyReLU": (VECTOR, lambda: [K.LeakyReLU()]),
    "PReLU": (VECTOR, lambda: [K.PReLU()]),
    "ELU": (VECTOR, lambda: [K.ELU()]),
    "Softmax": (VECTOR, lambda: [K.Softmax()]),
    "Lambda": (VECTOR, lambda: [K.Lambda(lambda x: x * 2.0)]),
    "Identity": (VECTOR, lambda: [K.Identity()]),
    "ActivityRegularization": (VECTOR, lambda: [K.Dense(8), K.ActivityRegularization(0.01)]),
    "a layer with add_loss": (VECTOR, lambda: [K.Dense(8), AddsLoss()]),
}
TOKENS = {
    "Embedding": lambda: [K.Embedding(10, 4)],
    "Embedding(mask_zero), GlobalAveragePooling1D": lambda: [
        K.Embedding(10, 4, mask_zero=True),
        K.GlobalAveragePooling1D(),
    ],
    "Embedding(mask_zero), LSTM": lambda: [K.Embedding(10, 4, mask_zero=True), K.LSTM(5)],
    "CategoryEncoding": lambda: [K.CategoryEncoding(10, output_mode="multi_hot")],
}
ATTENTION = {
    "MultiHeadAttention": lambda i: K.MultiHeadAttention(2, 3)(i, i),
    "MultiHeadAttention(dropout)": lambda i: K.MultiHeadAttention(2, 3, dropout=0.1)(i, i),
    "MultiHeadAttention, causal mask": lambda i: K.MultiHeadAttention(2, 3)(
        i, i, use_causal_mask=True
    ),
    "GroupQueryAttention": lambda i: K.GroupQueryAttention(3, 4, 2)(i, i),
    "Attention": lambda i: K.Attention()([i, i]),
    "AdditiveAttention": lambda i: K.AdditiveAttention()([i, i]),
}
MERGES = {
    name: getattr(K, name)
    for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
} | {"Dot": lambda: K.Dot(1)}

REGULARIZERS = {
    "kernel L1": {"kernel_regularizer": "l1"},
    "kernel L2": {"kernel_regularizer": "l2"},
    "kernel L1L2": {"kernel_regularizer": keras.regularizers.L1L2(0.01, 0.01)},
    "kernel OrthogonalRegularizer": {"kernel_regularizer": "orthogonal_regularizer"},
    "bias L2": {"bias_regularizer": "l2"},
    "activity L2": {"activity_regularizer": "l2"},
}
CONSTRAINTS = ("max_norm", "min_max_norm", "non_neg", "unit_norm")
ACTIVATIONS = (
    *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_swish"),
    *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6"),
    *("selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus"),
    *("sparse_sigmoid", "sparsemax", "squareplus", "tanh", "tanh_shrink"),
)


def _policy(name, *layers):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        return net(VECTOR, K.Dense(8, activation="relu"), *(layer() for layer in layers))
    finally:
        keras.config.set_dtype_policy(before)


def _half():
    """With the optimizer that `compile` makes of it; its first scales are too high."""
    made = _policy("mixed_float16", K.BatchNormalization)
    scaled = keras.optimizers.LossScaleOptimizer(
        made.optimizer, initial_scale=2.0**20, dynamic_growth_steps=3
    )
    return replace(made, optimizer=scaled)


def _rows():
    for name, (shape, make) in LAYERS.items():
        yield Row("Keras layers", name, lambda s=shape, m=make: net(s, *m()))
    for name, make in TOKENS.items():
        yield Row("Keras layers", name, lambda m=make: net((6,), *m(), tokens=10))
    for name, call in ATTENTION.items():
        yield Row("Keras layers", name, lambda c=call: functional(SERIES, c))
    for name, make in MERGES.items():
        yield Row("Keras layers", name, lambda m=make: two_inputs(m()))
    for name, options in REGULARIZERS.items():
        group = "Keras regularizers, constraints, activations, dtype policies"
        yield Row(group, name, lambda o=options: net(VECTOR, K.Dense(8, **o)))
    for name in CONSTRAINTS:
        yield Row(group, name, lambda n=name: net(VECTOR, K.Dense(8, kernel_constraint=n)))
    for name in ACTIVATIONS:
        yield Row(group, name, lambda n=name: net(VECTOR, K.Dense(8, activation=n)))
    for name in ("mixed_bfloat16", "float64"):
        yield Row(group, name, lambda n=name: _policy(n, K.BatchNormalization))
    yield Row(group, "mixed_float16, loss scaled", _half)


ROWS = list(_rows())
