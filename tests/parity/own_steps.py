"""Keras models with methods of their own, as users and Keras's guide write them."""

import keras
import torch
from keras import layers, ops

from tests.parity.compiled_cases import MAE, AddedLoss, Case, case, mlp, positive, regression, rows


def update(model, loss):
    """What every step of the guide does with a loss."""
    loss.backward()
    weights = model.trainable_weights
    gradients = [weight.value.grad for weight in weights]
    with torch.no_grad():
        model.optimizer.apply(gradients, weights)


class GuideStep(keras.Model):
    def train_step(self, data):
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        update(self, loss)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class OwnTrackers(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.mae_metric = keras.metrics.MeanAbsoluteError(name="mae")
        self.loss_fn = keras.losses.MeanSquaredError()

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.loss_fn(y, y_pred)
        update(self, loss)
        self.loss_tracker.update_state(loss)
        self.mae_metric.update_state(y, y_pred)
        return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        self.loss_tracker.update_state(self.loss_fn(y, y_pred))
        self.mae_metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}

    @property
    def metrics(self):
        return [self.loss_tracker, self.mae_metric]


class WeightedStep(keras.Model):
    def train_step(self, data):
        x, y, sample_weight = data if len(data) == 3 else (*data, None)
        self.zero_grad()
        y_pred = self(x, training=True)
        loss = self.compute_loss(y=y, y_pred=y_pred, sample_weight=sample_weight)
        update(self, loss)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=sample_weight)
        return {m.name: m.result() for m in self.metrics}


class OwnTestStep(keras.Model):
    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class OwnPredictStep(keras.Model):
    def predict_step(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return {"twice": 2 * self(x, training=False)}


class SuperStep(keras.Model):
    def train_step(self, data):
        return {**super().train_step(data), "constant": 2.0}


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((y_pred - y) ** 2) * (2.0 if training else 1.0)


class OldOwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return super().compute_loss(x, y, y_pred, sample_weight) + ops.mean(ops.abs(y_pred))


class OwnMetrics(keras.Model):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.bias_metric = keras.metrics.Mean(name="bias")

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        self.bias_metric.update_state(y_pred - y)
        return {**results, "bias": self.bias_metric.result()}


class LastStepLogs(keras.Model):
    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        super().compute_metrics(x, y, y_pred, sample_weight)
        return {"last": ops.mean(y_pred)}


@case
def own_train_step():
    return regression(mlp(base=GuideStep), metrics=MAE)


@case
def own_train_step_with_dropout():
    return regression(mlp(1, layers.Dropout(0.3), base=GuideStep), metrics=MAE)


@case
def own_trackers():
    model = mlp(base=OwnTrackers)
    model.compile(optimizer="adam")
    return Case(model, rows(4), rows(1, seed=1))


@case
def own_weighted_step():
    return regression(mlp(base=WeightedStep), metrics=MAE, weight=positive(1))


@case
def own_test_step():
    return regression(mlp(base=OwnTestStep), metrics=MAE)


@case
def own_predict_step():
    return regression(mlp(base=OwnPredictStep))


@case
def train_step_of_the_base():
    return regression(mlp(base=SuperStep), metrics=MAE, weight=positive())


@case
def own_compute_loss():
    return regression(mlp(base=OwnLoss), metrics=MAE)


@case
def own_compute_loss_without_training():
    return regression(mlp(1, AddedLoss(), base=OldOwnLoss), metrics=MAE)


@case
def own_compute_metrics():
    return regression(mlp(base=OwnMetrics), metrics=MAE)


@case
def own_compute_metrics_with_logs_of_a_step():
    return regression(mlp(base=LastStepLogs), metrics=MAE)
