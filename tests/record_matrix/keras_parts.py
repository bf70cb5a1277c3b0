"""Keras losses and metrics."""

import keras
import torch
from torch.nn.functional import one_hot

from tests.record_matrix.row import Row, Training

L, M = keras.losses, keras.metrics


def _net(outputs, activation):
    dense = keras.layers.Dense
    hidden = dense(8, activation="relu")
    return keras.Sequential([keras.Input((12,)), hidden, dense(outputs, activation=activation)])


# The kinds of targets, and a last activation that fits them.
def onehot():
    return 4, "softmax", one_hot(torch.randint(0, 4, (80,)), 4).float()


def classes():
    return 4, "softmax", torch.randint(0, 4, (80,))


def binary():
    return 1, "sigmoid", torch.randint(0, 2, (80, 1)).float()


def labels():
    return 3, "sigmoid", torch.randint(0, 2, (80, 3)).float()


def signs():
    return 3, "tanh", torch.randint(0, 2, (80, 3)).float() * 2 - 1


def positive():
    return 3, "softplus", torch.rand(80, 3)


def real():
    return 3, None, torch.randn(80, 3)


LOSSES = {
    "BinaryCrossentropy": (L.BinaryCrossentropy, binary),
    "BinaryFocalCrossentropy": (L.BinaryFocalCrossentropy, binary),
    "CategoricalCrossentropy": (L.CategoricalCrossentropy, onehot),
    "CategoricalCrossentropy(label_smoothing)": (
        lambda: L.CategoricalCrossentropy(label_smoothing=0.1),
        onehot,
    ),
    "CategoricalFocalCrossentropy": (L.CategoricalFocalCrossentropy, onehot),
    "CategoricalGeneralizedCrossEntropy": (L.CategoricalGeneralizedCrossEntropy, classes),
    "CategoricalHinge": (L.CategoricalHinge, onehot),
    "Circle": (L.Circle, classes),
    "CosineSimilarity": (L.CosineSimilarity, real),
    "Dice": (L.Dice, labels),
    "Hinge": (L.Hinge, signs),
    "Huber": (L.Huber, real),
    "KLDivergence": (L.KLDivergence, onehot),
    "LogCosh": (L.LogCosh, real),
    "MeanAbsoluteError": (L.MeanAbsoluteError, real),
    "MeanAbsolutePercentageError": (L.MeanAbsolutePercentageError, real),
    "MeanSquaredError": (L.MeanSquaredError, real),
    "MeanSquaredLogarithmicError": (L.MeanSquaredLogarithmicError, positive),
    "Poisson": (L.Poisson, positive),
    "SparseCategoricalCrossentropy": (L.SparseCategoricalCrossentropy, classes),
    "SparseCategoricalCrossentropy(ignore_class)": (
        lambda: L.SparseCategoricalCrossentropy(ignore_class=0),
        classes,
    ),
    "SquaredHinge": (L.SquaredHinge, signs),
    "Tversky": (L.Tversky, labels),
    "a function": (lambda: keras.losses.mean_squared_error, real),
}

METRICS = {
    "AUC": (M.AUC, binary),
    "AUC(multi_label)": (lambda: M.AUC(multi_label=True, num_labels=3), labels),
    "Accuracy": (M.Accuracy, real),
    "BinaryAccuracy": (M.BinaryAccuracy, binary),
    "BinaryCrossentropy": (M.BinaryCrossentropy, binary),
    "BinaryIoU": (M.BinaryIoU, binary),
    "CategoricalAccuracy": (M.CategoricalAccuracy, onehot),
    "CategoricalCrossentropy": (M.CategoricalCrossentropy, onehot),
    "CategoricalHinge": (M.CategoricalHinge, onehot),
    "ConcordanceCorrelation": (M.ConcordanceCorrelation, real),
    "CosineSimilarity": (M.CosineSimilarity, real),
    "F1Score": (M.F1Score, onehot),
    "FBetaScore": (M.FBetaScore, onehot),
    "FalseNegatives": (M.FalseNegatives, binary),
    "FalsePositives": (M.FalsePositives, binary),
    "Hinge": (M.Hinge, signs),
    "IoU": (lambda: M.IoU(num_classes=2, target_class_ids=[0]), binary),
    "KLDivergence": (M.KLDivergence, onehot),
    "LogCoshError": (M.LogCoshError, real),
    "MeanAbsoluteError": (M.MeanAbsoluteError, real),
    "MeanAbsolutePercentageError": (M.MeanAbsolutePercentageError, real),
    "MeanIoU": (lambda: M.MeanIoU(num_classes=2), binary),
    "MeanMetricWrapper": (lambda: M.MeanMetricWrapper(keras.losses.mean_squared_error), real),
    "MeanSquaredError": (M.MeanSquaredError, real),
    "MeanSquaredLogarithmicError": (M.MeanSquaredLogarithmicError, positive),
    "OneHotIoU": (lambda: M.OneHotIoU(num_classes=4, target_class_ids=[0, 2]), onehot),
    "OneHotMeanIoU": (lambda: M.OneHotMeanIoU(num_classes=4), onehot),
    "PearsonCorrelation": (M.PearsonCorrelation, real),
    "Poisson": (M.Poisson, positive),
    "Precision": (M.Precision, binary),
    "Precision(top_k)": (lambda: M.Precision(top_k=2), onehot),
    "PrecisionAtRecall": (lambda: M.PrecisionAtRecall(0.5), binary),
    "R2Score": (M.R2Score, real),
    "Recall": (M.Recall, binary),
    "RecallAtPrecision": (lambda: M.RecallAtPrecision(0.5), binary),
    "RootMeanSquaredError": (M.RootMeanSquaredError, real),
    "SensitivityAtSpecificity": (lambda: M.SensitivityAtSpecificity(0.5), binary),
    "SparseCategoricalAccuracy": (M.SparseCategoricalAccuracy, classes),
    "SparseCategoricalCrossentropy": (M.SparseCategoricalCrossentropy, classes),
    "SparseTopKCategoricalAccuracy": (lambda: M.SparseTopKCategoricalAccuracy(k=2), classes),
    "SpecificityAtSensitivity": (lambda: M.SpecificityAtSensitivity(0.5), binary),
    "SquaredHinge": (M.SquaredHinge, signs),
    "TopKCategoricalAccuracy": (lambda: M.TopKCategoricalAccuracy(k=2), onehot),
    "TrueNegatives": (M.TrueNegatives, binary),
    "TruePositives": (M.TruePositives, binary),
}

# What trains while a metric is looked at.
BESIDE = {classes: L.SparseCategoricalCrossentropy, onehot: L.CategoricalCrossentropy}


def training(loss, kind, metrics=()):
    outputs, activation, y = kind()
    x = torch.randn(80, 12)
    return Training(_net(outputs, activation), x, y, loss, keras.optimizers.Adam(0.01), metrics)


def _rows():
    for name, (make, kind) in LOSSES.items():
        yield Row("Keras losses", name, lambda make=make, kind=kind: training(make(), kind))
    for name, (make, kind) in METRICS.items():
        loss = BESIDE.get(kind, L.MeanSquaredError)
        yield Row(
            "Keras metrics",
            name,
            lambda make=make, kind=kind, loss=loss: training(loss(), kind, [make()]),
        )


ROWS = list(_rows())
