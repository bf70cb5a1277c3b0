"""Callbacks that change how training acts: weights, gradients, or the course of a run."""

from fitkit.tune.accumulate import Accumulate
from fitkit.tune.clip_grad_norm import ClipGradNorm
from fitkit.tune.clip_grad_value import ClipGradValue
from fitkit.tune.early_stopping import EarlyStopping
from fitkit.tune.ema import EMA
from fitkit.tune.freeze import Freeze
from fitkit.tune.keras_callbacks import KerasCallbacks
from fitkit.tune.limits import Limits
from fitkit.tune.lr_curve import LRCurve
from fitkit.tune.lr_finder import LRFinder
from fitkit.tune.lr_schedule import LRSchedule
from fitkit.tune.mixed_precision import MixedPrecision
from fitkit.tune.nan_guard import NaNGuard
from fitkit.tune.plateau import Plateau
from fitkit.tune.schedules import Cosine, OneCycle, Warmup, WarmupStableDecay
from fitkit.tune.seed import Seed

__all__ = [
    "Accumulate",
    "ClipGradNorm",
    "ClipGradValue",
    "Cosine",
    "EMA",
    "EarlyStopping",
    "Freeze",
    "KerasCallbacks",
    "LRCurve",
    "LRFinder",
    "LRSchedule",
    "Limits",
    "MixedPrecision",
    "NaNGuard",
    "OneCycle",
    "Plateau",
    "Seed",
    "Warmup",
    "WarmupStableDecay",
]
