"""The actions of a step, for Keras: the training flag, added losses, what is trainable."""

import keras
import pytest
import torch

from fitkit import ConfigError, Event, FitLoop, Phase, TensorLoader, supervised
from fitkit.interop import ignores_training

layers = keras.layers


def model_of(*middle):
    return keras.Sequential([keras.Input((4,)), *middle, layers.Dense(1)])


def data(num=8):
    keras.utils.set_random_seed(0)
    return torch.randn(num, 4), torch.randn(num, 1)


def loop_of(model, optimizer="sgd", **options):
    stack = supervised(loss="mse", optimizer=optimizer)
    return FitLoop(model, TensorLoader(*data(), batch_size=4), callbacks=stack, **options)


# -- whether training= may be left out -------------------------------------------------------------


class Plain(layers.Layer):
    """Somebody's own layer: it may ask for the flag in ways that nobody can see."""

    def call(self, inputs):
        return inputs


class Noting(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, inputs, training=None):
        self.seen.append(training)
        return inputs


def swish(x):
    return x * torch.sigmoid(x)


INDIFFERENT = {
    "dense": lambda: [layers.Dense(3, activation="relu")],
    "activations": lambda: [layers.Activation("tanh"), layers.ReLU(), layers.Softmax()],
    "norm": lambda: [layers.LayerNormalization(), layers.UnitNormalization()],
    "convolution": lambda: [
        layers.Reshape((4, 1)),
        layers.Conv1D(2, 2),
        layers.MaxPooling1D(),
        layers.Flatten(),
    ],
    "nested": lambda: [model_of(layers.Dense(2))],
    "layer as activation": lambda: [layers.Dense(3, activation=layers.LeakyReLU())],
}
DIFFERENT = {
    "dropout": lambda: [layers.Dropout(0.5)],
    "batch norm": lambda: [layers.BatchNormalization()],
    "noise": lambda: [layers.GaussianNoise(0.1)],
    "recurrent": lambda: [layers.Reshape((4, 1)), layers.GRU(2, dropout=0.5)],
    "own layer": lambda: [Plain()],
    "own activation": lambda: [layers.Dense(3, activation=swish)],
    "nested": lambda: [model_of(layers.Dropout(0.5))],
    "dropout as activation": lambda: [layers.Dense(3, activation=layers.Dropout(0.5))],
    "lambda": lambda: [layers.Lambda(swish)],
    "wrapped": lambda: [layers.SpectralNormalization(layers.Dense(3))],
}


@pytest.mark.parametrize("name", INDIFFERENT)
def test_models_that_ignore_the_flag_compute_the_same_with_it(name):
    model = model_of(*INDIFFERENT[name]())
    assert ignores_training(model)
    x = data()[0]
    outputs = [model(x), model(x, training=True), model(x, training=False)]
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@pytest.mark.parametrize("name", DIFFERENT)
def test_models_that_may_look_at_the_flag_are_told(name):
    assert not ignores_training(model_of(*DIFFERENT[name]()))


def test_subclassed_models_are_told():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    assert not ignores_training(Own())


def test_flag_of_each_phase():
    noting = Noting()
    loop = loop_of(model_of(noting), val_loader=TensorLoader(*data()))
    noting.seen.clear()
    loop.fit(epochs=1)
    loop.predict(TensorLoader(data()[0]))
    assert noting.seen == [True, True, False, False]


# -- added losses ----------------------------------------------------------------------------------


def test_added_losses_join_the_loss_in_training_and_validation():
    penalty = layers.ActivityRegularization(l2=0.5)
    dense = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))
    model = model_of(dense, penalty)
    loop, added = loop_of(model, val_loader=TensorLoader(*data())), []

    @loop.on(Event.LOSS_READY, phases=Phase)
    def look(state):
        expected = keras.losses.MeanSquaredError()(state.targets, state.outputs)
        for loss in state.model.losses:
            expected = expected + loss
        added.append(float(state.losses["added"].detach()))
        assert torch.equal(state.loss, expected)

    loop.fit(max_steps=2)
    loop.evaluate()
    assert len(added) == 4  # two batches, the validation of the epoch, evaluate
    assert all(value > 0 for value in added)


def test_losses_that_only_some_batches_add():
    class Sometimes(layers.Layer):
        count = 0

        def call(self, inputs):
            self.count += 1
            if self.count % 2 == 0:
                self.add_loss(inputs.sum())
            return inputs

    loop, named = loop_of(model_of(Sometimes())), []
    loop.on(Event.BATCH_END)(lambda state: named.append("added" in state.losses))
    loop.fit(epochs=2)
    assert sorted(named) == [False, False, True, True]
    assert named[0] is not named[1]


# -- what is trainable -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* flags of the model changed")
def test_freezing_takes_effect_at_the_next_step():
    first, second = layers.Dense(4), layers.Dense(1)
    model = keras.Sequential([keras.Input((4,)), first, second])
    optimizer = keras.optimizers.SGD(0.1)
    loop, kernels = loop_of(model, optimizer), []

    @loop.on(Event.BATCH_END)
    def freeze(state):
        kernels.append(first.kernel.value.detach().clone())
        first.trainable = False

    loop.fit(epochs=2)
    assert all(torch.equal(kernel, kernels[0]) for kernel in kernels[1:])
    assert int(optimizer.iterations) == 4


def test_learning_rate_is_logged_and_can_be_changed():
    optimizer = keras.optimizers.SGD(0.1)
    loop = loop_of(model_of(), optimizer)

    @loop.on(Event.EPOCH_END)
    def lower(state):
        optimizer.learning_rate = 0.05

    loop.fit(epochs=2)
    assert loop.history["lr"] == pytest.approx([0.1, 0.05])


def test_keras_optimizer_shares_the_parameters_of_a_torch_module():
    module = torch.nn.Linear(4, 1)
    places = [parameter.data_ptr() for parameter in module.parameters()]
    before = module.weight.detach().clone()
    loop_of(module, keras.optimizers.Adam(0.1)).fit(epochs=1)
    assert not torch.equal(module.weight, before)
    assert [parameter.data_ptr() for parameter in module.parameters()] == places


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)),
    ],
)
def test_a_keras_optimizer_goes_on_with_a_torch_module_in_a_second_loop(make):
    """The variables that wrap the parameters belong to the optimizer, not to a loop."""

    def trained(*, loops):
        torch.manual_seed(0)
        module, optimizer = torch.nn.Linear(4, 1), make()
        for _ in range(loops):
            loop_of(module, optimizer).fit(epochs=2 // loops)
        return [*module.parameters(), *(v.value for v in optimizer.variables)]

    assert all(map(torch.equal, trained(loops=2), trained(loops=1)))


def test_a_keras_optimizer_of_one_torch_module_is_refused_on_another():
    optimizer = keras.optimizers.Adam(0.1)
    loop_of(torch.nn.Linear(4, 1), optimizer).fit(epochs=1)
    with pytest.raises(ConfigError, match="built for other variables: 2 of the model's 2"):
        loop_of(torch.nn.Linear(4, 1), optimizer).fit(epochs=1)
