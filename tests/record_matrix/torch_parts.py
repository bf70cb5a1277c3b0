"""torch optimizers, losses and torchmetrics."""

import torch
import torchmetrics
from torch import nn, optim

from tests.record_matrix.row import Row, Training

# The keyword arguments each optimizer of torch takes, besides none at all.
OPTIMIZERS = {
    "ASGD": ("foreach", "capturable"),
    "Adadelta": ("foreach", "capturable"),
    "Adafactor": ("foreach",),
    "Adagrad": ("foreach", "fused"),
    "Adam": ("foreach", "fused", "capturable"),
    "AdamW": ("foreach", "fused", "capturable"),
    "Adamax": ("foreach", "capturable"),
    "NAdam": ("foreach", "capturable"),
    "RAdam": ("foreach", "capturable"),
    "RMSprop": ("foreach", "capturable"),
    "Rprop": ("foreach", "capturable"),
    "SGD": ("foreach", "fused"),
}
VARIANTS = {
    "Adam(amsgrad, weight_decay, fused=True)": lambda p: optim.Adam(
        p, amsgrad=True, weight_decay=0.1, fused=True
    ),
    "SGD(momentum)": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "SGD(nesterov, fused=True)": lambda p: optim.SGD(
        p, lr=0.1, momentum=0.9, nesterov=True, fused=True
    ),
    "RMSprop(momentum, centered)": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "Muon": lambda p: optim.Muon([q for q in p if q.dim() == 2]),
}


def classifier(make, *, loss=None, y=None, outputs=4, last=None, metrics=()):
    x = torch.randn(80, 12)
    y = torch.randint(0, outputs, (80,)) if y is None else y
    layers = [nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, outputs), *([last] if last else [])]
    model = nn.Sequential(*layers)
    optimizer = make(list(model.parameters()))
    return Training(model, x, y, loss or nn.CrossEntropyLoss(), optimizer, metrics)


def _sgd(parameters):
    return optim.SGD(parameters, lr=0.1, fused=True)


def _real():
    return torch.randn(80, 3)


def _signs():
    return torch.randint(0, 2, (80, 3)).float() * 2 - 1


def _labels():
    return torch.randint(0, 2, (80, 3)).float()


# Name: the loss, its targets, the number of outputs, the last layer.
LOSSES = {
    "BCELoss": (nn.BCELoss, _labels, 3, nn.Sigmoid),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, _labels, 3, None),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, None, 4, None),
    "CrossEntropyLoss(ignore_index)": (lambda: nn.CrossEntropyLoss(ignore_index=1), None, 4, None),
    "HingeEmbeddingLoss": (nn.HingeEmbeddingLoss, _signs, 3, None),
    "HuberLoss": (nn.HuberLoss, _real, 3, None),
    "KLDivLoss": (
        lambda: nn.KLDivLoss(reduction="batchmean"),
        lambda: torch.rand(80, 3).softmax(1),
        3,
        lambda: nn.LogSoftmax(1),
    ),
    "L1Loss": (nn.L1Loss, _real, 3, None),
    "MSELoss": (nn.MSELoss, _real, 3, None),
    "MultiLabelMarginLoss": (
        nn.MultiLabelMarginLoss,
        lambda: torch.tensor([[0, 2, -1]]).repeat(80, 1),
        3,
        None,
    ),
    "MultiLabelSoftMarginLoss": (nn.MultiLabelSoftMarginLoss, _labels, 3, None),
    "MultiMarginLoss": (nn.MultiMarginLoss, None, 4, None),
    "NLLLoss": (nn.NLLLoss, None, 4, lambda: nn.LogSoftmax(1)),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, lambda: torch.rand(80, 3), 3, None),
    "SmoothL1Loss": (nn.SmoothL1Loss, _real, 3, None),
    "SoftMarginLoss": (nn.SoftMarginLoss, _signs, 3, None),
}


def _multiclass(name, **options):
    return lambda: getattr(torchmetrics, name)(task="multiclass", num_classes=4, **options)


CLASSIFICATION = {
    **{
        name: _multiclass(name)
        for name in (
            *("Accuracy", "AUROC", "AveragePrecision", "CalibrationError", "CohenKappa"),
            *("ConfusionMatrix", "F1Score", "HammingDistance", "HingeLoss", "JaccardIndex"),
            *("MatthewsCorrCoef", "Precision", "Recall", "Specificity", "StatScores"),
        )
    },
    "FBetaScore": _multiclass("FBetaScore", beta=2.0),
    "AUROC(thresholds=20)": _multiclass("AUROC", thresholds=20),
    "AveragePrecision(thresholds=20)": _multiclass("AveragePrecision", thresholds=20),
    "Accuracy(top_k=2)": _multiclass("Accuracy", top_k=2),
    "Accuracy(validate_args=False)": _multiclass("Accuracy", validate_args=False),
    "MetricCollection": lambda: torchmetrics.MetricCollection(
        {"top1": _multiclass("Accuracy")(), "f1": _multiclass("F1Score")()}
    ),
}
REGRESSION = {
    name: getattr(torchmetrics, name)
    for name in (
        *("ConcordanceCorrCoef", "CosineSimilarity", "ExplainedVariance", "LogCoshError"),
        *("MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError"),
        *("MinkowskiDistance", "PearsonCorrCoef", "R2Score", "SpearmanCorrCoef"),
        *("RelativeSquaredError", "SymmetricMeanAbsolutePercentageError", "TweedieDevianceScore"),
        *("WeightedMeanAbsolutePercentageError", "NormalizedRootMeanSquaredError"),
    )
}
OPTIONS = {"MinkowskiDistance": {"p": 3}}
PER_OUTPUT = ("ConcordanceCorrCoef", "LogCoshError", "PearsonCorrCoef", "R2Score")
PER_OUTPUT += ("SpearmanCorrCoef", "RelativeSquaredError")


def _regression(name, make):
    outputs = 3
    options = dict(OPTIONS.get(name, {}))
    if name in PER_OUTPUT:
        outputs = 1
    y = torch.rand(80, outputs)
    if outputs == 1:
        last = nn.Flatten(0)
        y = y[:, 0]
    else:
        last = None
    return classifier(
        _sgd, loss=nn.MSELoss(), y=y, outputs=outputs, last=last, metrics=[make(**options)]
    )


def _optimizers():
    for name, flags in OPTIMIZERS.items():
        cls = getattr(optim, name)
        yield name, lambda p, cls=cls: cls(p)
        for flag in flags:
            yield f"{name}({flag}=True)", lambda p, cls=cls, flag=flag: cls(p, **{flag: True})
    yield from VARIANTS.items()


def _rows():
    for name, make in _optimizers():
        yield Row("torch optimizers", name, lambda make=make: classifier(make))
    for name, (make, y, outputs, last) in LOSSES.items():
        yield Row(
            "torch losses",
            name,
            lambda make=make, y=y, outputs=outputs, last=last: classifier(
                _sgd, loss=make(), y=y and y(), outputs=outputs, last=last and last()
            ),
        )
    for name, make in CLASSIFICATION.items():
        yield Row("torchmetrics", name, lambda make=make: classifier(_sgd, metrics=[make()]))
    for name, make in REGRESSION.items():
        yield Row("torchmetrics", name, lambda name=name, make=make: _regression(name, make))


ROWS = list(_rows())
